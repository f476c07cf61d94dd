"""The one train loop: it knows an Objective, not CLIP.

Its rooms, each of which imports only from those before it: cost, start, sharding, optimizer, step, keeping, loop.
"""
