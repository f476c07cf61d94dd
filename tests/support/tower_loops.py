"""The layers of the towers as NumPy loops in float64, from the parameters of the modules."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from twinreel.models.layers.options import BlockOptions


def f64(param):
    """A parameter or array in float64."""
    return np.asarray(param[...] if isinstance(param, nnx.Variable) else param, np.float64)


def randomised(module, *, seed=0):
    """Give every parameter a random value, so that initial values of 0 and 1 hide nothing."""
    rng = np.random.default_rng(seed)
    state = nnx.state(module, nnx.Param)
    nnx.update(module, jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.5, x.shape), jnp.float32), state))
    return module


def drawn(make, *, seed=0):
    """The module of `make()` with random parameters; initial values, which they replace, are not computed."""
    return randomised(nnx.eval_shape(make), seed=seed)


def norm(x, layer):
    """LayerNorm, or RMSNorm if the layer has no bias attribute, over the last axis."""
    scale = f64(layer.scale) + bool(getattr(layer, "plus_one", False))
    if hasattr(layer, "bias"):
        y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + layer.epsilon)
        return y * scale + (0 if layer.bias is None else f64(layer.bias))
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + layer.epsilon) * scale


def dense(x, layer):
    return x @ f64(layer.kernel) + (0 if layer.bias is None else f64(layer.bias))


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


ACTIVATIONS = {
    "gelu": gelu,
    "gelu_exact": lambda x: x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2))),
    "quick_gelu": lambda x: x / (1 + np.exp(-1.702 * x)),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "relu": lambda x: np.maximum(x, 0),
    "squared_relu": lambda x: np.maximum(x, 0) ** 2,
}
GATES = {"swiglu": "silu", "geglu": "gelu", "geglu_exact": "gelu_exact", "reglu": "relu"}


def attend_by_loops(q, k, v, *, seen=None, bias=None, scale=None, cap=None):
    """One head: `q [L,d]`, `k, v [M,d]`, query by query and key by key; a query that sees no key gets zeros."""
    out = np.zeros((len(q), v.shape[1]))
    for i in range(len(q)):
        places = [j for j in range(len(k)) if seen is None or seen[i, j]]
        scores = []
        for j in places:
            score = (q[i] @ k[j]) * (q.shape[1] ** -0.5 if scale is None else scale)
            score += 0 if bias is None else bias[i, j]
            scores.append(score if cap is None else cap * np.tanh(score / cap))
        if places:
            weights = np.exp(np.array(scores) - max(scores))
            out[i] = (weights / weights.sum()) @ v[places]
    return out


def turned_by_loops(x, *, angles, interleaved):
    """Rotary positions on `[L,d]`, pair by pair, with `angles [L,half]`."""
    out, half = x.copy(), angles.shape[1]
    for place in range(len(x)):
        for pair in range(half):
            a, b = (2 * pair, 2 * pair + 1) if interleaved else (pair, pair + half)
            cos, sin = np.cos(angles[place, pair]), np.sin(angles[place, pair])
            out[place, a] = x[place, a] * cos - x[place, b] * sin
            out[place, b] = x[place, b] * cos + x[place, a] * sin
    return out


def heads_by_loops(x, attention, *, context=None):
    """Queries [K,L,d] of `x`, keys and values [G,M,d] of `x` or the context, normalised."""
    options = attention.options
    heads, groups, size = options.heads, options.groups, options.head_size
    if attention.fused:  # the columns of a group lie together: its queries, its key, its value
        each = heads // groups + 2
        columns = dense(x, attention.qkv).reshape(len(x), groups, each, size)
        q = columns[:, :, :-2].reshape(len(x), heads, size)
        k, v = columns[:, :, -2], columns[:, :, -1]
    else:
        seen = x if context is None else context
        q = dense(x, attention.query).reshape(len(x), heads, size)
        k, v = (dense(seen, layer).reshape(len(seen), groups, size) for layer in (attention.key, attention.value))
    if options.qk_norm == "head":
        q, k = norm(q, attention.query_norm), norm(k, attention.key_norm)
    elif options.qk_norm == "width":
        q, k = (
            norm(side.reshape(len(side), -1), layer).reshape(side.shape)
            for side, layer in ((q, attention.query_norm), (k, attention.key_norm))
        )
    return q.swapaxes(0, 1), k.swapaxes(0, 1), v.swapaxes(0, 1)


def attention_by_loops(x, attention, *, seen=None, bias=None, angles=None, context=None):
    """Attention on `[L,D]`: `seen [L,M]` or `[K,L,M]`, `bias [K,L,M]`, `angles [L,half]`, `context [M,C]`."""
    options = attention.options
    q, k, v = heads_by_loops(x, attention, context=context)
    if angles is not None:
        interleaved = options.rotary == "interleaved"
        q, k = (np.stack([turned_by_loops(h, angles=angles, interleaved=interleaved) for h in s]) for s in (q, k))
    out = []
    for head in range(options.heads):
        own = None if seen is None else np.broadcast_to(seen, (options.heads, *np.shape(seen)[-2:]))[head]
        group = head // (options.heads // options.groups)
        added = None if bias is None else bias[head]
        kind = {"scale": options.attention_scale, "cap": options.logit_cap}
        out.append(attend_by_loops(q[head], k[group], v[group], seen=own, bias=added, **kind))
    y = np.concatenate(out, axis=1)
    return dense(y if attention.norm is None else norm(y, attention.norm), attention.out)


def mlp_by_loops(x, mlp):
    name, up = mlp.options.activation, dense(x, mlp.up)
    hidden = ACTIVATIONS[GATES[name]](dense(x, mlp.gate)) * up if name in GATES else ACTIVATIONS[name](up)
    return dense(hidden if mlp.mlp_norm is None else norm(hidden, mlp.mlp_norm), mlp.down)


def block_by_loops(x, block, *, seen=None, bias=None, angles=None, context=None, context_seen=None):
    """One block on `[L,D]`, float64, head by head and query by query."""
    if block.options.causal:
        causal = np.tri(len(x), dtype=bool)
        seen = causal if seen is None else causal & seen

    def join(x, branch, layer, scale):
        y = branch(norm(x, layer) if block.options.norm_position == "pre" else x)
        y = y if scale is None else y * f64(scale)
        return x + y if block.options.norm_position == "pre" else norm(x + y, layer)

    own = {"seen": seen, "bias": bias, "angles": angles}
    x = join(x, lambda x: attention_by_loops(x, block.attention, **own), block.norm1, block.scale1)
    if block.cross is not None:
        other = {"seen": context_seen, "context": context}
        x = join(x, lambda x: attention_by_loops(x, block.cross, **other), block.norm_cross, block.scale_cross)
    return join(x, lambda x: mlp_by_loops(x, block), block.norm2, block.scale2)


def blocks_by_loops(x, blocks, **given):
    """A stack on `[L,D]`, layer by layer, with its final norm."""
    for number in range(blocks.depth):
        x = block_by_loops(x, layer_of(blocks, number), **given)
    return x if blocks.norm is None else norm(x, blocks.norm)


def layer_of(blocks, number):
    """One block of a stack, as a module of its own, with parameters in NumPy: they are sliced 20 times faster."""
    graph, params = nnx.split(blocks.layers)
    return nnx.merge(graph, jax.tree.map(lambda p: np.asarray(p)[number], params))


def small_options(**changes):
    """Options of small blocks, of a width that is no square and heads that do not divide alike."""
    return BlockOptions(**({"width": 12, "heads": 4, "mlp_ratio": 2.0, "tower": "video"} | changes))
