"""CLIP as open_clip writes it: its own image towers and those of timm (Cherti et al. 2023; SigLIP, PE-core).

A folder holds open_clip_config.json and open_clip_model.safetensors. What the config may ask for and twinreel does not
have (ConvNeXt, CoCa, text towers of transformers) is an error that names it.
"""

import dataclasses
from typing import Any

from ...base.errors import UserError
from ...data.options import InputSpec
from ...data.text.hf import HfTokenizer
from ..spec import ModelSpec
from . import clip_resnet
from .clip import MEAN, STD, dense, norm
from .convolutions import STATISTICS_COUNTED
from .family import Conversion, Family, choice, number
from .files import SourceFiles
from .open_clip_timm import SUMMED, timm_image
from .rules import Rule, prefixed, rule
from .transforms import class_token_and_positions, conv_patches, fused_bias, fused_kernel

CONFIG = "open_clip_config.json"
_PLAIN: dict[str, Any] = {
    "attentional_pool": False,
    "no_ln_pre": False,
    "pos_embed_type": "learnable",
    "final_ln_after_pool": False,
    "pool_type": "tok",
    "qk_norm": False,
    "scaled_cosine_attn": False,
    "scale_heads": False,
    "scale_attn_inner": False,
    "scale_attn": False,
    "scale_fc": False,
    "ls_init_value": None,
}
"""Settings of open_clip's vision transformer that must have these values."""
_METHODS = {"bicubic": "bicubic", "bilinear": "bilinear", "random": "bicubic"}
_BUFFERS = (r"(text\.)?attn_mask", STATISTICS_COUNTED)
_PLAIN_TEXT: dict[str, Any] = {
    "hf_model_name": None,
    "embed_cls": False,
    "final_ln_after_pool": False,
    "proj_type": "linear",
    "qk_norm": False,
    "scaled_cosine_attn": False,
    "scale_heads": False,
    "scale_attn_inner": False,
    "scale_attn": False,
    "scale_fc": False,
    "ls_init_value": None,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tower:
    """One tower of a public model.

    Attributes:
      arguments: of our tower.
      rules: of its tensors.
    """

    arguments: dict[str, Any]
    rules: list[Rule]


def stack(*, heads: int) -> list[Rule]:
    """Return the rules of a stack of OpenAI's layers, `transformer.resblocks.#.` -> `blocks/layers/`."""
    own = [
        rule("attn.in_proj_weight", "attention/qkv/kernel", fused_kernel(heads=heads)),
        rule("attn.in_proj_bias", "attention/qkv/bias", fused_bias(heads=heads)),
        *dense("attn.out_proj", "attention/out"),
        *(*norm("ln_1", "norm1"), *norm("ln_2", "norm2")),
        *(*dense("mlp.c_fc", "up"), *dense("mlp.c_proj", "down")),
    ]
    return prefixed(own, source="transformer.resblocks.#.", path="blocks/layers/")


def text_rules(*, heads: int, projection_bias: bool = False) -> list[Rule]:
    """Return the rules of OpenAI's text tower; its projection is a bare matrix unless it has a bias."""
    projection = [rule("text_projection", "text_projection/kernel")]
    if projection_bias:
        projection = dense("text_projection", "text_projection")
    return [
        rule("token_embedding.weight", "text/embedding"),
        rule("positional_embedding", "text/position"),
        *prefixed(stack(heads=heads), path="text/"),
        *norm("ln_final", "text/blocks/norm"),
        *projection,
    ]


def _conversion(files: SourceFiles) -> Conversion:
    config = files.json(CONFIG)
    model, name = number(config, "model_cfg", source=files.name), files.name
    text = number(model, "text_cfg", source=name)
    if "multimodal_cfg" in model:
        raise UserError(f"{name} is a CoCa model (multimodal_cfg), which twinreel does not read")
    summed = SUMMED in files.tensors
    image, words = _towers(model, summed=summed, source=name)
    start: dict[str, Any] = {}
    if model.get("init_logit_bias") is not None:
        start = {"initial_scale": 10.0, "initial_bias": float(model["init_logit_bias"])}
    length = number(text, "context_length", default=77, source=name)
    spec = ModelSpec(
        towers={
            "video": {"family": "frames", "image": image.arguments},
            "text": {"family": "transformer", **words.arguments},
        },
        projections={"video": "none", "text": "affine" if text.get("proj_bias") else "linear"},
        embed_dim=number(model, "embed_dim", source=name),
        input=_input(config, text=text, size=_size(model, source=name), length=length, source=name),
        tokenizer=_tokenizer(files, text=text, padding_seen=words.arguments["padding_seen"]),
        **start,
    )
    return Conversion(spec=spec, rules=rules(model, summed=summed, source=name), ignored=_BUFFERS)


def _tokenizer(files: SourceFiles, *, text: dict[str, Any], padding_seen: bool) -> dict[str, Any]:
    """Return the tokenizer's meta, {} if the folder has none.

    Where the config names no tokenizer of the Hub, open_clip takes its own of CLIP, which pads with id 0 and not with
    the end token. Only a text tower that sees padding (MobileCLIP-S) can tell.
    """
    meta = files.tokenizer()
    own = meta.get("kind") == HfTokenizer.KIND and not text.get("hf_tokenizer_name")
    return meta | {"pad_id": 0} if own and padding_seen else meta


def rules(model: dict[str, Any], *, summed: bool = False, source: str) -> list[Rule]:
    """Return the table of a model; import and export read it.

    Args:
      model: `model_cfg`.
      summed: a FastViT image tower is in the form with the sums of its branches, see `fastvit`.
      source: for errors.

    Raises:
      UserError: a model that twinreel does not have.
    """
    image, words = _towers(model, summed=summed, source=source)
    logits = [rule("logit_scale", "log_scale")]
    if model.get("init_logit_bias") is not None:
        logits.append(rule("logit_bias", "bias"))
    return [*image.rules, *words.rules, *logits]


def _size(model: dict[str, Any], *, source: str) -> int:
    return number(model["vision_cfg"], "image_size", default=224, source=source)


def _towers(model: dict[str, Any], *, summed: bool, source: str) -> tuple[Tower, Tower]:
    vision, text = number(model, "vision_cfg", source=source), number(model, "text_cfg", source=source)
    embed_dim = number(model, "embed_dim", source=source)
    quick = bool(model.get("quick_gelu", False))
    if vision.get("timm_model_name"):
        arguments, table = timm_image(vision, embed_dim=embed_dim, summed=summed, source=source)
        image = Tower(arguments=arguments, rules=table)
    else:
        image = _image(vision, embed_dim=embed_dim, quick=quick, source=source)
    return image, _text(text, quick=quick, custom=bool(model.get("custom_text", False)), source=source)


def _image(vision: dict[str, Any], *, embed_dim: int, quick: bool, source: str) -> Tower:
    _refuse(vision, plain=_PLAIN, where="vision_cfg", source=source)
    depth = number(vision, "layers", default=12, source=source)
    if not isinstance(depth, int):
        image = clip_resnet.image(vision, embed_dim=embed_dim, source=source)
        rules = prefixed(clip_resnet.table(image=image), source="visual.", path="video/image/")
        return Tower(arguments=image, rules=rules)
    width = number(vision, "width", default=768, source=source)
    heads = width // number(vision, "head_width", default=64, source=source)
    patch = number(vision, "patch_size", default=16, source=source)
    arguments = {
        "image_size": number(vision, "image_size", default=224, source=source),
        "patch": patch,
        "patch_bias": False,
        "width": width,
        "depth": depth,
        "heads": heads,
        "mlp_ratio": number(vision, "mlp_ratio", default=4.0, source=source),
        "activation": _activation(vision, quick=quick, source=source),
        "block": {"norm_epsilon": _epsilon(vision)},
        "class_token": True,
        "pre_norm": True,
        "position_antialias": True,
        "pool": "cls",
        "projection": embed_dim,
    }
    own = [
        rule(
            ["class_embedding", "positional_embedding"], ["class_token", "space_position"], class_token_and_positions()
        ),
        rule("conv1.weight", "embed/out/kernel", conv_patches(patch=patch)),
        *(*norm("ln_pre", "pre_norm"), *stack(heads=heads), *norm("ln_post", "blocks/norm")),
        rule("proj", "projection/kernel"),
    ]
    return Tower(arguments=arguments, rules=prefixed(own, source="visual.", path="video/image/"))


def _text(text: dict[str, Any], *, quick: bool, custom: bool, source: str) -> Tower:
    _refuse(text, plain=_PLAIN_TEXT, where="text_cfg", source=source)
    heads, pool = number(text, "heads", default=8, source=source), text.get("pool_type", "argmax")
    if pool not in ("argmax", "last", "eos", "first"):
        raise UserError(f"{source}: text_cfg.pool_type={pool!r} is not known; wanted argmax, last, eos or first")
    causal = not text.get("no_causal_mask", False)
    arguments = {
        "vocab_size": number(text, "vocab_size", default=49408, source=source),
        "width": number(text, "width", default=512, source=source),
        "depth": number(text, "layers", default=12, source=source),
        "heads": heads,
        "mlp_ratio": number(text, "mlp_ratio", default=4.0, source=source),
        "activation": _activation(text, quick=quick, source=source),
        "block": {"norm_epsilon": _epsilon(text)},
        "causal": causal,
        "pool": {"argmax": "eos", "first": "cls"}.get(pool, pool),
        "eos_id": text.get("eos_id", 2) if pool == "eos" else None,
        "padding_seen": not causal,
    }
    table = text_rules(heads=heads, projection_bias=bool(text.get("proj_bias")))
    return Tower(arguments=arguments, rules=prefixed(table, source="text." if custom else ""))


def _refuse(config: dict[str, Any], *, plain: dict[str, Any], where: str, source: str) -> None:
    for key, value in plain.items():
        if config.get(key, value) != value:
            raise UserError(f"{source}: {where}.{key}={config[key]!r}, and twinreel knows {value!r} alone there")


def _activation(config: dict[str, Any], *, quick: bool, source: str) -> str:
    given = dict(config.get("act_kwargs") or {})
    form = given.pop("approximate", "none")
    if given or form not in ("none", "tanh") or (quick and form != "none"):
        raise UserError(f"{source}: act_kwargs={config['act_kwargs']!r} is not known; wanted {{'approximate': 'tanh'}}")
    return "quick_gelu" if quick else {"none": "gelu_exact", "tanh": "gelu"}[form]


def _epsilon(config: dict[str, Any]) -> float:
    return float((config.get("norm_kwargs") or {}).get("eps", 1e-5))


def _input(config: dict[str, Any], *, text: dict[str, Any], size: int, length: int, source: str) -> InputSpec:
    pixels = config.get("preprocess_cfg") or {}
    method = _setting(pixels, "interpolation", known=_METHODS, source=source)
    squash = _setting(pixels, "resize_mode", known={"shortest": False, "squash": True}, source=source)
    stated = pixels.get("size", size)
    sides = set(stated[-2:] if isinstance(stated, list) else [stated])
    if sides != {size}:
        raise UserError(
            f"{source}: preprocess_cfg.size={stated!r} and vision_cfg.image_size={size} contradict each other; the "
            "config is not that of one model"
        )
    resize = f"resize_{method}({size},{size})"
    if not squash:
        resize = f"resize_short_{method}({size})|center_crop_torchvision({size})"
    cleaning = (text.get("tokenizer_kwargs") or {}).get("clean", "lower")
    return InputSpec(
        num_frames=8,
        eval_video=resize,
        pixel_mean=_colours(pixels.get("mean") or MEAN),
        pixel_std=_colours(pixels.get("std") or STD),
        text="canonicalize" if cleaning == "canonicalize" else "",
        context_length=length,
    )


def _setting(pixels: dict[str, Any], key: str, *, known: dict[str, Any], source: str) -> Any:
    """Return what a setting of `preprocess_cfg` means; the first known value is open_clip's default."""
    return choice(pixels.get(key) or next(iter(known)), known=known, key=f"preprocess_cfg.{key}", source=source)


def _colours(value: Any) -> tuple[float, float, float]:
    one, two, three = (value,) * 3 if isinstance(value, int | float) else value
    return float(one), float(two), float(three)


FAMILY = Family(
    name="open_clip",
    models=(
        "laion/CLIP-ViT-*, timm/vit_*_clip_*, timm/resnet{50,101,50x4,50x16,50x64}_clip.*",
        "timm/ViT-*-SigLIP*, timm/ViT-*-SigLIP2*",
        "timm/PE-Core-{T-16-384,S-16-384,B-16,L-14-336,bigG-14-448}",
        "timm/MobileCLIP2-{S0,S2,S3,S4,B,L-14}-OpenCLIP, apple/MobileCLIP-{S1,S2,B}-OpenCLIP",
        "timm/eva02_{base_patch16,large_patch14}_clip_*, timm/eva_giant_patch14_clip_224.*",
        "OpenAI's and others' as open_clip stores them",
    ),
    licence="MIT (code); see the model's page for its weights",
    matches=lambda files: files.has(CONFIG),
    conversion=_conversion,
)
