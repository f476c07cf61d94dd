"""ResNet (He et al. 2016) as an image tower, as transformers writes it and as torchvision and timm do.

The classifier is left out. Of timm only the plain form is read: a 7 x 7 stem and strides in the 3 x 3 convolutions
(`resnet50`, not `resnet50d`).
"""

import itertools
from typing import Any

from ...base.errors import UserError
from ...data.options import InputSpec
from ..spec import ModelSpec
from .convolutions import STATISTICS_COUNTED, conv_norm
from .family import Conversion, Family, choice, depth_of, number, shape_of
from .files import SourceFiles
from .hf import beginning
from .processor import PixelDefaults, method_of, scaling, settings, side
from .rules import Rule, prefixed

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
_SIZE, _CROP = 224, 0.875
_WHOLE_FROM = 384  # a shorter side from which ConvNeXt's processor squashes pictures instead of cropping them
_PLAIN = {"conv1.weight", "bn1.weight", "layer4.0.conv1.weight"}
_STAGES = 4


def _conversion(files: SourceFiles) -> Conversion:
    if files.config.get("model_type") == "resnet":
        return _of_transformers(files)
    stages = range(1, _STAGES + 1)
    kind = "bottleneck" if "layer1.0.conv3.weight" in files.tensors else "basic"
    last = 3 if kind == "bottleneck" else 2
    image = {
        "stem": shape_of(files, "conv1.weight", axes=4)[0],
        "widths": [shape_of(files, f"layer{stage}.0.conv{last}.weight", axes=4)[0] for stage in stages],
        "depths": [depth_of(files, f"layer{stage}.") for stage in stages],
        "kind": kind,
    }
    about = number(files.config, "pretrained_cfg", default={"interpolation": "bilinear"}, source=files.name)
    size, share = number(about, "input_size", default=[3, _SIZE, _SIZE], source=files.name)[-1], about.get("crop_pct")
    choice(about.get("crop_mode") or "center", known={"center": 0}, key="crop_mode", source=files.name)
    given = _input(
        size,
        share=share or _CROP,
        method=choice(
            about.get("interpolation", "bilinear"),
            known={"bilinear": "bilinear", "bicubic": "bicubic"},
            key="interpolation",
            source=files.name,
        ),
        mean=about.get("mean", _MEAN),
        std=about.get("std", _STD),
        crop="center_crop_torchvision",
    )
    return _made(image, given=given, rules=table(image=image, names="torchvision"))


def _of_transformers(files: SourceFiles) -> Conversion:
    config, name = files.config, files.name
    choice(number(config, "hidden_act", source=name), known={"relu": 0}, key="hidden_act", source=name)
    kinds = {kind: kind for kind in ("bottleneck", "basic")}
    image = {
        "stem": number(config, "embedding_size", source=name),
        "widths": number(config, "hidden_sizes", source=name),
        "depths": number(config, "depths", source=name),
        "kind": choice(number(config, "layer_type", source=name), known=kinds, key="layer_type", source=name),
        "stride_first": bool(config.get("downsample_in_bottleneck", False)),
        "first_stage_stride": 2 if config.get("downsample_in_first_stage") else 1,
    }
    given = _hf_input(settings(files), source=name)
    start = beginning(files, models=("resnet",), marker="embedder.embedder.convolution.weight")
    return _made(image, given=given, rules=prefixed(table(image=image, names="transformers"), source=start))


