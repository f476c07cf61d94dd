"""What gives a vector for each frame of a clip."""
