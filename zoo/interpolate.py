"""Weights between those of two models: what lies on the line from a checkpoint to its fine-tuned form."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from ..base.errors import UserError
from .load import Located
from .merge import merged

SAME = ("towers", "fusion", "projections", "embed_dim", "heads", "input", "tokenizer")
"""Fields of a spec in which two models must agree for the weights between theirs to be a model of the same form."""


def interpolated(
    base: Mapping[str, np.ndarray], *, tuned: Mapping[str, np.ndarray], alpha: float
) -> dict[str, np.ndarray]:
    """Return (1 - alpha) * base + alpha * tuned, as WiSE-FT (Wortsman et al. 2022, arXiv:2109.01903).

    Args:
      base: "/"-joined path -> array.
      tuned: the same paths and shapes.
      alpha: 0 = `base`, 1 = `tuned`; values beyond extrapolate.

    Returns:
      Computed in float64, in the dtypes of `base`; arrays of integers as `tuned` has them.

    >>> interpolated({"w": np.float32([0, 2])}, tuned={"w": np.float32([4, 2])}, alpha=0.25)["w"].tolist()
    [1.0, 2.0]
    """
    made = {}
    for path, value in base.items():
        other = tuned[path]
        if not np.issubdtype(value.dtype, np.floating) and value.dtype.name != "bfloat16":
            made[path] = other
            continue
        mixed = (1 - alpha) * np.asarray(value, np.float64) + alpha * np.asarray(other, np.float64)
        made[path] = mixed.astype(value.dtype)
    return made


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """Two models of one form, and all that lie between them.

    Attributes:
      model: the fine-tuned model, with low-rank updates merged.
      base: parameters of the model that it began from, "/"-joined path -> array.
      tuned: its own parameters.
    """

    model: Located
    base: Mapping[str, np.ndarray]
    tuned: Mapping[str, np.ndarray]

    def at(self, alpha: float) -> Located:
        """Return the model with the weights at `alpha`; see `interpolated`. Its origin says between which it lies."""
        params = interpolated(self.base, tuned=self.tuned, alpha=alpha)
        origin = {**self.model.spec.origin, "interpolated": alpha}
        spec = self.model.spec.replace(origin=origin)
        return _Between(spec=spec, path=self.model.path, meta=self.model.meta, values=params)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Between(Located):
    """A model whose parameters are in memory."""

    values: Mapping[str, np.ndarray]

    def params(self) -> dict[str, np.ndarray]:
        return dict(self.values)


def line_between(base: Located, *, tuned: Located) -> Line:
    """Read two models.

    Low-rank updates (LoRA, DoRA) are merged first, so a model and its adapted form lie on a line as well.

    Raises:
      UserError: models of another form, other input, another tokenizer, or parameters of other shapes.
    """
    first, second = merged(base), merged(tuned)
    for field in SAME:
        one, other = (getattr(model.spec, field) for model in (first, second))
        if one != other:
            raise UserError(
                f"{base.path} and {tuned.path} differ in their {field}: {_brief(one)} and {_brief(other)}; weights can "
                "only be interpolated between a model and what was fine-tuned from it, with the same layers and input"
            )
    params = first.params(), second.params()
    paths = set(params[0]) ^ set(params[1]) or {
        path for path, value in params[0].items() if value.shape != params[1][path].shape
    }
    if paths:
        raise UserError(
            f"{base.path} and {tuned.path} differ in their parameters, among them {min(paths)}; weights can only be "
            "interpolated between a model and what was fine-tuned from it"
        )
    return Line(model=second, base=params[0], tuned=params[1])


def _brief(value: object) -> str:
    text = str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
