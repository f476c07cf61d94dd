"""Image towers of timm inside an open_clip model: those of SigLIP and PE-core, MobileCLIP and EVA-CLIP.

Their sizes are not in the config, which holds timm's name alone, so they are listed here.
"""

from typing import Any

from ...base.errors import UserError, unknown
from . import fastvit, timm_token
from .clip import dense, norm
from .rules import Rule, prefixed, rule
from .transforms import (
    biases_of,
    class_token_and_positions,
    conv_patches,
    fused_bias,
    fused_kernel,
    kernels_of,
    reshaped,
)

SUMMED = "visual.trunk.stem.0.reparam_conv.weight"
"""A tensor of FastViT in the form with the sums of its branches."""
_B = {"width": 768, "depth": 12, "heads": 12}
_L = {"width": 1024, "depth": 24, "heads": 16}
_SO400M = {"width": 1152, "depth": 27, "heads": 16, "mlp_ratio": 3.7362}
_G_OPT = {"width": 1536, "depth": 40, "heads": 16}
_EXACT, _TANH = {"activation": "gelu_exact"}, {"activation": "gelu"}

SIGLIP: dict[str, dict[str, Any]] = {
    **{f"vit_base_patch16_siglip_{size}": {"patch": 16, **_B, **_EXACT} for size in (224, 256, 384, 512)},
    "vit_base_patch32_siglip_256": {"patch": 32, **_B, **_TANH},
    **{f"vit_large_patch16_siglip_{size}": {"patch": 16, **_L, **_EXACT} for size in (256, 384)},
    "vit_large_patch16_siglip_512": {"patch": 16, **_L, **_TANH},
    **{f"vit_so400m_patch14_siglip_{size}": {"patch": 14, **_SO400M, **_EXACT} for size in (224, 378, 384)},
    **{f"vit_so400m_patch16_siglip_{size}": {"patch": 16, **_SO400M, **_TANH} for size in (256, 384, 512)},
    **{f"vit_giantopt_patch16_siglip_{size}": {"patch": 16, **_G_OPT, **_TANH} for size in (256, 384)},
}
"""timm's name -> sizes (timm 1.0, models/vision_transformer.py; So400m: Alabdulmohsin et al. 2023)."""

PE_CORE: dict[str, dict[str, Any]] = {
    "vit_pe_core_tiny_patch16_384": {"patch": 16, "width": 192, "depth": 12, "heads": 3},
    "vit_pe_core_small_patch16_384": {"patch": 16, "width": 384, "depth": 12, "heads": 6},
    "vit_pe_core_base_patch16_224": {"patch": 16, **_B},
    "vit_pe_core_large_patch14_336": {"patch": 14, **_L},
    "vit_pe_core_gigantic_patch14_448": {
        **{"patch": 14, "width": 1536, "depth": 50, "heads": 16, "mlp_ratio": 8960 / 1536},
        **{"class_token": False, "rotary_start": 0},
    },
}
"""timm's name -> sizes (timm 1.0, models/eva.py; Bolya et al. 2025, table 1)."""
_PE_FORM = {
    **{"activation": "gelu_exact", "class_token": True, "pre_norm": True, "patch_bias": False, "pool": "attention"},
    **{"pool_heads": 8, "pool_mlp_ratio": 4.0, "rotary_start": 1, "position_method": "bilinear"},
    "block": {"norm_epsilon": 1e-5, "rotary": "interleaved"},
}


