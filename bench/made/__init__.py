"""Made-up inputs of benchmarks."""
