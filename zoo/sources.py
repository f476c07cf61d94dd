"""New models of which towers come from others: `config.model.source`, for all towers or for each one of its own.

A video tower of one model beside the text tower of another is how LiT (Zhai et al. 2022) and video models on top of
CLIP (Luo et al. 2021, CLIP4Clip) begin. The config names the sources and what is to be different; sizes, pixels,
tokenizer and parameters come from them.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..base.errors import UserError
from .language_models import CAPTIONING, caption_head, caption_params, is_language_model
from .load import Located, locate
from .merge import merged as without_updates
from .spec import FAMILIES, ModelSpec
from .variants import VARIANT, merged

SOURCE = "source"
"""Field of `config.model` and of its towers: a run, a checkpoint, a bundle or public weights; "" = a new tower."""
INPUTS = {
    "video": ("num_frames", "eval_sampling", "eval_video", "mask_frames", "pixel_mean", "pixel_std"),
    "text": ("text", "context_length"),
    "audio": ("audio_seconds",),
}
"""Modality -> fields of the input that belong to its tower."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sources:
    """What the sources of a model section say; JSON-able but for `towers` and `places`.

    Attributes:
      model: `config.model` as `ModelOptions` takes it, without the names of sources.
      input: fields of `config.data` that the config leaves open.
      tokenizer: the meta of the text tower's tokenizer; {} if the text tower is new, or its source has none.
      origins: modality, or "heads.captioning" -> where the tower, or the language model, comes from (`ModelSpec.origin`
        of the source, and its name).
      towers: modality -> the source.
      places: name in the config -> the source.
      language_model: of which the captioning head is made, see `language_models`; None = none.
    """

    model: Mapping[str, Any]
    input: Mapping[str, Any]
    tokenizer: Mapping[str, Any]
    origins: Mapping[str, Mapping[str, Any]]
    towers: Mapping[str, Located]
    places: Mapping[str, Located]
    language_model: Located | None = None

    @property
    def name(self) -> str:
        """The sources in words."""
        named = {origin["name"]: None for origin in self.origins.values()}
        return " and ".join(named)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form: all but the places of parameters."""
        return {name: getattr(self, name) for name in ("model", "input", "tokenizer", "origins")}

    def to_meta(self) -> dict[str, Any]:
        """Return JSON values from which `places_from_meta` reads the sources again, without their parameters."""
        return {name: {"path": str(one.path), "spec": one.spec.to_dict()} for name, one in self.places.items()}

    def params(self) -> dict[str, np.ndarray]:
        """Read the parameters that the new model takes over, "/"-joined path -> array.

        A projection comes along where the joint space has the width of its source's; temperature, bias, the same fusion
        and the same heads where all towers have one source.
        """
        read = {str(one.path): one.params() for one in self.towers.values()}
        kinds = self.model.get("projections", {})
        found: dict[str, np.ndarray] = {}
        for side, one in self.towers.items():
            params, prefixes = read[str(one.path)], [f"{side}/"]
            if _same_projection(one.spec, side, kind=kinds.get(side, "linear"), embed_dim=self.model["embed_dim"]):
                prefixes.append(f"{side}_projection/")
            found |= {path: value for path, value in params.items() if path.startswith(tuple(prefixes))}
        if len(read) == 1 and set(self.towers) >= {"video", "text"}:
            [params], [spec] = read.values(), {one.path: one.spec for one in self.towers.values()}.values()
            whole = ["log_scale", "bias"]
            fusion = {**spec.fusion, **(self.model.get("fusion") or {})}
            beginnings = ("fusion/", "fusion_projection/") if self.model.get("fusion") and fusion == spec.fusion else ()
            heads = {name: dict(head) for name, head in (self.model.get("heads") or {}).items()}
            beginnings += tuple(f"heads/{name}/" for name, head in heads.items() if spec.heads.get(name) == head)
            found |= {path: value for path, value in params.items() if path in whole or path.startswith(beginnings)}
        return found | self.of_language_model()

    def of_language_model(self) -> dict[str, np.ndarray]:
        """Read those of `params` that are of the language model; {} without one."""
        return {} if self.language_model is None else caption_params(self.language_model)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Kept(Located):
    """A source that a run has kept: it is looked up again only if its parameters are asked for."""

    def params(self) -> dict[str, np.ndarray]:
        return without_updates(locate(self.path)).params()


def places_from_meta(meta: Mapping[str, Any], *, name: str) -> dict[str, Located]:
    """Read `Sources.to_meta`; `name` is what to call it in errors."""
    return {
        place: _Kept(spec=ModelSpec.from_dict(one["spec"], name=name), path=Path(one["path"]))
        for place, one in meta.items()
    }


def find_sources(
    model: Mapping[str, Any], *, data: Mapping[str, Any], known: Mapping[str, Located] | None = None
) -> Sources | None:
    """Look up the sources that `config.model` names.

    Args:
      model: `config.model`. `source` stands in the section, for all towers that the source has, or in the section of
        a tower; "" there = a new tower. Other fields of a tower change what the source says of it. The captioning head
        of the kind "language_model" has a source of its own.
      data: `config.data`, flat; fields of the input that it sets hold.
      known: name in the config -> source that need not be looked up.

    Returns:
      None if there is no source.

    Raises:
      UserError: a source that cannot be read or lacks the tower, a tower of another family, or no width of the joint
        space.
    """
    places = dict(known or {})
    towers = _located(model, read=places)
    head = dict((model.get("heads") or {}).get(CAPTIONING) or {})
    name = str(head.pop(SOURCE, "")) if is_language_model(head) else ""
    language_model = _found(name, read=places, field=f"heads.{CAPTIONING}.{SOURCE}") if name else None
    if not towers and language_model is None:
        return None
    made = {key: value for key, value in model.items() if key not in (SOURCE, *FAMILIES)}
    if towers:
        made["embed_dim"] = _embed_dim(made, towers=towers)
    if language_model is not None:
        whole = caption_head(head, located=language_model, name=name)
        made["heads"] = {**model["heads"], CAPTIONING: whole}
    projections = dict(made.get("projections") or {})
    for side in FAMILIES:
        own = {key: value for key, value in (model.get(side) or {}).items() if key != SOURCE}
        if side in towers:
            spec = towers[side].spec
            made[side] = _tower(spec, side, changes=own, data=data)
            kept = dict(spec.projections).get(side, "linear") if spec.embed_dim == made["embed_dim"] else "linear"
            projections.setdefault(side, kept)
        elif side in model:
            made[side] = None if model[side] is None else own
    given = {name for name, value in data.items() if value is not None}
    origins = towers | ({} if language_model is None else {f"heads.{CAPTIONING}": language_model})
    return Sources(
        model=made | {"projections": projections},
        input={
            name: getattr(one.spec.input, name)
            for side, one in towers.items()
            for name in INPUTS[side]
            if name not in given
        },
        tokenizer=towers["text"].spec.tokenizer if "text" in towers else {},
        origins={side: {"name": str(one.path), **one.spec.origin} for side, one in origins.items()},
        towers=towers,
        places=places,
        language_model=language_model,
    )


def _located(model: Mapping[str, Any], *, read: dict[str, Located]) -> dict[str, Located]:
    """Return the source of each tower that has one; `read` receives those that are looked up."""
    for_all, towers = str(model.get(SOURCE) or ""), {}
    for side in FAMILIES:
        section = model.get(side, {})
        if section is None:
            continue
        own = section.get(SOURCE)
        name = str(for_all if own is None else own)
        if not name:
            continue
        one = _found(name, read=read, field=SOURCE if own is None else f"{side}.{SOURCE}")
        if side in one.spec.towers:
            towers[side] = one
        elif own:
            raise UserError(
                f"config.model.{side}.source={name!r} has no {side} tower (it has: {', '.join(one.spec.towers)}); name "
                "another source, or leave it out for a new tower"
            )
    return towers


def _found(name: str, *, read: dict[str, Located], field: str) -> Located:
    """Look up a source, unless `read`, which receives it, has it; `field` of `config.model` names it."""
    if name not in read:
        try:
            read[name] = without_updates(locate(name))
        except UserError as error:
            raise UserError(f"config.model.{field}={name!r}: {error}") from error
    return read[name]


def _embed_dim(model: Mapping[str, Any], *, towers: Mapping[str, Located]) -> int:
    if model.get("embed_dim") is not None:
        return model["embed_dim"]
    known = {one.spec.embed_dim: str(one.path) for one in towers.values() if one.spec.embed_dim}
    if len(known) == 1:
        return next(iter(known))
    names = " and ".join(str(one.path) for one in towers.values())
    why = "are encoders without a joint space" if not known else f"have joint spaces of {sorted(known)} numbers"
    raise UserError(f"config.model.embed_dim is not set, and the sources ({names}) {why}; set it, for example to 512")


def _tower(spec: ModelSpec, side: str, *, changes: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a tower: the source's, with changes, also inside of sections such as `image`."""
    given = spec.towers[side]
    if changes.get("family", given["family"]) != given["family"]:
        raise UserError(
            f"config.model.{side}.family={changes['family']!r}, but the tower of its source is {given['family']!r}; "
            f"leave `family` out, or set config.model.{side}.source='' for a new tower"
        )
    for field, section in ((side, changes), (f"{side}.image", changes.get("image") or {})):
        if section.get(VARIANT):
            raise UserError(
                f"config.model.{field}.variant={section[VARIANT]!r}, but its source gives the sizes of the tower; "
                f"leave `variant` out, or set config.model.{side}.source='' for a new tower"
            )
    made = merged(given, changes)
    length = data.get("context_length")
    learned = given["family"] == "transformer" and given.get("position", "learned") == "learned"
    if side == "text" and length and learned and "positions" not in made:
        made["positions"] = spec.input.context_length
    return made


def _same_projection(spec: ModelSpec, side: str, *, kind: str, embed_dim: int) -> bool:
    return spec.embed_dim == embed_dim and dict(spec.projections).get(side, "linear") == kind
