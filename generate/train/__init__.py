"""Training of a video generator in two stages, each a run of the engine's one loop."""
