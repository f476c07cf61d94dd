"""The one train loop: mesh, optimizer, state, step, checkpoint, metrics. It knows an Objective, not CLIP."""
