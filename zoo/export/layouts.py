"""What a public format makes of a model: its config files and its table of tensors, checked against the importer."""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...base.errors import UserError
from ..convert.convert import FAMILIES
from ..convert.files import SourceFiles
from ..convert.rules import Rule
from ..spec import ModelSpec
from .compare import refuse_added, refuse_heads
from .form import Difference, differences, image_family

HF_WEIGHTS = "model.safetensors"
_REFUSED = 1000
_NOWHERE = Path("a folder that is not written yet")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """A model in a public format.

    Attributes:
      title: of the format, as in "CLIP of transformers".
      family: name in `zoo.convert`, whose importer reads the folder back.
      files: name of a JSON file -> its content.
      rules: the table of tensors, the one that the importer reads.
      weights: name of the file of tensors.
      extra: tensors that the public code wants and that hold none of our parameters.
      options: choices of the importer.
      usage: lines of Python that load the folder; `FOLDER` stands for it.
      notes: what the user should know.
      misfit: why the model does not fit, where the writer knows it; "" = the importer decides.
    """

    title: str
    family: str
    files: Mapping[str, Any]
    rules: Sequence[Rule]
    weights: str = HF_WEIGHTS
    extra: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    usage: str = ""
    notes: tuple[str, ...] = ()
    misfit: str = ""


Writer = Callable[[ModelSpec], Layout | None]
"""Gives the layout nearest to a model, whether it fits or not; None for a model of other modalities."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Draft(SourceFiles):
    """A folder that is not written yet: the importer reads its config, and the names of its tensors."""

    files: Mapping[str, Any]
    names: frozenset[str]

    def has(self, file: str) -> bool:
        return file in self.files

    def _loaded(self, file: str, *, kind: type, wanted: str) -> Any:
        return self.files.get(file, kind())

    @functools.cached_property
    def tensors(self) -> Any:
        return dict.fromkeys(self.names)

    def tokenizer(self) -> dict[str, Any]:
        return {}


def fitting(
    spec: ModelSpec, *, params: Mapping[str, Any], writers: Sequence[Writer], format: str
) -> tuple[Layout, list[Difference]]:
    """Return the layout that holds a model, and how it encodes frames of other sizes differently.

    Args:
      spec: the model, `form.canonical`.
      params: its parameters, or their shapes.
      writers: of the format.
      format: its name, for errors.

    Raises:
      UserError: no layout of the format holds it; names each field that does not fit the nearest one.
    """
    refuse_heads(spec)
    refuse_added(spec)
    tried = [(made, _misfits(spec, made, params=params)) for write in writers if (made := write(spec))]
    if not tried:
        families = {f"{side}.family": tower["family"] for side, tower in spec.towers.items()}
        if image_family(spec):
            families["video.image.family"] = image_family(spec)
        towers = " and ".join(f"config.model.{field}={family!r}" for field, family in families.items())
        raise UserError(
            f"format {format!r} has no model with {towers}; choose --format stablehlo, which holds any model"
        )
    layout, found = min(tried, key=lambda one: _distance(one[1]))
    wrong = [str(one) for one in found if not isinstance(one, Difference) or one.exact]
    if wrong:
        listed = "\n".join(f"  {line}" for line in wrong)
        raise UserError(
            f"format {format!r} cannot hold this model. The nearest is {layout.title}, in which\n{listed}\n"
            "Choose --format stablehlo, which holds any model"
        )
    return layout, [one for one in found if isinstance(one, Difference)]


def _distance(found: Sequence[Difference | str]) -> int:
    """Return the number of differences; a config that the importer refuses is further away than any other."""
    return sum(one.exact if isinstance(one, Difference) else _REFUSED for one in found)


def _misfits(spec: ModelSpec, layout: Layout, *, params: Mapping[str, Any]) -> list[Difference | str]:
    if layout.misfit:
        return [layout.misfit]
    names = frozenset(_names(layout.rules, params=params)) | layout.extra.keys()
    draft = _Draft(name=layout.title, folder=_NOWHERE, files=layout.files, names=names)
    family = FAMILIES[layout.family]
    try:
        public = family.conversion(draft, **family.choices(layout.options)).spec
    except UserError as error:
        return [str(error)]
    return list(differences(spec, public=public))


def _names(rules: Sequence[Rule], *, params: Mapping[str, Any]) -> list[str]:
    """Return the names of the tensors that the parameters give."""
    names = []
    for one in rules:
        if any(path not in params for path in one.paths):
            continue
        depth = params[one.paths[0]].shape[0] if any("#" in source for source in one.sources) else 1
        names += [re.sub("#", str(layer), source) for layer in range(depth) for source in one.sources]
    return names
