"""What a spec amounts to: all arguments of its towers, comparable with those of a public model."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Set
from typing import Any

import numpy as np

from ...models.layers.options import BlockOptions, block_options
from ...models.towers import videoprism
from ...models.towers.frames import IMAGE_TOWERS
from ..build import TOWERS
from ..spec import ModelSpec

_TRAINING = ("dropout", "patch_dropout", "drop_path", "remat", "unroll", "dtype", "rngs", "self")
"""Arguments that change no embedding."""
_INPUT = ("num_frames", "pixel_mean", "pixel_std", "context_length", "audio_samples", "mlp_ratio")
"""Arguments that follow from others, or from the input."""
_OTHER_SIZES = ("position_method", "position_antialias", "position_align_corners", "naflex")
"""Arguments that matter only for frames of another size than that of training."""
_POSITIONS = {"relative": ("relative_buckets", "relative_distance"), "learned": ("positions",)}
_MOVED = {"video_projection/kernel": "video/image/projection/kernel"}

Arguments = dict[str, Any]
"""Nested: "video" -> "image" -> "width" -> 768."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference:
    """An argument in which a model and the nearest model of a public format differ.

    Attributes:
      field: its name in `config`.
      ours: its value.
      theirs: the value that the format has.
      exact: False if only frames of another size than that of training are encoded otherwise.
    """

    field: str
    ours: Any
    theirs: Any
    exact: bool = True

    def __str__(self) -> str:
        has = "does not have it" if self.theirs is None else f"has {self.theirs!r}"
        return f"{self.field} is {self.ours!r}, the format {has}"


def canonical(spec: ModelSpec, *, params: Mapping[str, np.ndarray]) -> tuple[ModelSpec, dict[str, np.ndarray]]:
    """Return the model with its linear video projection inside of the image tower, where CLIP has it.

    The mean over frames and a linear map commute, so that the embeddings stay the same. Other models are returned as
    they are.
    """
    video = dict(spec.towers.get("video", {}))
    image = dict(video.get("image", {}))
    movable = (
        (video.get("family"), video.get("over_time", "mean")) == ("frames", "mean")
        and not video.get("unit_frames")
        and not image.get("projection")
        and spec.embed_dim is not None
        and spec.projections.get("video", "linear") == "linear"
    )
    if not movable:
        return spec, dict(params)
    towers = {**spec.towers, "video": {**video, "image": {**image, "projection": spec.embed_dim}}}
    moved = {_MOVED.get(path, path): value for path, value in params.items()}
    return spec.replace(towers=towers, projections={**spec.projections, "video": "none"}), moved


def image_family(spec: ModelSpec) -> str:
    """Return the family of the image tower in a video tower, "" if there is none."""
    image = spec.towers.get("video", {}).get("image")
    return "" if image is None else image.get("family", "vit")


def arguments(spec: ModelSpec) -> dict[str, Arguments]:
    """Return all arguments of each tower that its embeddings depend on, by modality, with defaults filled in."""
    return {side: _FORMS[side](spec) for side in spec.towers if side in _FORMS}


def differences(spec: ModelSpec, *, public: ModelSpec) -> list[Difference]:
    """Compare a model with the one that a public format would give back.

    Args:
      spec: the model, `canonical`.
      public: what `zoo.convert` makes of the format's config.
    """
    found = [
        Difference(field=f"config.model.{side}", ours=side in spec.towers, theirs=side in public.towers)
        for side in dict.fromkeys([*spec.towers, *public.towers])
        if (side in spec.towers) != (side in public.towers)
    ]
    shared = spec.towers.keys() & public.towers.keys()
    ours, theirs = (_flat(_comparable(one, sides=shared)) for one in (spec, public))
    for field in dict.fromkeys([*ours, *theirs]):
        mine, other = ours.get(field), theirs.get(field)
        if not _equal(mine, other) and (mine is not None or other):
            exact = field.rpartition(".")[2] not in _OTHER_SIZES
            found.append(Difference(field=field, ours=mine, theirs=other, exact=exact))
    return found


def _comparable(spec: ModelSpec, *, sides: Set[str]) -> Arguments:
    given = spec.input
    model: Arguments = {side: made for side, made in arguments(spec).items() if side in sides}
    model["embed_dim"] = spec.embed_dim
    if spec.embed_dim is not None:
        model["projections"] = {side: spec.projections.get(side, "linear") for side in sides}
    data: Arguments = {}
    if "video" in sides:
        data |= {"pixel_mean": given.pixel_mean, "pixel_std": given.pixel_std}
    if "text" in sides:
        seen = model["text"].get("padding_seen")  # then a text is as long as its padding
        data["context_length"] = given.context_length if seen else None
    return {"config": {"model": model, "data": data}}


