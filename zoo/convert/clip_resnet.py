"""The tensors of CLIP's residual networks in OpenAI's and open_clip's files (Radford et al. 2021, section 2.4)."""

from typing import Any

import numpy as np

from .clip import dense
from .convolutions import conv_norm
from .family import number
from .rules import Rule, prefixed, rule
from .transforms import Transform


def image(vision: dict[str, Any], *, embed_dim: int, source: str) -> dict[str, Any]:
    """Return the arguments of our image tower.

    Args:
      vision: `vision_cfg` of open_clip, whose `layers` are the blocks of each stage.
      embed_dim: E.
      source: for errors.
    """
    width = number(vision, "width", default=64, source=source)
    return {
        "family": "clip_resnet",
        "image_size": number(vision, "image_size", default=224, source=source),
        "width": width,
        "depths": list(vision["layers"]),
        "heads": width * 32 // number(vision, "head_width", default=64, source=source),
        "projection": embed_dim,
    }


def table(*, image: dict[str, Any]) -> list[Rule]:
    """Return the table of an image tower; import and export read it."""
    rules = [one for n in range(3) for one in conv_norm(f"conv{n + 1}", f"bn{n + 1}", f"stem/{n}", axes=2)]
    for stage, depth in enumerate(image["depths"]):
        for block in range(depth):
            names = {"conv1": "first", "conv2": "second", "conv3": "third"}
            own = [one for conv, path in names.items() for one in conv_norm(conv, f"bn{conv[-1]}", path, axes=2)]
            own += [] if block else conv_norm("downsample.0", "downsample.1", "shortcut", axes=2)
            rules += prefixed(own, source=f"layer{stage + 1}.{block}.", path=f"stages/{stage}/{block}/")
    sides = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "c_proj": "out"}
    pool = [one for source, path in sides.items() for one in dense(source, path)]
    return [
        *rules,
        rule("attnpool.positional_embedding", ["mean_position", "space_position"], _first_and_rest()),
        *prefixed(pool, source="attnpool.", path="pooler/"),
    ]


def _first_and_rest() -> Transform:
    """Positions `[1 + N, D]`, the first of which is that of the mean."""
    return Transform(lambda x: (x[:1], x[1:]), lambda first, rest: (np.concatenate([first, rest]),))
