"""Image towers of timm that pool their class token: those of MobileCLIP-B and -L, EVA-01 and EVA-02.

Sources: Vasu et al. 2024; Faghri et al. 2025; Sun et al. 2023; Fang et al. 2023.
Their sizes are not in open_clip's config, which holds timm's name alone, so they are listed here.
"""

from typing import Any

from .clip import dense, norm
from .convolutions import conv_kernel, conv_norm
from .rules import Rule, prefixed, rule
from .transforms import (
    class_token_and_positions,
    conv_patches,
    fused_bias,
    fused_kernel,
    query_value_biases,
    reshaped,
    separate_kernels,
)

_B = {"width": 768, "depth": 12, "heads": 12}
_L = {"width": 1024, "depth": 24, "heads": 16}
_FORM = {"class_token": True, "pool": "cls", "position_antialias": True, "activation": "gelu_exact"}
_HYBRID = {**_FORM, "patch": 16, "block": {"norm_epsilon": 1e-6}}
_CLIP = {**_FORM, "patch_bias": False, "pre_norm": True, "block": {"norm_epsilon": 1e-5}}
_EVA01 = {**_FORM, "block": {"norm_epsilon": 1e-6}}
_EVA02 = {
    **{**_FORM, "activation": "swiglu", "mlp_ratio": 8 / 3, "rotary_rows_first": True, "rotary_side": 16},
    "block": {
        **{"norm_epsilon": 1e-6, "attention_norm": True, "mlp_norm": True},
        "rotary": "interleaved",
    },
}
MODELS: dict[str, dict[str, Any]] = {
    "vit_base_mci_224": {**_HYBRID, **_B, "patch_stem": [192, 192]},
    "vit_large_patch14_clip_224": {**_CLIP, **_L, "patch": 14},
    "eva_giant_patch14_clip_224": {
        **{**_EVA01, "width": 1408, "depth": 40, "heads": 16, "mlp_ratio": 6144 / 1408, "patch": 14}
    },
    "eva02_base_patch16_clip_224": {**_EVA02, **_B, "patch": 16},
    "eva02_large_patch14_clip_224": {**_EVA02, **_L, "patch": 14},
    "eva02_large_patch14_clip_336": {**_EVA02, **_L, "patch": 14},
}
"""timm's name -> arguments of our image tower (timm 1.0, models/vision_transformer.py, vision_transformer_hybrid.py and
eva.py; Vasu et al. 2024; Faghri et al. 2025; Fang et al. 2023, table 8)."""


def token_image(name: str, *, changes: dict[str, Any], embed_dim: int) -> tuple[dict[str, Any], list[Rule]]:
    """Return the arguments of our image tower and the rules of its tensors.

    Args:
      name: one of `MODELS`.
      changes: other arguments than those of the name.
      embed_dim: E.
    """
    image = {**MODELS[name], **changes, "projection": embed_dim, "projection_bias": True}
    return image, prefixed(table(image=image), source="visual.trunk.", path="video/image/")


def table(*, image: dict[str, Any]) -> list[Rule]:
    """Return the table of an image tower; import and export read it."""
    width, both = image["width"], class_token_and_positions(batched=True)
    rules = [rule(["cls_token", "pos_embed"], ["class_token", "space_position"], both)]
    if image.get("patch_stem"):
        rules = [
            rule("cls_token", "class_token", reshaped(tensor=(1, 1, width), parameter=(1, width))),
            rule("pos_embed", "space_position", reshaped(tensor=(1, -1, width), parameter=(-1, width))),
            *conv_norm("patch_embed.backbone.0.conv", "patch_embed.backbone.0.bn", "embed/first", axes=2),
            *conv_norm("patch_embed.backbone.1.conv", "patch_embed.backbone.1.bn", "embed/second", axes=2),
            *_last_convolution(),
        ]
    else:
        rules.append(rule("patch_embed.proj.weight", "embed/out/kernel", conv_patches(patch=image["patch"])))
        rules += [rule("patch_embed.proj.bias", "embed/out/bias")] if image.get("patch_bias", True) else []
    rules += norm("norm_pre", "pre_norm") if image.get("pre_norm") else []
    own = [*(*norm("norm1", "norm1"), *norm("norm2", "norm2")), *dense("attn.proj", "attention/out")]
    own += _eva02_block(heads=image["heads"]) if image["activation"] == "swiglu" else _plain_block(image)
    return [
        *rules,
        *prefixed(own, source="blocks.#.", path="blocks/layers/"),
        *norm("norm", "blocks/norm"),
        *dense("head", "projection"),
    ]


def _last_convolution() -> list[Rule]:
    source, path = "patch_embed.backbone.2.conv", "embed/out/conv"
    return [rule(f"{source}.weight", f"{path}/kernel", conv_kernel(2)), rule(f"{source}.bias", f"{path}/bias")]


def _plain_block(image: dict[str, Any]) -> list[Rule]:
    """Return attention and MLP of a ViT; EVA-01 has biases of queries and values alone."""
    heads, eva = image["heads"], _is_eva01(image)
    bias = rule("attn.qkv.bias", "attention/qkv/bias", fused_bias(heads=heads))
    if eva:
        bias = rule(["attn.q_bias", "attn.v_bias"], "attention/qkv/bias", query_value_biases(heads=heads))
    return [
        rule("attn.qkv.weight", "attention/qkv/kernel", fused_kernel(heads=heads)),
        bias,
        *(*dense("mlp.fc1", "up"), *dense("mlp.fc2", "down")),
    ]


def _is_eva01(image: dict[str, Any]) -> bool:
    return not image.get("patch_stem") and not image.get("pre_norm")


def _eva02_block(*, heads: int) -> list[Rule]:
    """Return attention with a norm on its output and without biases of keys, and a gated MLP with a norm inside."""
    names = [f"attn.{side}_proj" for side in "qkv"]
    return [
        rule([f"{name}.weight" for name in names], "attention/qkv/kernel", separate_kernels(heads=heads)),
        rule(["attn.q_proj.bias", "attn.v_proj.bias"], "attention/qkv/bias", query_value_biases(heads=heads)),
        *norm("attn.norm", "attention/norm"),
        *(*dense("mlp.fc1_g", "gate"), *dense("mlp.fc1_x", "up"), *dense("mlp.fc2", "down")),
        *norm("mlp.norm", "mlp_norm"),
    ]
