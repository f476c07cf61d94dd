"""The attentive probe: a learned query attends to the frozen tokens of a clip, and a linear layer follows."""

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from ...base.errors import UserError
from ...models.heads.classifier import AttentiveHead
from .probe_data import ProbeSet, Say, Scored

SOURCE = "attentional pooling of Yu et al. 2022 (CoCa, arXiv:2205.01917), the probe of Bardes et al. 2024 (V-JEPA)"
_HEAD_SIZE = 64
_NEVER = -1e9  # the logit of a class that never occurs in training
Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentiveOptions:
    """How an attentive probe is trained, with AdamW at a constant rate.

    Attributes:
      heads: of the attention; 0 = the most of at least 64 channels each that divide the width.
      learning_rate: of AdamW.
      weight_decay: of AdamW.
      batch_size: clips of a step.
      epochs: at most so many.
      patience: epochs without a lower validation loss after which training stops.
    """

    heads: int = 0
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    batch_size: int = 128
    epochs: int = 60
    patience: int = 10

    def __post_init__(self):
        for name in ("batch_size", "epochs", "patience"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} of the attentive probe is {getattr(self, name)}; wanted 1 or more")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise UserError(f"--learning_rate is {self.learning_rate}; wanted a number above 0")


def attentive_probe(
    train: ProbeSet,
    *,
    validation: ProbeSet | None,
    test: ProbeSet,
    several: bool,
    options: AttentiveOptions,
    seed: int,
    say: Say,
) -> Scored:
    """Train one cross-attention with a learned query on frozen tokens, and score the test clips.

    The form is CoCa's attentional pooling (Yu et al. 2022, section 3.2), as in the probes of V-JEPA (Bardes et al.
    2024, arXiv:2404.08471): LayerNorm of the tokens, multi-head attention of one query, LayerNorm, a linear layer that
    starts at zero. The epoch with the lowest validation loss counts. Equal arguments give equal scores on one machine.

    Args:
      train: tokens float [m,L,D].
      validation: decides when to stop; None = all epochs are trained and the last one counts.
      test: is scored.
      several: clips may have several classes: a sigmoid for each instead of a softmax.
      options: sizes and schedule.
      seed: of the initial values and of the order of the clips.
      say: called with a line of text for each epoch: its losses.

    Returns:
      The scores; `facts`: `epochs` (how many were trained), `best_epoch` (from 1), `losses`, a list of `train` and
      `validation` in nats, and `options`.
    """
    width, classes = train.features.shape[-1], train.targets.shape[1]
    heads = options.heads or heads_of(width)
    model = AttentiveHead(width=width, num_classes=classes, heads=heads, rngs=nnx.Rngs(seed))
    graph, params = nnx.split(model)
    optimizer = optax.adamw(options.learning_rate, weight_decay=options.weight_decay)
    state, best, losses = optimizer.init(params), params, []
    lowest, best_epoch = math.inf, 0
    step = functools.partial(_step, graph=graph, optimizer=optimizer, several=several)
    for epoch in range(1, options.epochs + 1):
        order = np.random.Generator(np.random.Philox(key=np.array((seed, epoch), np.uint64))).permutation(len(train))
        total = 0.0
        for batch in _batches(train, order=order, size=options.batch_size):
            params, state, loss = step(params, state, batch)
            total += float(loss) * float(batch["weight"].sum())
        losses.append({"train": total / len(train)})
        if validation is not None:
            losses[-1]["validation"] = _loss_of(validation, params=params, graph=graph, several=several)
        figure = losses[-1].get("validation", -float(epoch))
        say(f"epoch {epoch}: " + ", ".join(f"{name} loss {value:.4f}" for name, value in losses[-1].items()))
        if figure < lowest:
            lowest, best, best_epoch = figure, params, epoch
        elif epoch - best_epoch >= options.patience:
            break
    scores = _probabilities(test, params=best, graph=graph, seen=train.seen, several=several)
    used = dataclasses.asdict(options) | {"heads": heads}
    facts = {"epochs": len(losses), "best_epoch": best_epoch, "losses": losses, "options": used, "protocol": SOURCE}
    return Scored(scores=scores, facts=facts)


def heads_of(width: int) -> int:
    """Return the most heads of at least 64 channels each that divide a width.

    >>> [heads_of(width) for width in (32, 512, 768, 1000)]
    [1, 8, 12, 10]
    """
    return max(heads for heads in range(1, max(2, width // _HEAD_SIZE + 1)) if width % heads == 0)


def _batches(clips: ProbeSet, *, order: np.ndarray, size: int) -> Iterator[Batch]:
    """Yield batches of one shape; rows beyond the last clip repeat the first one and have weight 0."""
    size = min(size, len(order))
    for begin in range(0, len(order), size):
        rows = order[begin : begin + size]
        filled = np.concatenate([rows, np.repeat(order[:1], size - len(rows))])
        batch = {"tokens": clips.features[filled], "targets": clips.targets[filled]}
        batch["weight"] = (np.arange(size) < len(rows)).astype(np.float32)
        yield batch | ({} if clips.mask is None else {"mask": clips.mask[filled]})


def _logits(params: Any, batch: Any, *, graph: nnx.GraphDef) -> jax.Array:
    model = nnx.merge(graph, params)
    return model(batch["tokens"].astype(jnp.float32), mask=batch.get("mask"))


def _loss(params: Any, batch: Any, *, graph: nnx.GraphDef, several: bool) -> jax.Array:
    """Return the mean loss of the rows that count, in nats (of several classes: summed over them)."""
    logits, targets = _logits(params, batch, graph=graph), batch["targets"].astype(jnp.float32)
    if several:
        row = jnp.sum(optax.sigmoid_binary_cross_entropy(logits, targets), axis=1)
    else:
        row = optax.softmax_cross_entropy(logits, targets)
    return jnp.sum(row * batch["weight"]) / jnp.sum(batch["weight"])


@functools.partial(jax.jit, static_argnames=("graph", "optimizer", "several"))
def _step(params: Any, state: Any, batch: Any, *, graph: Any, optimizer: Any, several: bool) -> tuple[Any, Any, Any]:
    loss, gradient = jax.value_and_grad(_loss)(params, batch, graph=graph, several=several)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # optax promotes inside
        updates, state = optimizer.update(gradient, state, params)
    return optax.apply_updates(params, updates), state, loss


_jitted_loss = jax.jit(_loss, static_argnames=("graph", "several"))
_jitted_logits = jax.jit(_logits, static_argnames=("graph",))


def _loss_of(clips: ProbeSet, *, params: Any, graph: Any, several: bool) -> float:
    total = 0.0
    for batch in _batches(clips, order=np.arange(len(clips)), size=256):
        total += float(_jitted_loss(params, batch, graph=graph, several=several)) * float(batch["weight"].sum())
    return total / len(clips)


def _probabilities(clips: ProbeSet, *, params: Any, graph: Any, seen: np.ndarray, several: bool) -> np.ndarray:
    parts = [
        np.asarray(_jitted_logits(params, batch, graph=graph), np.float64)
        for batch in _batches(clips, order=np.arange(len(clips)), size=256)
    ]
    logits = np.where(seen, np.concatenate(parts)[: len(clips)], _NEVER)
    if several:
        return np.exp(-np.logaddexp(0.0, -logits))
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)
