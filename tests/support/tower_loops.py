"""The layers of the towers as NumPy loops in float64, from the parameters of the modules."""

import jax
import numpy as np
from flax import nnx


def norm(x, layer):
    y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return y * np.asarray(layer.scale[...], np.float64) + np.asarray(layer.bias[...], np.float64)


def dense(x, layer):
    bias = 0 if layer.bias is None else np.asarray(layer.bias[...], np.float64)
    return x @ np.asarray(layer.kernel[...], np.float64) + bias


def block_by_loops(x, block, *, heads):
    """One pre-norm block on `[L,D]`, float64, head by head and query by query."""
    length, width = x.shape
    size = width // heads
    qkv = dense(norm(x, block.norm1), block.attention.qkv)
    out = np.zeros_like(x)
    for head in range(heads):
        q, k, v = np.split(qkv[:, 3 * head * size : 3 * (head + 1) * size], 3, axis=1)  # a head's columns lie together
        for i in range(length):
            scores = np.array([q[i] @ k[j] / np.sqrt(size) for j in range(length)])
            weights = np.exp(scores - scores.max())
            out[i, head * size : (head + 1) * size] = (weights / weights.sum()) @ v
    x = x + dense(out, block.attention.out)
    hidden = dense(norm(x, block.norm2), block.up)
    return x + dense(gelu(hidden), block.down)


def layer_of(blocks, number):
    """One block of a stack, as a module of its own."""
    graph, params = nnx.split(blocks.layers)
    return nnx.merge(graph, jax.tree.map(lambda p: p[number], params))


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
