"""`config.adapt`: train few parameters of a pretrained model, most of which are added to its towers.

The parameters of the towers stay as they are, and have neither gradients nor a state of the optimizer.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from flax import nnx

from ..base.errors import UserError
from ..base.section import section
from ..models.adapters import KINDS, places
from .build import abstract
from .spec import ADAPTERS, ModelSpec

LAYERS = "layers"
"""Field of each kind in `config.adapt`: regex found in the paths that it changes, such as "^video/.*/attention/"."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaptOptions:
    """`config.adapt`: which parameters of the towers are trained; without any kind all is as usual.

    Each kind is a section; `{}` takes its defaults. `layers` in it is a regex that is found in "/"-joined paths with
    the name of the tower in front, `video/image/blocks/layers/attention/qkv`. Kinds may be combined.

    Attributes:
      lora: low-rank updates of dense layers (Hu et al. 2021): `layers` ("attention/"), `rank`, `alpha`, `dropout`, see
        `models.adapters.LoraOptions`.
      dora: the same with learned magnitudes (Liu et al. 2024).
      adapters: bottlenecks behind attention and MLP of each block (Houlsby et al. 2019): `layers`, `width`,
        `activation`, see `models.adapters.AdapterOptions`.
      prompts: learned tokens in each block, or before the first (Jia et al. 2022): `layers`, `count`, `deep`, see
        `models.adapters.PromptOptions`.
      bitfit: the biases of the towers (Zaken et al. 2022): `layers`, which is found in the paths of biases.
      trainable: regexes; parameters of the towers in whose path one is found are trained, too, such as norms.
    """

    lora: Mapping[str, Any] | None = None
    dora: Mapping[str, Any] | None = None
    adapters: Mapping[str, Any] | None = None
    prompts: Mapping[str, Any] | None = None
    bitfit: Mapping[str, Any] | None = None
    trainable: tuple[str, ...] = ()

    def __post_init__(self):
        if self.trainable and not self:
            raise UserError(
                "config.adapt.trainable adds to the parameters of a kind, but there is none; add one such as "
                "config.adapt.lora={}, or leave config.adapt out"
            )

    def __bool__(self) -> bool:
        return bool(self.added) or self.bitfit is not None

    @property
    def added(self) -> dict[str, Mapping[str, Any]]:
        """The kinds that add parameters, by their names."""
        given = {name: getattr(self, name) for name in KINDS}
        return {name: one for name, one in given.items() if one is not None}


NOTHING = AdaptOptions()
"""Nothing is adapted: all parameters are trained."""


def adapt_options(config: Mapping[str, Any]) -> AdaptOptions:
    """Read `config.adapt` of a config.

    Raises:
      UserError: a field that does not exist (the nearest is named).
    """
    return section(AdaptOptions, config.get("adapt") or {}, name="adapt")


def adapted(spec: ModelSpec, *, options: AdaptOptions) -> ModelSpec:
    """Return the spec of the model with the parameters that `options` add to its towers.

    Args:
      spec: of the model. What was added to it before stays; LoRA and DoRA should be merged first, see `zoo.merge`.
      options: `config.adapt`.

    Raises:
      UserError: a regex that matches nothing (the paths are listed), an unknown field, a value out of its range, or a
        kind that a tower has already.
    """
    if not options.added:
        return spec
    model = abstract(spec)
    towers = {side: dict(tower) for side, tower in spec.towers.items()}
    for name, given in options.added.items():
        chosen = _chosen(name, given=given, model=model, sides=list(towers))
        fields = {key: value for key, value in given.items() if key != LAYERS}
        for side, paths in chosen.items():
            made = section(KINDS[name].options, fields, name=f"adapt.{name}", layers=tuple(paths))
            before = towers[side].get(ADAPTERS, {})
            if name in before:
                raise UserError(
                    f"config.adapt.{name}: the {side} tower of the checkpoint has {name} already, which cannot become "
                    f"part of its weights; leave config.adapt.{name} out, and train those by config.adapt.trainable or "
                    "config.task.trainable"
                )
            towers[side][ADAPTERS] = {**before, name: dataclasses.asdict(made) | {"layers": list(paths)}}
    made = spec.replace(towers=towers)
    abstract(made)  # mistakes that show only where layers are changed
    return made


