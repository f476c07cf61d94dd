"""DINOv2 as Hugging Face's transformers writes it, with and without registers, as a video tower of single frames.

Sources: Oquab et al. 2023; Darcet et al. 2024 (registers).
"""

from typing import Any

from ...data.options import InputSpec
from ..spec import ModelSpec
from .clip import dense, norm
from .family import ACTIVATIONS, Conversion, Family, choice, number
from .files import SourceFiles
from .hf import beginning, bert_attention, layer_sizes
from .processor import PixelDefaults, pixel_fields
from .rules import Rule, prefixed, rule
from .transforms import biases_of, kernels_of, reshaped
from .viclip import IMAGENET_MEAN, IMAGENET_STD
from .vit import embeddings

_KINDS = {"dinov2": False, "dinov2_with_registers": True}
"""`model_type` -> whether positions are interpolated with an antialiasing filter, as its code does."""
_IGNORED = (r"classifier\..*", r"(.*\.)?embeddings\.mask_token")


def _conversion(files: SourceFiles) -> Conversion:
    config, name = files.config, files.name
    antialias = _KINDS[config["model_type"]]
    gated = bool(config.get("use_swiglu_ffn"))
    act = choice(number(config, "hidden_act", source=name), known=ACTIVATIONS, key="hidden_act", source=name)
    sizes = layer_sizes(config, source=name)
    hidden = int(sizes["width"] * number(config, "mlp_ratio", default=4, source=name))
    image = sizes | {
        "image_size": number(config, "image_size", source=name),
        "patch": number(config, "patch_size", source=name),
        "activation": "swiglu" if gated else act,
        "class_token": True,
        "registers": number(config, "num_register_tokens", default=4, source=name) if antialias else 0,
        "position_antialias": antialias,
        "pool": "cls",
        "block": {
            "mlp_hidden": (int(hidden * 2 / 3) + 7) // 8 * 8 if gated else hidden,
            "norm_epsilon": number(config, "layer_norm_eps", default=1e-6, source=name),
            "qkv_bias": bool(config.get("qkv_bias", True)),
            "layer_scale": number(config, "layerscale_value", default=1.0, source=name),
        },
    }
    # The published sizes differ: positions of 518 pixels, pictures of 224.
    defaults = PixelDefaults(size=image["image_size"], mean=IMAGENET_MEAN, std=IMAGENET_STD, strict=False)
    pixels = pixel_fields(files, defaults=defaults)
    spec = ModelSpec(
        towers={"video": {"family": "frames", "image": image}},
        input=InputSpec(num_frames=8, **pixels),
    )
    start = beginning(files, models=tuple(_KINDS), marker="embeddings.cls_token")
    return Conversion(spec=spec, rules=table(image=image, start=start), ignored=_IGNORED)


def table(*, image: dict[str, Any], start: str = "") -> list[Rule]:
    """Return the table of an image encoder; import and export read it.

    Args:
      image: arguments of our image tower.
      start: what all names of tensors begin with, "dinov2." in models with a head.
    """
    if image["activation"] == "swiglu":
        mlp = [
            rule("mlp.weights_in.weight", ["gate/kernel", "up/kernel"], kernels_of(2)),
            rule("mlp.weights_in.bias", ["gate/bias", "up/bias"], biases_of(2)),
            *dense("mlp.weights_out", "down"),
        ]
    else:
        mlp = [*dense("mlp.fc1", "up"), *dense("mlp.fc2", "down")]
    heads, bias = image["heads"], image["block"]["qkv_bias"]
    layer = [
        *bert_attention(heads=heads, inner="attention.attention", outer="attention.output.dense", bias=bias),
        *(*norm("norm1", "norm1"), *norm("norm2", "norm2"), *mlp),
        *(rule(f"layer_scale{number}.lambda1", f"scale{number}") for number in (1, 2)),
    ]
    tokens = reshaped(tensor=(1, image["registers"], image["width"]), parameter=(image["registers"], image["width"]))
    rules = [
        *embeddings(patch=image["patch"]),
        *([rule("embeddings.register_tokens", "registers", tokens)] if image["registers"] else []),
        *prefixed(layer, source="encoder.layer.#.", path="blocks/layers/"),
        *norm("layernorm", "blocks/norm"),
    ]
    return prefixed(rules, source=start, path="video/image/")


FAMILY = Family(
    name="dinov2",
    models=("facebook/dinov2-{small,base,large,giant}", "facebook/dinov2-with-registers-*"),
    licence="Apache-2.0",
    matches=lambda files: files.config.get("model_type") in _KINDS,
    conversion=_conversion,
)