def timm_image(
    vision: dict[str, Any], *, embed_dim: int, summed: bool = False, source: str
) -> tuple[dict[str, Any], list[Rule]]:
    """Return the arguments of our image tower and the rules of its tensors.

    Args:
      vision: `vision_cfg`; `timm_model_kwargs`, if there, change the sizes.
      embed_dim: E.
      summed: a FastViT tower is in the form with the sums of its branches, see `fastvit`.
      source: for errors.

    Raises:
      UserError: a model of timm that twinreel does not have, or settings of its head that it does not know.
    """
    name = vision["timm_model_name"]
    pools = {"map": (*SIGLIP, *PE_CORE), "token": tuple(timm_token.MODELS), "avg": tuple(fastvit.MODELS)}
    known = {model: pool for pool, models in pools.items() for model in models}
    if name not in known:
        raise unknown(f"image tower of timm in {source}:", name, known)
    pool, changes = vision.get("timm_pool"), dict(vision.get("timm_model_kwargs") or {})
    if pool != known[name]:
        raise UserError(f"{source}: vision_cfg.timm_pool={pool!r}, wanted {known[name]!r} for {name}")
    if name in SIGLIP:
        sizes = SIGLIP[name] | changes | {"image_size": vision.get("image_size", 224)}
        return _siglip(sizes, embed_dim=embed_dim, projection=vision.get("timm_proj"), source=source)
    if vision.get("timm_proj"):
        raise UserError(
            f"{source}: vision_cfg.timm_proj={vision['timm_proj']!r}, and the head of {name} is its projection (null)"
        )
    if name in fastvit.MODELS:
        return fastvit.fastvit_image(name, changes=changes, embed_dim=embed_dim, inference=summed)
    changes["image_size"] = vision.get("image_size", 224)
    if name in PE_CORE:
        return _pe_core(PE_CORE[name] | changes, embed_dim=embed_dim)
    return timm_token.token_image(name, changes=changes, embed_dim=embed_dim)


def _siglip(sizes: dict[str, Any], *, embed_dim: int, projection: str | None, source: str) -> tuple[Any, list[Rule]]:
    if projection != "none" or sizes["width"] != embed_dim:
        raise UserError(
            f"{source}: vision_cfg.timm_proj={projection!r} with width {sizes['width']} and embed_dim {embed_dim}; "
            "SigLIP has no projection (timm_proj='none') and the same width"
        )
    arguments = {"pool": "attention", "position_antialias": True, "block": {"norm_epsilon": 1e-6}, **sizes}
    own = [
        rule("pos_embed", "space_position", reshaped(tensor=(1, -1, sizes["width"]), parameter=(-1, sizes["width"]))),
        *_trunk(sizes, width=sizes["width"], patch_bias=True),
    ]
    return arguments, prefixed(own, source="visual.trunk.", path="video/image/")


def _pe_core(sizes: dict[str, Any], *, embed_dim: int) -> tuple[dict[str, Any], list[Rule]]:
    arguments = {**_PE_FORM, "projection": embed_dim, **sizes}
    # timm's head is a Linear with a bias, which is zero in PE-core.
    arguments["projection_bias"] = True
    width = sizes["width"]
    positions = rule("pos_embed", "space_position", reshaped(tensor=(1, -1, width), parameter=(-1, width)))
    if arguments["class_token"]:
        positions = rule(
            ["cls_token", "pos_embed"], ["class_token", "space_position"], class_token_and_positions(batched=True)
        )
    own = [
        positions,
        *norm("norm_pre", "pre_norm"),
        *_trunk(sizes, width=width, patch_bias=False),
        *dense("head", "projection"),
    ]
    return arguments, prefixed(own, source="visual.trunk.", path="video/image/")


def _trunk(sizes: dict[str, Any], *, width: int, patch_bias: bool) -> list[Rule]:
    heads = sizes["heads"]
    layers = [
        rule("attn.qkv.weight", "attention/qkv/kernel", fused_kernel(heads=heads)),
        rule("attn.qkv.bias", "attention/qkv/bias", fused_bias(heads=heads)),
        *dense("attn.proj", "attention/out"),
        *(*norm("norm1", "norm1"), *norm("norm2", "norm2")),
        *(*dense("mlp.fc1", "up"), *dense("mlp.fc2", "down")),
    ]
    pool = [
        rule("latent", "query", reshaped(tensor=(1, 1, width), parameter=(1, width))),
        *dense("q", "attention/query"),
        rule("kv.weight", ["attention/key/kernel", "attention/value/kernel"], kernels_of(2)),
        rule("kv.bias", ["attention/key/bias", "attention/value/bias"], biases_of(2)),
        *dense("proj", "attention/out"),
        *norm("norm", "norm_mlp"),
        *(*dense("mlp.fc1", "mlp/up"), *dense("mlp.fc2", "mlp/down")),
    ]
    patches = [rule("patch_embed.proj.weight", "embed/out/kernel", conv_patches(patch=sizes["patch"]))]
    if patch_bias:
        patches.append(rule("patch_embed.proj.bias", "embed/out/bias"))
    return [
        *patches,
        *prefixed(layers, source="blocks.#.", path="blocks/layers/"),
        *norm("norm", "blocks/norm"),
        *prefixed(pool, source="attn_pool.", path="pooler/"),
    ]