def _chosen(name: str, *, given: Mapping[str, Any], model: Any, sides: Sequence[str]) -> dict[str, list[str]]:
    """Return tower -> paths inside of it that a kind changes; towers without any are left out."""
    regex = regex_of(given.get(LAYERS, KINDS[name].everywhere), field=f"config.adapt.{name}.{LAYERS}")
    found = {side: places(getattr(model, side), kind=name) for side in sides}
    chosen = {side: [path for path in paths if regex.search(f"{side}/{path}")] for side, paths in found.items()}
    if not any(chosen.values()):
        listed = [f"{side}/{path}" for side, paths in found.items() for path in paths]
        raise UserError(
            f"config.adapt.{name}.{LAYERS}={regex.pattern!r} is found in no path of the {KINDS[name].places} of the "
            f"towers ({', '.join(sides)}). They are:\n  " + ("\n  ".join(listed) or "(none)")
        )
    return {side: paths for side, paths in chosen.items() if paths}


def trained_by(options: AdaptOptions, *, spec: ModelSpec) -> tuple[str, ...]:
    """Return regexes of the parameters of towers that are trained, for `Objective.trainable`.

    Args:
      options: `config.adapt`.
      spec: of the model, with what they add.

    Raises:
      UserError: a regex of `bitfit` or `trainable` that is found in no path; it lists the paths.
    """
    names = {"adapters": "adapters/", "prompts": "prompts$", "lora": "lora/", "dora": "lora/"}
    found = []
    for name in options.added:
        sides = [side for side, tower in spec.towers.items() if name in tower.get(ADAPTERS, {})]
        found.append(f"^(?:{'|'.join(sides)})/(?:.*/)?{names[name]}")
    towers, known = "|".join(spec.towers), _paths(spec) if options.bitfit is not None or options.trainable else []
    if options.bitfit is not None:
        fields = {LAYERS: "", **options.bitfit}
        layers = section(_bitfit, fields, name="adapt.bitfit")
        regex_of(layers, field=f"config.adapt.bitfit.{LAYERS}")
        regex = f"^(?=(?:{towers})/)(?=.*(?:{layers})).*(?:^|/)bias$"
        found.append(_known(regex, shown=layers, of="bias", paths=known, spec=spec))
    for pattern in options.trainable:
        regex_of(pattern, field="config.adapt.trainable")
        regex = f"^(?=(?:{towers})/)(?=.*(?:{pattern}))"
        found.append(_known(regex, shown=pattern, of="parameter", paths=known, spec=spec))
    return tuple(dict.fromkeys(found))


def _paths(spec: ModelSpec) -> list[str]:
    """Return the paths of all parameters."""
    state = nnx.state(abstract(spec), nnx.Param)
    return ["/".join(map(str, path)) for path, _ in nnx.to_flat_state(state)]


def outside_towers(spec: ModelSpec, *, but: str = "") -> str:
    """Return a regex of the parameters that belong to no tower: projections, temperature, heads, fusion.

    Args:
      spec: of the model.
      but: a regex for the beginning of paths that are left out; "" = none.
    """
    return f"^(?!(?:{'|'.join(spec.towers)})/{f'|{but}' if but else ''})"


def _bitfit(*, layers: str) -> str:
    return layers


def _known(regex: str, *, shown: str, of: str, paths: Sequence[str], spec: ModelSpec) -> str:
    """Return the regex if it is found in a path."""
    if any(re.search(regex, path) for path in paths):
        return regex
    sides = tuple(f"{side}/" for side in spec.towers)
    ends = "/bias" if of == "bias" else ""
    listed = [path for path in paths if path.startswith(sides) and path.endswith(ends)]
    raise UserError(
        f"config.adapt: {shown!r} is found in the path of no {of} of the towers. They are:\n  "
        + ("\n  ".join(listed) or "(none)")
    )


def regex_of(pattern: Any, *, field: str) -> re.Pattern[str]:
    """Compile a regex of the config; raises UserError for what is none."""
    try:
        return re.compile(pattern)
    except (re.error, TypeError) as error:
        raise UserError(f"{field}: {pattern!r} is not a regular expression: {error}") from error
