"""ViT as Hugging Face's transformers writes it (Dosovitskiy et al. 2021), as a video tower of single frames."""

from typing import Any

from ...data.options import InputSpec
from ..spec import ModelSpec
from .clip import norm
from .family import ACTIVATIONS, Conversion, Family, choice, number
from .files import SourceFiles
from .hf import beginning, layer_sizes, vit_layers
from .processor import PixelDefaults, pixel_fields
from .rules import Rule, prefixed, rule
from .transforms import class_token_and_positions, conv_patches

_IGNORED = (r"(.*\.)?pooler\..*", r"classifier\..*", r"decoder\..*", r"(.*\.)?embeddings\.mask_token")
"""Heads, and what only masked training uses: the vector of a picture is its class token after the last norm."""


def _conversion(files: SourceFiles) -> Conversion:
    config, name = files.config, files.name
    act = choice(number(config, "hidden_act", source=name), known=ACTIVATIONS, key="hidden_act", source=name)
    image = layer_sizes(config, source=name) | {
        "image_size": number(config, "image_size", source=name),
        "patch": number(config, "patch_size", source=name),
        "activation": act,
        "class_token": True,
        "pool": "cls",
        "block": {
            "mlp_hidden": number(config, "intermediate_size", source=name),
            "norm_epsilon": number(config, "layer_norm_eps", default=1e-12, source=name),
            "qkv_bias": bool(config.get("qkv_bias", True)),
        },
    }
    pixels = pixel_fields(files, defaults=PixelDefaults(size=image["image_size"], method="bilinear"))
    spec = ModelSpec(towers={"video": {"family": "frames", "image": image}}, input=InputSpec(num_frames=8, **pixels))
    start = beginning(files, models=("vit",), marker="embeddings.cls_token")
    return Conversion(spec=spec, rules=table(image=image, start=start), ignored=_IGNORED)


def table(*, image: dict[str, Any], start: str = "") -> list[Rule]:
    """Return the table of an image encoder; import and export read it.

    Args:
      image: arguments of our image tower.
      start: what all names of tensors begin with, "vit." in models with a head.
    """
    rules = [
        *embeddings(patch=image["patch"]),
        *prefixed(vit_layers(heads=image["heads"], bias=image["block"]["qkv_bias"]), source="encoder.", path="blocks/"),
        *norm("layernorm", "blocks/norm"),
    ]
    return prefixed(rules, source=start, path="video/image/")


def embeddings(*, patch: int) -> list[Rule]:
    """Return the rules of patches, class token and positions, of ViT and DINOv2."""
    return [
        rule(
            ["embeddings.cls_token", "embeddings.position_embeddings"],
            ["class_token", "space_position"],
            class_token_and_positions(batched=True),
        ),
        rule("embeddings.patch_embeddings.projection.weight", "embed/out/kernel", conv_patches(patch=patch)),
        rule("embeddings.patch_embeddings.projection.bias", "embed/out/bias"),
    ]


FAMILY = Family(
    name="vit",
    models=("google/vit-{base,large,huge}-patch*", "facebook/dino-vit*"),
    licence="Apache-2.0",
    matches=lambda files: files.config.get("model_type") == "vit",
    conversion=_conversion,
)
