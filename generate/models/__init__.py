"""The networks of a video generator: frame autoencoder, critic, condition, velocity field."""
