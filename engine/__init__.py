"""The one train loop: it knows an Objective, not CLIP.

Its rooms, each of which imports only from those before it: start, sharding, optimizer, step, keeping, loop.
"""