def _hf_input(pixels: dict[str, Any], *, source: str) -> InputSpec:
    """Return the input as ConvNeXt's processor makes it, with which ResNets are published: without a crop from 384."""
    defaults = PixelDefaults(size=_SIZE, mean=_MEAN, std=_STD)
    size = side(pixels.get("size", _SIZE))
    if size.keys() != {"shortest_edge"} or pixels.get("do_center_crop") or not pixels.get("do_resize", True):
        raise UserError(
            f"{source}: its processor's file has size={pixels.get('size')!r}, "
            f"do_center_crop={pixels.get('do_center_crop')} and do_resize={pixels.get('do_resize', True)}; wanted "
            "those of ConvNextImageProcessor: shortest_edge alone, no centre crop, resized"
        )
    edge, method = size["shortest_edge"], method_of(pixels, default="bicubic", source=source)
    mean, std = scaling(pixels, defaults=defaults, source=source)
    if edge >= _WHOLE_FROM:
        return InputSpec(num_frames=8, eval_video=f"resize_{method}({edge},{edge})", pixel_mean=mean, pixel_std=std)
    share = pixels.get("crop_pct") or _CROP
    return _input(edge, share=share, method=method, crop="center_crop", mean=mean, std=std)


def _made(image: dict[str, Any], *, given: InputSpec, rules: list[Rule]) -> Conversion:
    spec = ModelSpec(towers={"video": {"family": "frames", "image": {"family": "resnet", **image}}}, input=given)
    return Conversion(spec=spec, rules=rules, ignored=(STATISTICS_COUNTED, r"(fc|classifier)\..*"))


def table(*, image: dict[str, Any], names: str) -> list[Rule]:
    """Return the table of a tower; import and export read it.

    Args:
      image: arguments of the image tower.
      names: "transformers" or "torchvision" (whose names timm has, too).
    """
    hf = names == "transformers"
    stem = ("embedder.embedder.convolution", "embedder.embedder.normalization") if hf else ("conv1", "bn1")
    rules = conv_norm(*stem, "stem", axes=2)
    convolutions = 3 if image["kind"] == "bottleneck" else 2
    for stage, (width_in, width) in enumerate(itertools.pairwise([image["stem"], *image["widths"]])):
        stride = 2 if stage else image.get("first_stage_stride", 1)
        for block in range(image["depths"][stage]):
            shortcut = not block and (stride > 1 or width_in != width)
            own = _hf_block(convolutions) if hf else _plain_block(convolutions)
            if shortcut:
                sources = ("shortcut.convolution", "shortcut.normalization") if hf else ("downsample.0", "downsample.1")
                own += conv_norm(*sources, "shortcut", axes=2)
            source = f"encoder.stages.{stage}.layers.{block}." if hf else f"layer{stage + 1}.{block}."
            rules += prefixed(own, source=source, path=f"stages/{stage}/{block}/")
    return prefixed(rules, path="video/image/")


def _hf_block(convolutions: int) -> list[Rule]:
    names = [(f"layer.{n}.convolution", f"layer.{n}.normalization", f"layers/{n}") for n in range(convolutions)]
    return [one for name in names for one in conv_norm(*name, axes=2)]


def _plain_block(convolutions: int) -> list[Rule]:
    names = [(f"conv{n + 1}", f"bn{n + 1}", f"layers/{n}") for n in range(convolutions)]
    return [one for name in names for one in conv_norm(*name, axes=2)]


def _input(size: int, *, share: float, method: str, crop: str, mean: Any, std: Any) -> InputSpec:
    """Return the input: the short side such that the crop keeps `share` of it, then a square crop."""
    if not 0 < share <= 1:
        raise UserError(f"crop_pct={share} in the model's config must be above 0 and at most 1")
    return InputSpec(
        num_frames=8,
        eval_video=f"resize_short_{method}({int(size / share)})|{crop}({size})",
        pixel_mean=tuple(mean),
        pixel_std=tuple(std),
    )


FAMILY = Family(
    name="resnet",
    models=(
        "microsoft/resnet-{18,26,34,50,101,152}",
        "timm/resnet{18,34,50,101,152}.*",
        "torchvision's as safetensors",
    ),
    licence="Apache-2.0 (microsoft/resnet-*); as timm and torchvision state for theirs",
    matches=lambda files: (
        files.config.get("model_type") == "resnet"
        or ("model_type" not in files.config and files.tensors.keys() >= _PLAIN)
    ),
    conversion=_conversion,
)