def _video(spec: ModelSpec) -> Arguments:
    tower = spec.towers["video"]
    made = _filled(TOWERS["video"][tower["family"]], tower)
    if tower["family"] == "frames":
        made["image"] = _image(tower["image"])
        _drop(made, "features")  # from which training takes vectors; the model takes frames all the same
        if made["over_time"] == "mean":
            made = {key: value for key, value in made.items() if key not in ("depth", "heads", "block")}
    elif tower["family"] == "videoprism":
        made["block"] = _block(tower, made, defaults=videoprism.BLOCK)
        made["position_frames"] = made["position_frames"] or spec.input.num_frames
        attends = made["pool"] == "attention"
        made["pool_width"] = (made["pool_width"] or 4 * made["width"]) if attends else None
    return made


def _image(tower: Mapping[str, Any]) -> Arguments:
    family = tower.get("family", "vit")
    made = {"family": family} | _filled(IMAGE_TOWERS[family], tower)
    if family != "vit":
        return made
    made["block"] = _block(tower, made)
    if made["pool"] == "attention":
        ratio = made.pop("pool_mlp_ratio")
        made["pool_heads"] = made["pool_heads"] or made["heads"]
        made["pool_mlp_hidden"] = int(ratio * made["width"]) if ratio is not None else made["block"]["mlp_hidden"]
    else:
        _drop(made, "pool_heads", "pool_mlp_ratio")
    if made["block"]["rotary"] == "none":
        _drop(made, "rotary_start")
    if made["position"] != "learned":
        _drop(made, *_OTHER_SIZES)
    if not made["projection"]:
        _drop(made, "projection_bias")
    return made


def _text(spec: ModelSpec) -> Arguments:
    tower = spec.towers["text"]
    made = _filled(TOWERS["text"][tower["family"]], tower)
    if tower["family"] != "transformer":
        return made
    made["block"] = _block(tower, made)
    made["positions"] = made["positions"] or spec.input.context_length
    for position, names in _POSITIONS.items():
        if made["position"] != position:
            _drop(made, *names)
    made["stretch_positions"] = spec.input.context_length > made.get("positions", spec.input.context_length)
    if made["pool"] != "eos":
        _drop(made, "eos_id")
    elif made["causal"]:
        made["padding_seen"] = False  # what stands after the end of a text is never seen
    return made


def _audio(spec: ModelSpec) -> Arguments:
    tower = spec.towers["audio"]
    made = _filled(TOWERS["audio"][tower["family"]], tower)
    if tower["family"] == "ast_public":
        made["block"] = _block(tower, made)
    return made


_FORMS: dict[str, Callable[[ModelSpec], Arguments]] = {"video": _video, "text": _text, "audio": _audio}


def _filled(tower: type, given: Mapping[str, Any]) -> Arguments:
    """Return the arguments of a class, its defaults where none are given."""
    known = inspect.signature(tower.__init__).parameters
    defaults = {name: one.default for name, one in known.items() if one.default is not inspect.Parameter.empty}
    values = defaults | dict(given)
    kept = {name: value for name, value in values.items() if name not in (*_TRAINING, *_INPUT)}
    return kept


def _block(given: Mapping[str, Any], made: Arguments, *, defaults: Mapping[str, Any] | None = None) -> Arguments:
    """Return the fields of `BlockOptions` of a tower that it does not set itself, sizes worked out."""
    own = {key: made[key] for key in ("width", "heads", "activation")} | {"mlp_ratio": given.get("mlp_ratio", 4.0)}
    if "causal" in made:
        own["causal"] = made["causal"]
    options = block_options(dict(defaults or {}) | dict(given.get("block") or {}), tower="video", **own)
    block = {one.name: getattr(options, one.name) for one in dataclasses.fields(BlockOptions)}
    block["mlp_hidden"] = options.mlp_hidden or int(options.mlp_ratio * options.width)
    block["head_width"], block["kv_heads"] = options.head_size, options.groups
    block["attention_scale"] = options.attention_scale or options.head_size**-0.5
    block["layer_scale"] = options.layer_scale is not None
    if options.rotary == "none":
        _drop(block, "rotary_base")
    _drop(block, *_TRAINING, *own, "tower", "cross_width")
    return block


def _drop(values: Arguments, *names: str) -> None:
    for name in names:
        values.pop(name, None)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Arguments:
    flat: Arguments = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _equal(mine: Any, other: Any) -> bool:
    if isinstance(mine, float | tuple | list):
        return other is not None and np.shape(mine) == np.shape(other) and bool(np.allclose(mine, other, rtol=1e-6))
    return mine == other
