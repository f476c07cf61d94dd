"""Merge low-rank updates into the matrices that they update: the same model with plain weights."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from ..models.adapters import KINDS
from .load import Located
from .spec import ADAPTERS, ModelSpec

_UPDATE = ("a", "b", "magnitude")


def is_merged(spec: ModelSpec) -> bool:
    """Tell whether a model has no updates that could be merged."""
    return not any(KINDS[name].merges for tower in spec.towers.values() for name in tower.get(ADAPTERS, {}))


def merged_spec(spec: ModelSpec) -> ModelSpec:
    """Return the spec of the model with its updates merged; adapters and prompts stay."""
    towers = {}
    for side, tower in spec.towers.items():
        kept = {name: given for name, given in tower.get(ADAPTERS, {}).items() if not KINDS[name].merges}
        towers[side] = {key: value for key, value in tower.items() if key != ADAPTERS} | (
            {ADAPTERS: kept} if kept else {}
        )
    return spec.replace(towers=towers)


def merged_params(spec: ModelSpec, *, params: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the parameters of the model of `merged_spec(spec)`.

    Args:
      spec: of the model with its updates.
      params: "/"-joined path -> array.

    Returns:
      Of an updated layer W + s A B, of DoRA with its columns of the learned norms; computed in float64, in the dtype of
      the kernel.
    """
    made = dict(params)
    for side, tower in spec.towers.items():
        for name, given in tower.get(ADAPTERS, {}).items():
            for path in given["layers"] if KINDS[name].merges else ():
                made = _merged_layer(made, path=f"{side}/{path}", scale=given["alpha"] / given["rank"])
    return made


def _merged_layer(params: dict[str, np.ndarray], *, path: str, scale: float) -> dict[str, np.ndarray]:
    update = {key: params.pop(f"{path}/lora/{key}", None) for key in _UPDATE}
    kernel = params[f"{path}/kernel"]
    a, b = (np.asarray(update[key], np.float64) for key in ("a", "b"))
    weight = np.asarray(kernel, np.float64) + scale * (a @ b)
    if update["magnitude"] is not None:
        norms = np.sqrt(np.sum(np.square(weight), axis=-2, keepdims=True))
        weight = weight * (np.asarray(update["magnitude"], np.float64)[..., None, :] / norms)
    return params | {f"{path}/kernel": weight.astype(kernel.dtype)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Merged(Located):
    """A model with updates as the model with them merged; the parameters are read when they are asked for."""

    of: Located

    def params(self) -> dict[str, np.ndarray]:
        return merged_params(self.of.spec, params=self.of.params())


def merged(located: Located) -> Located:
    """Return a model with its updates merged: another spec, other parameters, the same embeddings.

    A model without updates is returned as it is.
    """
    if is_merged(located.spec):
        return located
    spec = merged_spec(located.spec)
    return _Merged(spec=spec, path=located.path, meta=located.meta, public=located.public, of=located)
