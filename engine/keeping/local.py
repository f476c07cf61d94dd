"""Checkpoints on the local disk of each of several processes: all shards that its devices hold, replicated ones too.

They serve a restart on the same machines with the same mesh, and nothing else: no other process sees them.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..remote.parcels import TEMPORARY
from .checkpoint import UnreadableError, short_reason, steps_in

KEPT = 2
"""The newest may be missing on another process that was killed while it wrote it; then the one before it counts."""
_ARRAYS, _META = "shards.safetensors", "meta.json"


def write_local(folder: Path, *, step: int, state: Any, meta: dict[str, Any]) -> None:
    """Write the addressable shards of a state; the checkpoint appears whole or not at all, and old ones go.

    Args:
      folder: of these checkpoints.
      step: of the state.
      state: a tree of global arrays.
      meta: JSON values.
    """
    part = folder / f"{step}.{TEMPORARY}"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    shards = {}
    for path, leaf in _leaves(state):
        for shard in leaf.addressable_shards:
            shards[f"{path}|{_where(shard.index, leaf.shape)}"] = np.asarray(shard.data, order="C")
    save_file(shards, part / _ARRAYS)
    (part / _META).write_text(json.dumps(meta))
    for name in (_ARRAYS, _META):
        with (part / name).open("rb") as file:
            os.fsync(file.fileno())
    shutil.rmtree(folder / str(step), ignore_errors=True)
    part.rename(folder / str(step))
    for old in steps_in(folder)[:-KEPT]:
        shutil.rmtree(folder / str(old), ignore_errors=True)


def read_local(folder: Path, *, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
    """Return (state, meta) of a checkpoint that this process wrote.

    Args:
      folder: of these checkpoints.
      step: of the state.
      like: ShapeDtypeStructs with shardings, of which this process's devices must hold what they held when it was
        written.

    Raises:
      UnreadableError: it is damaged, or was written on another mesh.
    """
    path = folder / str(step)
    try:
        with safe_open(path / _ARRAYS, framework="np") as file:
            arrays = [_array(file, name=name, like=leaf) for name, leaf in _leaves(like)]
        meta = json.loads((path / _META).read_text())
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise UnreadableError(f"checkpoint {path} on the local disk is not usable: {short_reason(error)}") from error
    return jax.tree.unflatten(jax.tree.structure(like), arrays), meta


def _array(file: Any, *, name: str, like: Any) -> jax.Array:
    def shard(index: Any) -> np.ndarray:
        found = file.get_tensor(f"{name}|{_where(index, like.shape)}")
        if found.dtype != like.dtype:
            raise ValueError(f"{name} has dtype {found.dtype}, wanted {like.dtype}")
        return found

    return jax.make_array_from_callback(like.shape, like.sharding, shard)


def _leaves(tree: Any) -> list[tuple[str, Any]]:
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def _where(index: tuple[slice, ...], shape: tuple[int, ...]) -> str:
    """Name the part of an array of `shape` that slices mean, with the whole shape.

    >>> _where((slice(None), slice(2, 4)), (3, 8))
    '0:3 2:4 of 3x8'
    """
    bounds = [f"{s.indices(n)[0]}:{s.indices(n)[1]}" for s, n in zip(index, shape, strict=True)]
    return f"{' '.join(bounds)} of {'x'.join(map(str, shape))}"
