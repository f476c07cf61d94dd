"""R(2+1)D as torchvision writes it (Tran et al. 2018), a video encoder of actions; its classifier is left out.

There is no config: widths and depths are read from the shapes. torchvision publishes pickles, to be turned into
safetensors.
"""

import itertools
from typing import Any

from ...data.options import InputSpec
from ..spec import ModelSpec
from .convolutions import STATISTICS_COUNTED, conv_norm
from .family import Conversion, Family, depth_of, shape_of
from .files import SourceFiles
from .rules import Rule, prefixed

_MARK = "layer1.0.conv1.0.3.weight"
_MEAN, _STD = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)  # of Kinetics
_STAGES = 4


def _conversion(files: SourceFiles) -> Conversion:
    stages = range(1, _STAGES + 1)
    video = {
        "stem": [shape_of(files, f"stem.{number}.weight", axes=5)[0] for number in (0, 3)],
        "widths": [shape_of(files, f"layer{stage}.0.conv1.0.3.weight", axes=5)[0] for stage in stages],
        "depths": [depth_of(files, f"layer{stage}.") for stage in stages],
    }
    given = InputSpec(
        num_frames=16,
        eval_video="resize_linear(128,171)|center_crop_torchvision(112)",
        pixel_mean=_MEAN,
        pixel_std=_STD,
    )
    spec = ModelSpec(towers={"video": {"family": "r2plus1d", **video}}, input=given)
    return Conversion(spec=spec, rules=table(video=video), ignored=(STATISTICS_COUNTED, r"fc\..*"))


def table(*, video: dict[str, Any]) -> list[Rule]:
    """Return the table of a tower; import and export read it."""
    rules = [
        *conv_norm("stem.0", "stem.1", "stem_space", axes=3),
        *conv_norm("stem.3", "stem.4", "stem_time", axes=3),
    ]
    widths = [video["stem"][1], *video["widths"]]
    for stage, (width_in, width) in enumerate(itertools.pairwise(widths)):
        for number in range(video["depths"][stage]):
            shortcut = not number and (stage > 0 or width_in != width)
            block = prefixed(_block(shortcut=shortcut), source=f"layer{stage + 1}.{number}.")
            rules += prefixed(block, path=f"stages/{stage}/{number}/")
    return prefixed(rules, path="video/")


def _block(*, shortcut: bool) -> list[Rule]:
    rules = []
    for number in (1, 2):
        rules += conv_norm(f"conv{number}.0.0", f"conv{number}.0.1", f"space{number}", axes=3)
        rules += conv_norm(f"conv{number}.0.3", f"conv{number}.1", f"time{number}", axes=3)
    return rules + (conv_norm("downsample.0", "downsample.1", "shortcut", axes=3) if shortcut else [])


FAMILY = Family(
    name="r2plus1d",
    models=("torchvision r2plus1d_18 as safetensors",),
    licence="BSD-3-Clause (code); trained on Kinetics-400",
    matches=lambda files: not files.config and _MARK in files.tensors and "stem.3.weight" in files.tensors,
    conversion=_conversion,
)
