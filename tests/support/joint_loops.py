"""Heads that score a text with a clip, pair by pair in NumPy float64, from the parameters of the modules."""

import numpy as np
from tower_loops import blocks_by_loops, dense, f64, norm


def unit(x):
    return x / np.linalg.norm(x)


def x_pool(head, text, frames):
    """The score of a text `[E]` with the real frames `[T,E]` of a clip."""
    text, frames, size = f64(text), f64(frames), len(text) // head.heads
    q = dense(norm(text, head.norm_in), head.query)
    k, v = (dense(norm(frames, head.norm_in), made) for made in (head.key, head.value))
    attended = []
    for number in range(head.heads):
        own = slice(number * size, (number + 1) * size)
        weights = np.exp([q[own] @ key[own] / np.sqrt(size) for key in k])
        attended += [sum(w * value[own] for w, value in zip(weights / weights.sum(), v, strict=True))]
    r = norm(dense(np.concatenate(attended), head.out), head.norm_pooled)
    return unit(text) @ unit(norm(r + dense(r, head.mix), head.norm_out))


def cross_encoder(head, words, tokens):
    """The log-odds of the real words `[L,D]` of a text with the real time tokens `[T,D]` of a clip."""
    x = np.concatenate([f64(head.match), dense(f64(words), head.words)])
    return dense(blocks_by_loops(x, head.blocks, context=norm(f64(tokens), head.norm_video))[0], head.out)[0]
