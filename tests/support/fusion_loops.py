"""The fusions as NumPy loops in float64: row by row, over the modalities and the tokens that the row has.

`rows[side]` of a function is what one row has of a modality: its vector `[D_m]`, or its real tokens `[N,D_m]`. A
modality that the row lacks is not in `rows`, so no mask occurs here.
"""

import numpy as np
from tower_loops import attention_by_loops, block_by_loops, blocks_by_loops, dense, f64, gelu, layer_of, mlp_by_loops
from tower_loops import norm as normed


def projected(fusion, rows):
    return {side: dense(x, fusion.inputs[side]) for side, x in rows.items()}


def softmax(x):
    weights = np.exp(x - x.max())
    return weights / weights.sum()


def mean(values):
    return np.mean(list(values), axis=0)


def late(fusion, rows):
    weights = np.ones(len(rows)) / len(rows)
    if fusion.logits is not None:
        weights = softmax(np.array([f64(fusion.logits)[fusion.modalities.index(side)] for side in rows]))
    return sum(w * x / np.linalg.norm(x) for w, x in zip(weights, rows.values(), strict=True))


def concat(fusion, rows):
    kernel, width, total = f64(fusion.up.kernel), fusion.width, f64(fusion.up.bias).copy()
    for side, q in projected(fusion, rows).items():
        place = fusion.modalities.index(side) * width
        total += len(fusion.modalities) / len(rows) * (q @ kernel[place : place + width])
    return dense(gelu(total), fusion.down)


def add(fusion, rows):
    return len(fusion.modalities) * mean(projected(fusion, rows).values())


def attention(fusion, rows):
    q = list(projected(fusion, rows).values())
    alpha = softmax(np.array([x @ f64(fusion.query) / np.sqrt(fusion.width) for x in q]))
    return sum(a * x for a, x in zip(alpha, q, strict=True))


def graph(fusion, rows):
    nodes = list(projected(fusion, rows).values())
    for layer in fusion.graph:
        h, size = [dense(x, layer.weight) for x in nodes], fusion.width // layer.heads
        nodes = [np.zeros(fusion.width) for _ in h]
        for head in range(layer.heads):
            part = slice(head * size, (head + 1) * size)
            own, other = f64(layer.attention)[:, head]
            for i, at in enumerate(h):
                scores = np.array([own @ at[part] + other @ x[part] for x in h])
                alpha = softmax(np.where(scores > 0, scores, 0.2 * scores))
                nodes[i][part] = sum(a * x[part] for a, x in zip(alpha, h, strict=True))
        nodes = [np.where(x > 0, x, np.expm1(x)) for x in nodes]
    return mean(nodes)


def addressed(memory, x, layers):
    key, sharpness = dense(x, layers["key"]), np.log1p(np.exp(dense(x, layers["sharpness"])))
    return softmax(sharpness * np.array([slot @ key / np.linalg.norm(slot) / np.linalg.norm(key) for slot in memory]))


def memory(fusion, rows):
    slots, q = f64(fusion.memory).copy(), projected(fusion, rows)
    for x in q.values():
        w, erase = addressed(slots, x, fusion.write), 1 / (1 + np.exp(-dense(x, fusion.erase)))
        for i in range(len(slots)):
            slots[i] = slots[i] * (1 - w[i] * erase) + w[i] * dense(x, fusion.add)
    u = mean(q.values())
    for _ in range(fusion.hops):
        u = u + sum(w * slot for w, slot in zip(addressed(slots, u, fusion.read), slots, strict=True))
    return u


def experts(fusion, rows):
    """Mean and log variance of each expert."""
    for side, q in projected(fusion, rows).items():
        yield dense(q, fusion.mean[side]), 8 * np.tanh(dense(q, fusion.log_variance[side]) / 8)


def poe(fusion, rows):
    precision, total = np.ones(fusion.width), np.zeros(fusion.width)
    for mu, log_variance in experts(fusion, rows):
        precision, total = precision + np.exp(-log_variance), total + mu * np.exp(-log_variance)
    return total / precision


