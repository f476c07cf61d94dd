"""The processor files of transformers and open_clip, from the way in which a model's frames are made."""

import dataclasses
import re
from typing import Any

from ...data.options import InputSpec
from ..spec import ModelSpec

_RESAMPLE = {"bilinear": 2, "bicubic": 3}
"""Ending of our operations in `data.transforms.pillow` -> number of Pillow's filter, as transformers writes it."""
_SQUASH = re.compile(r"resize_(bilinear|bicubic)\((\d+)(?:\s*,\s*(\d+))?\)")
_CROP = re.compile(r"resize_short_(bilinear|bicubic)\((\d+)\)\|(center_crop(?:_torchvision)?)\((\d+)\)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Processor:
    """A processor's file and what it cannot say.

    Attributes:
      file: the JSON content.
      notes: what the user should know.
    """

    file: dict[str, Any]
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resizing:
    """How frames get their size.

    Attributes:
      method: "bicubic" or "bilinear", of Pillow.
      size: pixels: height and width, or the shorter side where `crop` follows.
      crop: side of the square that is cut out of the middle; 0 = frames are squashed.
      exact: the public code computes the same; False where the model's own operation is another.
    """

    method: str
    size: tuple[int, int]
    crop: int = 0
    exact: bool = True


def resizing(given: InputSpec, *, size: int, cropping: str = "center_crop") -> Resizing:
    """Read `InputSpec.eval_video`; another declaration than those of public models gives the nearest of them.

    Args:
      given: of the model.
      size: side of the frames in training, pixels.
      cropping: our operation that crops as the public library does.
    """
    declared = given.eval_video.replace(" ", "")
    if found := _SQUASH.fullmatch(declared):
        method, height, width = found.groups()
        return Resizing(method=method, size=(int(height), int(width or height)))
    if found := _CROP.fullmatch(declared):
        method, short, name, crop = found.groups()
        return Resizing(method=method, size=(int(short), int(short)), crop=int(crop), exact=name == cropping)
    sides = [int(number) for number in re.findall(r"center_crop(?:_torchvision)?\((\d+)\)", declared)]
    crop = sides[-1] if sides else size
    short = [int(number) for number in re.findall(r"resize_short(?:_\w+)?\((\d+)\)", declared)]
    if not short:
        return Resizing(method="bilinear", size=(crop, crop), exact=False)
    return Resizing(method="bilinear", size=(short[-1], short[-1]), crop=crop, exact=False)


def clip_processor(spec: ModelSpec, *, size: int) -> Processor:
    """Return `preprocessor_config.json` of CLIP."""
    found = resizing(spec.input, size=size)
    shape = {"shortest_edge": found.size[0]} if found.crop else _sides(found.size)
    file = {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": shape,
        "do_center_crop": bool(found.crop),
        "crop_size": _sides((found.crop, found.crop) if found.crop else found.size),
        "do_convert_rgb": True,
        **_values(spec.input, found),
    }
    return Processor(file=file, notes=_notes(spec.input, found))


def siglip_processor(spec: ModelSpec, *, size: int) -> Processor:
    """Return `preprocessor_config.json` of SigLIP, which squashes pictures."""
    found = resizing(spec.input, size=size)
    side = (found.crop, found.crop) if found.crop else found.size
    file = {
        "image_processor_type": "SiglipImageProcessor",
        "do_resize": True,
        "size": _sides(side),
        "do_convert_rgb": True,
        **_values(spec.input, found),
    }
    squashed = dataclasses.replace(found, exact=found.exact and not found.crop)
    return Processor(file=file, notes=_notes(spec.input, squashed))


def picture_processor(spec: ModelSpec, *, size: int, kind: str) -> Processor:
    """Return `preprocessor_config.json` of an image encoder; `kind` is its class in transformers."""
    made = clip_processor(spec, size=size)
    return dataclasses.replace(made, file=made.file | {"image_processor_type": kind})


def video_processor(spec: ModelSpec) -> Processor:
    """Return `video_preprocessor_config.json` of VideoPrism, whose pixels stay 0..1."""
    found = resizing(spec.input, size=spec.towers["video"].get("image_size", 288))
    side = (found.crop, found.crop) if found.crop else found.size
    file = {
        "video_processor_type": "LlavaOnevisionVideoProcessor",
        "do_resize": True,
        "size": _sides(side),
        "do_convert_rgb": True,
        "do_sample_frames": True,
        "num_frames": spec.input.num_frames,
        **_values(spec.input, found),
        "do_normalize": False,
    }
    squashed = dataclasses.replace(found, exact=found.exact and not found.crop)
    return Processor(file=file, notes=_notes(spec.input, squashed))


def open_clip_pixels(spec: ModelSpec, *, size: int) -> Processor:
    """Return `preprocess_cfg` of open_clip."""
    found = resizing(spec.input, size=size, cropping="center_crop_torchvision")
    file = {
        "size": found.crop or found.size[0],
        "mode": "RGB",
        "mean": list(spec.input.pixel_mean),
        "std": list(spec.input.pixel_std),
        "interpolation": found.method,
        "resize_mode": "shortest" if found.crop else "squash",
    }
    same = found.size[0] == (found.crop or found.size[1])  # open_clip resizes to the side that it crops
    return Processor(file=file, notes=_notes(spec.input, dataclasses.replace(found, exact=found.exact and same)))


def _values(given: InputSpec, found: Resizing) -> dict[str, Any]:
    return {
        "resample": _RESAMPLE[found.method],
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(given.pixel_mean),
        "image_std": list(given.pixel_std),
    }


def _sides(size: tuple[int, int]) -> dict[str, int]:
    return {"height": size[0], "width": size[1]}


def _notes(given: InputSpec, found: Resizing) -> tuple[str, ...]:
    if found.exact:
        return ()
    return (f"the model's frames are made by {given.eval_video!r}; the processor's file holds the nearest form of it",)
