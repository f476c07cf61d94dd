"""Merge low-rank updates into the matrices that they update: the same model with plain weights."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..models.adapters import KINDS
from .language_models import CAPTIONING, PLACE, is_language_model
from .load import Located
from .spec import ADAPTERS, ModelSpec

_UPDATE = ("a", "b", "magnitude")


def is_merged(spec: ModelSpec) -> bool:
    """Tell whether a model has no updates that could be merged."""
    return not any(KINDS[name].merges for _, tower in _adapted(spec) for name in tower.get(ADAPTERS, {}))


def merged_spec(spec: ModelSpec) -> ModelSpec:
    """Return the spec of the model with its updates merged; adapters and prompts stay."""
    found = spec.replace(towers={side: _without(tower, field=ADAPTERS) for side, tower in spec.towers.items()})
    head = spec.joint_heads.get(CAPTIONING)
    if head is None or not is_language_model(head):
        return found
    head = _without(head, field="adapt") | {"decoder": _without(head["decoder"], field=ADAPTERS)}
    return found.replace(heads={**spec.heads, CAPTIONING: head})


def _without(given: Mapping[str, Any], *, field: str) -> dict[str, Any]:
    """Return arguments of a tower or a head without the updates in one of its fields that can be merged."""
    kept = {name: options for name, options in (given.get(field) or {}).items() if not KINDS[name].merges}
    return {key: value for key, value in given.items() if key != field} | ({field: kept} if kept else {})


def _adapted(spec: ModelSpec) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield where the parameters of each tower (a captioning language model among them) lie, and its arguments."""
    yield from spec.towers.items()
    head = spec.joint_heads.get(CAPTIONING)
    if head is not None and is_language_model(head):
        yield PLACE, head["decoder"]


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
    for place, tower in _adapted(spec):
        for name, given in tower.get(ADAPTERS, {}).items():
            for path in given["layers"] if KINDS[name].merges else ():
                made = _merged_layer(made, path=f"{place}/{path}", scale=given["alpha"] / given["rank"])
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
