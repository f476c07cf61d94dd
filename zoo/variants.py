"""Sizes of towers by public names: `variant` in a tower's section of `config.model` stands for a row of these tables.

    c.model.video = dict(variant="B/16", image_size=224)
    c.model.video = dict(family="frames", image=dict(variant="L/14"))
    c.model.text = dict(variant="B")

What a section says beside `variant` goes above the row. Frames, frame size and cleaning belong to the input and are not
listed here; `zoo.convert` brings them with public weights.
"""

from collections.abc import Mapping
from typing import Any

from ..base.errors import unknown
from ..base.fields import is_config_dict

VARIANT = "variant"
"""Field of a tower that names its row."""

# Names are the public ones: letter of the transformer / side of a patch in pixels.
_VIT = {
    "XS/12": {"patch": 12, "width": 128, "depth": 2, "heads": 4, "mlp_ratio": 3.0},  # ours, for the demo
    "XS/16": {"patch": 16, "width": 128, "depth": 3, "heads": 4, "mlp_ratio": 3.0},  # ours, for a CPU
    "Ti/16": {"patch": 16, "width": 192, "depth": 12, "heads": 3},  # Touvron et al. 2021 (DeiT), table 1
    "S/32": {"patch": 32, "width": 384, "depth": 12, "heads": 6},  # Steiner et al. 2022, table 1
    "S/16": {"patch": 16, "width": 384, "depth": 12, "heads": 6},  # Touvron et al. 2021 (DeiT), table 1
    "B/32": {"patch": 32, "width": 768, "depth": 12, "heads": 12},  # Dosovitskiy et al. 2021 (ViT), table 1
    "B/16": {"patch": 16, "width": 768, "depth": 12, "heads": 12},  # Dosovitskiy et al. 2021 (ViT), table 1
    "L/16": {"patch": 16, "width": 1024, "depth": 24, "heads": 16},  # Dosovitskiy et al. 2021 (ViT), table 1
    "L/14": {"patch": 14, "width": 1024, "depth": 24, "heads": 16},  # the same with CLIP's patch (Radford et al. 2021)
    "H/14": {"patch": 14, "width": 1280, "depth": 32, "heads": 16},  # Dosovitskiy et al. 2021 (ViT), table 1
    # Zhai et al. 2022 (Scaling Vision Transformers), table 2
    "g/14": {"patch": 14, "width": 1408, "depth": 40, "heads": 16, "block": {"mlp_hidden": 6144}},
    "G/14": {"patch": 14, "width": 1664, "depth": 48, "heads": 16, "block": {"mlp_hidden": 8192}},
    # Alabdulmohsin et al. 2023 (shape-optimised ViT)
    "So400m/14": {"patch": 14, "width": 1152, "depth": 27, "heads": 16, "block": {"mlp_hidden": 4304}},
}
_TEXT = {
    "XS": {"width": 128, "depth": 2, "heads": 4, "mlp_ratio": 3.0},  # ours, for a CPU
    "S": {"width": 384, "depth": 6, "heads": 6},  # ours
    "B": {"width": 512, "depth": 12, "heads": 8},  # Radford et al. 2021 (CLIP), table 20, with ViT-B
    "L": {"width": 768, "depth": 12, "heads": 12},  # Radford et al. 2021 (CLIP), table 20, with ViT-L
    "H": {"width": 1024, "depth": 24, "heads": 16},  # Cherti et al. 2023 (OpenCLIP), with ViT-H
    "So400m": {"width": 1152, "depth": 27, "heads": 16, "block": {"mlp_hidden": 4304}},  # Zhai et al. 2023 (SigLIP)
    "bert-base": {"width": 768, "depth": 12, "heads": 12},  # Devlin et al. 2019 (BERT), section 3
    "bert-large": {"width": 1024, "depth": 24, "heads": 16},  # Devlin et al. 2019 (BERT), section 3
    "distilbert": {"width": 768, "depth": 6, "heads": 12},  # Sanh et al. 2019 (DistilBERT), section 3
    "minilm-l6": {"width": 384, "depth": 6, "heads": 12},  # Wang et al. 2020 (MiniLM)
}

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
    "vivit": _VIT,  # of the spatial blocks
    "vit": _VIT,  # `image` of the family "frames"
    "joint": _VIT,
    "divided": {
        **_VIT,
        # Bain et al. 2021 (Frozen in Time), section 3.1 and model/video_transformer.py of its repository
        "frozen-b": _VIT["B/16"] | {"form": "frozen", "time_method": "first", "block": {"norm_epsilon": 1e-6}},
    },
    # google-deepmind/videoprism, videoprism/models.py, CONFIGS; T is 16 frames for B, 8 for L
    "videoprism": {
        "b": _PRISM_B,  # videoprism_v1_base
        "l": _PRISM_L,  # videoprism_v1_large
        "lvt-b": _PRISM_B | _LVT,  # videoprism_lvt_v1_base
        "lvt-l": _PRISM_L | _LVT,  # videoprism_lvt_v1_large
    },
    "transformer": {
        **_TEXT,
        "videoprism-lvt-b": _PRISM_TEXT | {"width": 768, "heads": 12},  # videoprism_lvt_v1_base
        "videoprism-lvt-l": _PRISM_TEXT | {"width": 1024, "heads": 16},  # videoprism_lvt_v1_large
    },
    "htsat": {  # LAION-AI/CLAP, htsat.py, create_htsat_model
        "tiny": {"width": 96, "depths": (2, 2, 6, 2), "stage_heads": (4, 8, 16, 32)},
        "base": {"width": 128, "depths": (2, 2, 12, 2), "stage_heads": (4, 8, 16, 32)},
    },
    "ast": {
        "S": {"width": 384, "depth": 12, "heads": 6},  # Gong et al. 2021 (AST), with DeiT-S
        "B": {"width": 768, "depth": 12, "heads": 12},  # Gong et al. 2021 (AST), with DeiT-B
    },
}
"""Family of a tower (see `build.TOWERS`), or of an image tower -> public name -> arguments of its class."""


def expanded(tower: Any, *, family: str) -> dict[str, Any]:
    """Return the arguments of a tower with those that its `variant` stands for, also of its image tower.

    Args:
      tower: a section of `config.model`, a ConfigDict or a mapping; what it says goes above the row, inside of `block`,
        too.
      family: of the tower, where the section does not name one.

    Raises:
      UserError: no such row.
    """
    tower = tower.to_dict() if is_config_dict(tower) else tower
    made = {key: value for key, value in tower.items() if key != VARIANT}
    if isinstance(made.get("image"), Mapping):
        made["image"] = expanded(made["image"], family="vit")
    if VARIANT not in tower:
        return made
    family = tower.get("family", family)
    rows = VARIANTS.get(family, {})
    if tower[VARIANT] not in rows:
        raise unknown(f"variant of the family {family!r} in config.model:", tower[VARIANT], rows)
    return merged(rows[tower[VARIANT]], made)


def merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return a section with changes, which reach into sections of it."""
    both = {
        key: merged(old[key], value)
        for key, value in new.items()
        if isinstance(value, Mapping) and isinstance(old.get(key), Mapping)
    }
    return {**old, **new, **both}
