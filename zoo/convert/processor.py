"""Processor files of transformers: what its image, video and sound processors do, as an `InputSpec` states it.

The files are `preprocessor_config.json`, `video_preprocessor_config.json` and, since transformers 5,
`processor_config.json` with one section per processor. Where several of them state a value, they must agree.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from ...base.errors import UserError
from .family import choice
from .files import SourceFiles

Colours = tuple[float, float, float]
"""Values of red, green and blue."""
RESIZING = {2: "bilinear", 3: "bicubic"}
"""`resample` (a number of Pillow) -> ending of our operations in `data.transforms.pillow`."""
SOUND = ("feature_extractor",)
"""Section of `processor_config.json` for sound; others are in `PIXELS`."""
PIXELS = ("video_processor", "image_processor")
_WHOLE = "processor_config.json"
_NAMES = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}
_COMPARED = (
    *("do_resize", "size", "resample", "do_center_crop", "crop_size", "crop_pct", "do_rescale", "rescale_factor"),
    *("do_normalize", "image_mean", "image_std", "offset", "patch_size", "max_num_patches", "do_flip_channel_order"),
    *("sampling_rate", "max_length", "num_mel_bins", "mean", "std"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PixelDefaults:
    """What the processor class of a family does where its file says nothing.

    Attributes:
      size: side of the model's pictures, pixels.
      short: shorter side before a centre crop to `size`, pixels; None = pictures are squashed to `size` x `size`.
      method: of resizing, a value of `RESIZING`.
      mean: of red, green and blue.
      std: likewise.
      factor: on pixels 0..255.
      offset: 1 is subtracted after that (ViViT).
      strict: pictures of another side than `size` contradict the config.
    """

    size: int
    short: int | None = None
    method: str = "bicubic"
    mean: Sequence[float] = (0.5, 0.5, 0.5)
    std: Sequence[float] = (0.5, 0.5, 0.5)
    factor: float = 1 / 255
    offset: bool = False
    strict: bool = True


def settings(files: SourceFiles, *, sections: Sequence[str] = PIXELS) -> dict[str, Any]:
    """Return the settings of a model's processor; {} if the folder has none.

    Args:
      files: the model.
      sections: of `processor_config.json`, `PIXELS` or `SOUND`.

    Raises:
      UserError: two files, or sections of one, contradict each other.
    """
    found, whole = [], files.json(_WHOLE)
    for name in sections:
        if isinstance(whole.get(name), dict):
            found.append((f"{_WHOLE} ({name})", whole[name]))
    alone = ("video_preprocessor_config.json", "preprocessor_config.json")
    found += [(name, given) for name in alone[sections == SOUND :] if (given := files.json(name))]
    merged: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for file, given in found:
        for key, value in given.items():
            if value is None:
                continue
            if key in merged and key in _COMPARED and not _same(key, merged[key], value):
                raise UserError(
                    f"{files.name}: {key} is {merged[key]!r} in {origin[key]} and {value!r} in {file}; the files "
                    "contradict each other, fetch the folder again or correct one of them"
                )
            if key not in merged:
                merged[key], origin[key] = value, file
    return merged


def pixel_fields(files: SourceFiles, *, defaults: PixelDefaults) -> dict[str, Any]:
    """Return the fields `eval_video`, `pixel_mean` and `pixel_std` of an `InputSpec` as a model's processor has them.

    Args:
      files: the model.
      defaults: where its files say nothing.

    Raises:
      UserError: files that contradict each other or the model's config, or an operation that twinreel does not have.
    """
    given = settings(files)
    mean, std = scaling(given, defaults=defaults, source=files.name)
    resizing = _resizing(given, defaults=defaults, source=files.name)
    return {"eval_video": resizing, "pixel_mean": mean, "pixel_std": std}


def scaling(given: dict[str, Any], *, defaults: PixelDefaults, source: str) -> tuple[Colours, Colours]:
    """Return mean and deviation, of pixels 0..1, that stand for rescaling and normalisation.

    Raises:
      UserError: pixels that are not scaled, or whose channels are reversed.
    """
    if not given.get("do_rescale", True):
        raise UserError(f"{source}: do_rescale=false in its processor's file, wanted pixels that are scaled")
    if given.get("do_flip_channel_order"):
        raise UserError(f"{source}: do_flip_channel_order=true in its processor's file; twinreel's pixels are RGB")
    scale = 255 * given.get("rescale_factor", defaults.factor)
    mean, std = [0.0] * 3, [1.0] * 3
    if given.get("do_normalize", True):
        mean, std = (_colours(given.get(f"image_{key}", getattr(defaults, key))) for key in ("mean", "std"))
    offset = 1.0 if given.get("offset", defaults.offset) else 0.0
    return _three([(offset + channel) / scale for channel in mean]), _three([channel / scale for channel in std])


def method_of(given: dict[str, Any], *, default: str, source: str) -> str:
    """Return how pictures are resized, a value of `RESIZING`.

    Raises:
      UserError: a filter that twinreel does not have.
    """
    if "resample" not in given:
        return default
    return choice(_resample(given["resample"]), known=RESIZING, key="resample", source=source)


def side(value: Any) -> dict[str, int]:
    """Return a size as transformers writes it today: a number is the shorter side."""
    if isinstance(value, int | float):
        return {"shortest_edge": int(value)}
    if isinstance(value, list | tuple) and len(value) == 2:
        return {"height": int(value[0]), "width": int(value[1])}
    if isinstance(value, dict):
        return {key: int(number) for key, number in value.items() if number is not None}
    return {}


def _resizing(given: dict[str, Any], *, defaults: PixelDefaults, source: str) -> str:
    method = method_of(given, default=defaults.method, source=source)
    squash = defaults.short is None
    default = {"height": defaults.size, "width": defaults.size} if squash else {"shortest_edge": defaults.short}
    size = given.get("size", default)
    wanted = {"height": size, "width": size} if squash and isinstance(size, int) else side(size)
    steps: list[str] = []
    final: tuple[int, int] | None = None
    if given.get("do_resize", True):
        if wanted.keys() == {"shortest_edge"}:
            steps.append(f"resize_short_{method}({wanted['shortest_edge']})")
        elif wanted.keys() == {"height", "width"}:
            final = (wanted["height"], wanted["width"])
            steps.append(f"resize_{method}({final[0]},{final[1]})")
        else:
            raise UserError(
                f"{source}: size={size!r} in its processor's file is not known; wanted height and width, or "
                "shortest_edge alone"
            )
    if given.get("do_center_crop", not squash):
        crop = given.get("crop_size", defaults.size)
        sides = {crop} if isinstance(crop, int) else set(side(crop).values())
        if len(sides) != 1:
            raise UserError(f"{source}: crop_size={crop!r} in its processor's file, wanted one side of a square")
        cut = sides.pop()
        if final != (cut, cut):
            steps.append(f"center_crop({cut})")
        final = (cut, cut)
    if final is None or (defaults.strict and final != (defaults.size, defaults.size)):
        found = "any size" if final is None else f"{final[0]} x {final[1]} pixels"
        raise UserError(
            f"{source}: its processor's file makes pictures of {found}, config.json has image_size={defaults.size}; "
            "the two files belong to different models"
        )
    return "|".join(steps)


def _three(values: Sequence[float]) -> Colours:
    red, green, blue = values
    return red, green, blue


def _colours(value: Any) -> list[float]:
    return [float(value)] * 3 if isinstance(value, int | float) else [float(channel) for channel in value]


def _resample(value: Any) -> Any:
    return _NAMES.get(value.lower(), value) if isinstance(value, str) else value


def _same(key: str, one: Any, other: Any) -> bool:
    if key in ("size", "crop_size"):
        one, other = (_square(value) if key == "crop_size" else side(value) for value in (one, other))
    if key == "resample":
        one, other = _resample(one), _resample(other)
    if key in ("image_mean", "image_std"):
        one, other = _colours(one), _colours(other)
    if isinstance(one, float | int) and isinstance(other, float | int):
        return math.isclose(one, other, rel_tol=1e-6)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(math.isclose(a, b, rel_tol=1e-6) for a, b in zip(one, other, strict=True))
    return one == other


def _square(value: Any) -> dict[str, int]:
    return {"height": value, "width": value} if isinstance(value, int) else side(value)
