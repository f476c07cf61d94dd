"""Video generation: a small rectified flow over the latents of a frame autoencoder, conditioned on texts or clips."""