def early(fusion, rows):
    kinds = {side: f64(fusion.kinds)[fusion.modalities.index(side)] for side in rows}
    x = np.concatenate([x + kinds[side] for side, x in projected(fusion, rows).items()])
    return blocks_by_loops(x, fusion.blocks).mean(0)


def pooled(streams, norms=None):
    return mean((x if norms is None else normed(x, norms[side])).mean(0) for side, x in streams.items())


def bottleneck(fusion, rows):
    streams, shared = projected(fusion, rows), f64(fusion.shared)
    for number in range(fusion.depth):
        blocks, copies = layer_of(fusion, number).blocks, []
        for side, x in streams.items():
            y = block_by_loops(np.concatenate([x, shared]), blocks[side])
            streams[side] = y[: len(x)]
            copies.append(y[len(x) :])
        shared = mean(copies)
    return pooled(streams, fusion.norms)


def attended(x, block, context):
    return attention_by_loops(normed(x, block.norm1), block.attention, context=normed(context, block.norm_context))


def cross_block(x, block, context):
    """`context` is None where there is none."""
    gates = np.ones(2) if block.gates is None else np.tanh(f64(block.gates))
    if context is not None:
        x = x + gates[0] * attended(x, block, context)
    return x + gates[1] * mlp_by_loops(normed(x, block.norm2), block)


def others(streams, side):
    rest = [x for other, x in streams.items() if other != side]
    return np.concatenate(rest) if rest else None


def cross(fusion, rows):
    streams, made = projected(fusion, rows), {}
    for side, x in streams.items():
        found = []
        for source, context in streams.items():
            if source != side:
                stack, y = fusion.pairs[f"{source}_to_{side}"], x
                for number in range(fusion.depth):
                    y = cross_block(y, layer_of(stack, number), context)
                found.append(y)
        made[side] = blocks_by_loops(mean(found) if found else x, fusion.own[side])
    return pooled(made)


def mutual(fusion, rows):
    streams = projected(fusion, rows)
    for number in range(fusion.depth):
        layer = layer_of(fusion, number)
        streams = {
            side: block_by_loops(cross_block(x, layer.cross[side], others(streams, side)), layer.own[side])
            for side, x in streams.items()
        }
    return pooled(streams, fusion.norms)


def mixed(fusion, rows):
    streams = projected(fusion, rows)
    for number in range(fusion.depth):
        layer, made = layer_of(fusion, number), {}
        for side, x in streams.items():
            block, context = layer.inter[side], others(streams, side)
            branch = attention_by_loops(normed(x, block.norm1), layer.intra[side])
            if context is not None:
                gate = 1 / (1 + np.exp(-dense(context.mean(0), layer.gate[side])))
                branch = (1 - gate) * branch + gate * attended(x, block, context)
            x = x + branch
            made[side] = x + mlp_by_loops(normed(x, block.norm2), block)
        streams = made
    return pooled(streams, fusion.norms)


def hierarchical(fusion, rows):
    streams, shared = projected(fusion, rows), np.zeros(fusion.width)
    for number in range(fusion.depth):
        layer = layer_of(fusion, number)
        streams = {side: block_by_loops(x, layer.blocks[side]) for side, x in streams.items()}
        given = [dense(normed(x.mean(0), layer.norms[side]), layer.into[side]) for side, x in streams.items()]
        shared = shared + mean(given)
        shared = shared + mlp_by_loops(normed(shared, layer.norm), layer.mlp)
    return normed(shared, fusion.norm)


def gated(fusion, rows):
    streams, main = projected(fusion, rows), fusion.modalities[0]
    kinds = {side: f64(fusion.kinds)[fusion.modalities.index(side)] for side in rows}
    context, latents = others({side: x + kinds[side] for side, x in streams.items()}, main), None
    if context is not None:
        latents = f64(fusion.resampler.latents)
        for number in range(fusion.depth):
            latents = cross_block(latents, layer_of(fusion.resampler, number), np.concatenate([context, latents]))
        latents = normed(latents, fusion.resampler.norm)
    if main not in streams:
        return latents.mean(0)
    x = streams[main]
    for number in range(fusion.depth):
        x = cross_block(x, layer_of(fusion, number), latents)
    return x.mean(0)
