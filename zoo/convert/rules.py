"""Tables between a public model's tensors and our parameters, read in both directions (import and export).

A table is a list of `Rule`s. Nothing is guessed: a tensor that no rule names, a tensor that a rule names and the file
lacks, and a parameter of another shape than the model's are errors.
"""

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from einops import EinopsError

from ...base.errors import UserError
from .transforms import SAME, Transform, stacked

_LISTED = 12
"""So many names stand in an error."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """Parameters of ours and the tensors that they are made of.

    Attributes:
      sources: names of tensors; () for a parameter that no file holds. "#" stands for the number of a layer: the
        parameters of all layers, counted from 0, are stacked along a new first axis, as `models.layers.blocks.Blocks`
        holds them.
      paths: "/"-joined paths of our parameters.
      transform: tensors -> parameters, and back.
    """

    sources: tuple[str, ...]
    paths: tuple[str, ...]
    transform: Transform = SAME


def rule(sources: str | Sequence[str], paths: str | Sequence[str], transform: Transform = SAME) -> Rule:
    """Return a rule; a single source or path may be given as a string."""
    return Rule(_several(sources), _several(paths), transform)


def prefixed(rules: Sequence[Rule], *, source: str = "", path: str = "") -> list[Rule]:
    """Return the rules with a prefix before all names of tensors and before all paths."""
    return [
        Rule(tuple(source + name for name in one.sources), tuple(path + name for name in one.paths), one.transform)
        for one in rules
    ]


def to_params(
    tensors: Mapping[str, np.ndarray],
    *,
    rules: Sequence[Rule],
    ignored: Sequence[str] = (),
    name: str,
    order: Iterable[Rule] | None = None,
) -> dict[str, np.ndarray]:
    """Make our parameters from a public model's tensors.

    Args:
      tensors: by name; may read them when they are asked for.
      rules: the table; each tensor must be named by one of them.
      ignored: regexes over whole names of tensors that hold no parameters (buffers).
      name: what to call the source in errors.
      order: the rules once more, from which they are taken one by one (a progress bar); None = `rules`.

    Returns:
      "/"-joined path -> array.

    Raises:
      UserError: missing or unexpected tensors, or one whose shape its transform cannot take.
    """
    depths = _depths(tensors, rules=rules)
    _check_names(tensors, rules=rules, depths=depths, ignored=ignored, name=name)
    made: dict[str, np.ndarray] = {}
    for one in rules if order is None else order:
        layers = [_forward(one, tensors=tensors, layer=layer, name=name) for layer in _layers(one, depths=depths)]
        values = stacked(layers) if _stacked(one) else layers[0]
        made |= zip(one.paths, values if isinstance(values, tuple) else (values,), strict=True)
    return made


def to_tensors(params: Mapping[str, np.ndarray], *, rules: Sequence[Rule]) -> dict[str, np.ndarray]:
    """Make a public model's tensors from our parameters, the way back of `to_params`.

    Args:
      params: "/"-joined path -> array; paths that no rule names are left out.
      rules: the table.

    Raises:
      UserError: a parameter that the table names and the model lacks.
    """
    made: dict[str, np.ndarray] = {}
    for one in rules:
        for path in one.paths:
            if path not in params:
                raise UserError(f"the model has no parameter {path!r}, which this format holds; export it as a bundle")
        values = [np.asarray(params[path]) for path in one.paths]
        for layer, parts in enumerate(zip(*values, strict=True)) if _stacked(one) else [(None, values)]:
            for source, tensor in zip(one.sources, one.transform.backward(*parts), strict=True):
                made[_numbered(source, layer)] = np.asarray(tensor, order="C")  # keeps scalars scalar
    return made


def check_shapes(params: Mapping[str, np.ndarray], *, target: Mapping[str, Any], name: str) -> None:
    """Check that parameters are exactly those of a model.

    Args:
      params: path -> array.
      target: path -> anything with a shape, of the model that the source's config describes.
      name: what to call the source in errors.

    Raises:
      UserError: a parameter that is missing, unexpected or of another shape.
    """
    wrong = [
        f"{path}: the weights have {tuple(params[path].shape)}, the config describes {tuple(target[path].shape)}"
        for path in target
        if path in params and tuple(params[path].shape) != tuple(target[path].shape)
    ]
    wrong += [f"{path}: not in the weights" for path in target if path not in params]
    wrong += [f"{path}: not in the model that the config describes" for path in params if path not in target]
    if wrong:
        raise UserError(
            f"the weights of {name} contradict its config:\n  {_listed(wrong, separator=chr(10) + '  ')}\n"
            "The two files belong to different models, or one is damaged; fetch both again"
        )


def _several(names: str | Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _stacked(one: Rule) -> bool:
    return any("#" in source for source in one.sources)


def _numbered(source: str, layer: int | None) -> str:
    return source if layer is None else source.replace("#", str(layer))


def _layers(one: Rule, *, depths: Mapping[str, int]) -> Iterator[int | None]:
    return iter(range(depths[_stack(one.sources[0])])) if _stacked(one) else iter([None])


def _stack(source: str) -> str:
    """The beginning of a name up to the number of the layer: all its rules share the depth."""
    return source.partition("#")[0]


def _depths(tensors: Mapping[str, np.ndarray], *, rules: Sequence[Rule]) -> dict[str, int]:
    """How many layers each stack has: one more than the largest number found."""
    depths = {_stack(source): 0 for one in rules for source in one.sources if "#" in source}
    for stack in depths:
        numbers = [re.match(r"\d+", name[len(stack) :]) for name in tensors if name.startswith(stack)]
        depths[stack] = 1 + max([int(found[0]) for found in numbers if found], default=-1)
    return depths


def _check_names(
    tensors: Mapping[str, np.ndarray],
    *,
    rules: Sequence[Rule],
    depths: Mapping[str, int],
    ignored: Sequence[str],
    name: str,
) -> None:
    wanted = {
        _numbered(source, layer) for one in rules for layer in _layers(one, depths=depths) for source in one.sources
    }
    missing = sorted(wanted - tensors.keys())
    unexpected = sorted(
        tensor for tensor in tensors if tensor not in wanted and not any(re.fullmatch(r, tensor) for r in ignored)
    )
    if missing or unexpected:
        found = [f"lacks {_listed(missing)}"] if missing else []
        found += [f"has {_listed(unexpected)}, which no model of this family has"] if unexpected else []
        raise UserError(
            f"{name} {' and '.join(found)}. It is of another family or another version of it (`twinreel convert "
            "--list` shows what can be read), or the file is incomplete"
        )


def _forward(
    one: Rule, *, tensors: Mapping[str, np.ndarray], layer: int | None, name: str
) -> np.ndarray | tuple[np.ndarray, ...]:
    names = [_numbered(source, layer) for source in one.sources]
    values = [np.asarray(tensors[source]) for source in names]
    try:
        return one.transform.forward(*values)
    except (ValueError, IndexError, EinopsError) as error:
        found = ", ".join(f"{source} {value.shape}" for source, value in zip(names, values, strict=True))
        why = str(error).strip().splitlines()[-1].strip()
        raise UserError(
            f"{name}: {found} does not have the shape that the config describes ({why}); the files belong to different "
            "models, or one is damaged"
        ) from error


def _listed(names: Sequence[str], *, separator: str = ", ") -> str:
    more = f"{separator}... ({len(names):,} in all)" if len(names) > _LISTED else ""
    return separator.join(names[:_LISTED]) + more
