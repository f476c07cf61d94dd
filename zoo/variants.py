"""Sizes of public models by the names that their publishers use; arguments of our towers.

Frames, frame size and cleaning belong to the input and are not listed here: `zoo.convert` brings them with the weights.
"""

from typing import Any

_PRISM_B = {"width": 768, "depth": 12, "heads": 12, "temporal_depth": 4, "patch": 18, "image_size": 288}
_PRISM_L = _PRISM_B | {"width": 1024, "depth": 24, "heads": 16}
_LVT = {"auxiliary_depth": 2, "pool": "attention"}
_PRISM_TEXT = {
    "vocab_size": 32_000,
    "depth": 12,
    "activation": "relu",
    "causal": True,
    "position": "sinusoids",
    "scale_embedding": True,
    "class_token": True,
    "pool": "cls",
    "block": {"norm_epsilon": 1e-6, "norm_plus_one": True, "logit_cap": 50.0},
}

VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    # google-deepmind/videoprism, videoprism/models.py, CONFIGS; T is 16 frames for B, 8 for L
    "videoprism": {
        "b": _PRISM_B,  # videoprism_v1_base
        "l": _PRISM_L,  # videoprism_v1_large
        "lvt-b": _PRISM_B | _LVT,  # videoprism_lvt_v1_base
        "lvt-l": _PRISM_L | _LVT,  # videoprism_lvt_v1_large
    },
    "transformer": {
        "videoprism-lvt-b": _PRISM_TEXT | {"width": 768, "heads": 12},  # videoprism_lvt_v1_base
        "videoprism-lvt-l": _PRISM_TEXT | {"width": 1024, "heads": 16},  # videoprism_lvt_v1_large
    },
}
"""Family of a tower (see `build.TOWERS`) -> public name -> arguments of its class."""
