"""How a benchmark measures: worker processes, peaks of memory, clients."""
