"""Embedding rows on the devices of a mesh: each device computes its share, every process gets all results."""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ...engine.sharding.mesh import BATCH_AXES, put_batch
from ...models.dual import of_steps

Rows = dict[str, np.ndarray]
"""Arrays with one entry per row along their first axis."""

_FUSED = ("video", "video_mask", "text", "text_mask", "audio", "audio_samples")  # the arrays that a fusion may take


@functools.partial(jax.jit, static_argnames=("graph", "side", "mesh", "tokens"))
def embed_on_devices(
    state: nnx.State,
    rows: dict[str, jax.Array],
    *,
    graph: nnx.GraphDef,
    side: str,
    mesh: Mesh,
    tokens: bool = False,
) -> dict[str, jax.Array]:
    """Embed the rows of a global batch; what is not input is handed through. Results are replicated.

    Args:
      state: the parameters of a dual tower, wherever they lie on the mesh.
      rows: of `put_batch`: `video` (of features `video_mask`, too); or `text` and `text_mask`; or `audio` and
        `audio_samples`; and anything else. Of a fused side those of its modalities, with `audio_mask` False where a row
        has no sound.
      graph: the dual tower's structure.
      side: which of its towers ("video", "text", "audio"), or the fused side ("video+audio").
      mesh: the devices.
      tokens: of the side "video", return the tower's time tokens, too.

    Returns:
      `embedding` float32 [B,E], rows of unit length; with `tokens` also `tokens` float32 [B,T,D] and `tokens_mask` bool
      [B,T]; and the arrays that are no input of the side.
    """
    model = nnx.merge(graph, state)
    rest = dict(rows)
    if "+" in side:
        inputs = {key: rest.pop(key) for key in _FUSED if key in rest}
        present = {"audio": rest.pop("audio_mask")} if "audio_mask" in rest else {}
        present |= {"video": jnp.any(inputs["video_mask"], axis=1)} if "video_mask" in inputs else {}
        embedding = model.encode_fused(inputs, present=present).embedding
    elif side == "video" and tokens:
        inputs = {key: rest.pop(key) for key in ("video", "video_mask") if key in rest}
        embedding, made = model.encode_with_tokens("video", inputs=inputs)
        rest["tokens"] = made.astype(jnp.float32)
        given = inputs.get("video_mask")
        rest["tokens_mask"] = jnp.ones(made.shape[:2], bool) if given is None else of_steps(given, steps=made.shape[1])
    elif side == "video":
        embedding = model.encode_video(rest.pop("video"), mask=rest.pop("video_mask", None))
    elif side == "text":
        embedding = model.encode_text(rest.pop("text"), mask=rest.pop("text_mask"))
    else:
        embedding = model.encode_audio(rest.pop("audio"), lengths=rest.pop("audio_samples", None))
    everywhere = NamedSharding(mesh, PartitionSpec())
    return jax.lax.with_sharding_constraint({"embedding": embedding, **rest}, everywhere)


def ways(mesh: Mesh) -> int:
    """Return over how many devices the rows of a batch are split."""
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def rounded_up(batch_size: int, *, mesh: Mesh) -> int:
    """Return the smallest batch size, at least `batch_size`, that the devices share evenly."""
    return -(-batch_size // ways(mesh)) * ways(mesh)


def embed_rows(
    graph: nnx.GraphDef, state: nnx.State, rows: Rows, *, side: str, mesh: Mesh, tokens: bool = False
) -> dict[str, np.ndarray]:
    """Embed a global batch of which this process gives its rows; all processes must call it.

    Args:
      graph: the dual tower's structure.
      state: its parameters.
      rows: this process's rows, equally many on each process; see `embed_on_devices`.
      side: which tower, or the fused side.
      mesh: the devices.
      tokens: as `embed_on_devices`.

    Returns:
      As `embed_on_devices`, of all rows, on every process.
    """
    placed = put_batch(rows, mesh=mesh)
    found = embed_on_devices(state, placed, graph=graph, side=side, mesh=mesh, tokens=tokens)
    return {key: np.asarray(value.addressable_data(0)) for key, value in found.items()}


def shares(total: int, *, batch_size: int) -> Iterator[tuple[slice, slice]]:
    """Yield for each global batch the slice of `total` rows that it covers, and the slice that this process gives.

    The second may reach beyond the first where the last batch is not full: those rows are padding.
    """
    local = batch_size // jax.process_count()
    for begin in range(0, total, batch_size):
        own = begin + jax.process_index() * local
        yield slice(begin, min(begin + batch_size, total)), slice(own, own + local)


def padded(rows: np.ndarray, *, size: int) -> np.ndarray:
    """Repeat the last row, or zeros where there is none, up to `size` rows, so that every batch has one shape."""
    missing = size - len(rows)
    if missing <= 0:
        return rows
    filler = rows[-1:] if len(rows) else np.zeros((1, *rows.shape[1:]), rows.dtype)
    return np.concatenate([rows, np.repeat(filler, missing, axis=0)])


def mesh_of(model: nnx.Module) -> Mesh | None:
    """Return the mesh on which a model's parameters lie; None if they lie on no mesh."""
    for value in jax.tree.leaves(nnx.state(model)):
        if isinstance(getattr(value, "sharding", None), NamedSharding):
            return value.sharding.mesh
    return None


def placed_on(mesh: Mesh, state: nnx.State) -> nnx.State:
    """Return the state with each array on all devices of the mesh, unless it lies on that mesh already."""

    def place(value: jax.Array) -> jax.Array:
        sharding = getattr(value, "sharding", None)
        if isinstance(sharding, NamedSharding) and sharding.mesh == mesh:
            return value
        return _everywhere(np.asarray(value), mesh=mesh)

    return jax.tree.map(place, state)


def apply_to_rows(
    graph: nnx.GraphDef,
    state: nnx.State,
    rows: Rows,
    *,
    function: Callable[[Any, dict[str, jax.Array]], dict[str, jax.Array]],
    mesh: Mesh,
    shared: Rows | None = None,
) -> Rows:
    """Call a function of a model and the rows of a global batch; each device computes its share.

    Args:
      graph: the model's structure.
      state: its parameters, wherever they lie on the mesh.
      rows: this process's rows, equally many on each process; all processes must call.
      function: (model, rows) -> arrays with one entry per row; a function of a module, for which it compiles once.
      mesh: the devices.
      shared: further arrays for `function`, which each device gets as a whole; the same on all processes.

    Returns:
      What `function` returns, of all rows, on every process.
    """
    placed = put_batch(rows, mesh=mesh) | {key: _everywhere(value, mesh=mesh) for key, value in (shared or {}).items()}
    found = _apply(state, placed, graph=graph, function=function, mesh=mesh)
    return {key: np.asarray(value.addressable_data(0)) for key, value in found.items()}


@functools.partial(jax.jit, static_argnames=("graph", "function", "mesh"))
def _apply(
    state: nnx.State, rows: dict[str, jax.Array], *, graph: nnx.GraphDef, function: Callable[..., Any], mesh: Mesh
) -> dict[str, jax.Array]:
    found = function(nnx.merge(graph, state), rows)
    return jax.lax.with_sharding_constraint(found, NamedSharding(mesh, PartitionSpec()))


def _everywhere(host: np.ndarray, *, mesh: Mesh) -> jax.Array:
    """Place an array that every process holds on each device as a whole."""
    return jax.make_array_from_callback(host.shape, NamedSharding(mesh, PartitionSpec()), lambda index: host[index])
