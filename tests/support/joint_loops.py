"""Heads that score a text with a clip, pair by pair in NumPy float64, from the parameters of the modules."""

import numpy as np
from tower_loops import blocks_by_loops, dense, f64, gelu, norm


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


def masked_language(head, words, tokens, *, place, table):
    """Logits of the token at a place, from the real words `[L,D]` of a text and the seen time tokens `[T,D]`."""
    context = norm(f64(tokens), head.norm_video) if len(tokens) else np.zeros((0, len(f64(head.norm_video.scale))))
    x = blocks_by_loops(dense(f64(words), head.words), head.blocks, context=context)[place]
    return f64(table) @ norm(gelu(dense(x, head.out)), head.norm) + f64(head.bias)


def masked_frames(head, patches, *, kept, side):
    """Pixels of all patches `[T,N,F]` of a clip, of which the tower saw those kept, as tokens `[T,n,C]`."""
    steps, width, rows = len(patches), head.width, []
    for step in range(steps):
        for place in range(side * side):
            found = np.flatnonzero(kept == place)
            x = dense(patches[step, found[0]], head.patches) if len(found) else f64(head.token)[0]
            axes = sines(place // side, width // 2), sines(place % side, width // 2)
            rows.append(x + np.concatenate(axes) + sines(step, width))
    x = dense(blocks_by_loops(np.stack(rows), head.blocks), head.out)
    return x.reshape(steps, side * side, -1)


def sines(place, width):
    """Sines, then cosines, of a place."""
    angles = place * 10_000.0 ** (-np.arange(width // 2) / (width // 2))
    return np.concatenate([np.sin(angles), np.cos(angles)])
