"""CLIP as Hugging Face's transformers writes it (Radford et al. 2021; openai/clip-*, laion/CLIP-*)."""

from typing import Any

from ...data.options import InputSpec
from ..spec import ModelSpec
from .family import ACTIVATIONS, Conversion, Family, choice, number
from .files import SourceFiles
from .processor import PixelDefaults, pixel_fields
from .rules import Rule, prefixed, rule
from .transforms import (
    TRANSPOSED,
    class_token_and_positions,
    conv_patches,
    separate_biases,
    separate_kernels,
)

MEAN = (0.48145466, 0.4578275, 0.40821073)
"""Of red, green and blue in CLIP's training pictures, scale 0..1."""
STD = (0.26862954, 0.26130258, 0.27577711)


def dense(source: str, path: str) -> list[Rule]:
    """Return the rules of PyTorch's Linear."""
    return [rule(f"{source}.weight", f"{path}/kernel", TRANSPOSED), rule(f"{source}.bias", f"{path}/bias")]


def norm(source: str, path: str) -> list[Rule]:
    """Return the rules of PyTorch's LayerNorm."""
    return [rule(f"{source}.weight", f"{path}/scale"), rule(f"{source}.bias", f"{path}/bias")]


def layers(*, heads: int) -> list[Rule]:
    """Return the rules of one stack of CLIP's and SigLIP's layers in transformers, `layers.#.` -> `layers/`."""
    names = [f"self_attn.{side}_proj" for side in "qkv"]
    own = [
        rule([f"{name}.weight" for name in names], "attention/qkv/kernel", separate_kernels(heads=heads)),
        rule([f"{name}.bias" for name in names], "attention/qkv/bias", separate_biases(heads=heads)),
        *dense("self_attn.out_proj", "attention/out"),
        *(*norm("layer_norm1", "norm1"), *norm("layer_norm2", "norm2")),
        *(*dense("mlp.fc1", "up"), *dense("mlp.fc2", "down")),
    ]
    return prefixed(own, source="layers.#.", path="layers/")


def _conversion(files: SourceFiles) -> Conversion:
    config, name = files.config, files.name
    vision, text = (number(config, f"{side}_config", source=name) for side in ("vision", "text"))
    embed_dim = number(config, "projection_dim", default=512, source=name)
    image = sizes(vision, source=name) | {
        "image_size": number(vision, "image_size", default=224, source=name),
        "patch": number(vision, "patch_size", default=32, source=name),
        "patch_bias": False,
        "class_token": True,
        "pre_norm": True,
        "pool": "cls",
        "projection": embed_dim,
    }
    length = number(text, "max_position_embeddings", default=77, source=name)
    eos = number(text, "eos_token_id", default=49407, source=name)
    words = sizes(text, source=name) | {
        "vocab_size": number(text, "vocab_size", default=49408, source=name),
        "causal": True,
        "pool": "eos",
        "eos_id": None if eos == 2 else eos,  # as transformers reads configs from before it knew the token
    }
    spec = ModelSpec(
        towers={
            "video": {"family": "frames", "image": image},
            "text": {"family": "transformer", **words},
        },
        projections={"video": "none"},
        embed_dim=embed_dim,
        input=_input(files, size=image["image_size"], length=length),
        tokenizer=files.tokenizer(),
    )
    return Conversion(spec=spec, rules=table(image=image, text=words), ignored=(r".*\.position_ids",))


def table(*, image: dict[str, Any], text: dict[str, Any]) -> list[Rule]:
    """Return the table of a model with these towers; import and export read it."""
    vision = [
        rule(
            ["embeddings.class_embedding", "embeddings.position_embedding.weight"],
            ["class_token", "space_position"],
            class_token_and_positions(),
        ),
        rule("embeddings.patch_embedding.weight", "embed/out/kernel", conv_patches(patch=image["patch"])),
        *norm("pre_layrnorm", "pre_norm"),
        *prefixed(layers(heads=image["heads"]), source="encoder.", path="blocks/"),
        *norm("post_layernorm", "blocks/norm"),
    ]
    words = [
        rule("embeddings.token_embedding.weight", "embedding"),
        rule("embeddings.position_embedding.weight", "position"),
        *prefixed(layers(heads=text["heads"]), source="encoder.", path="blocks/"),
        *norm("final_layer_norm", "blocks/norm"),
    ]
    return [
        *prefixed(vision, source="vision_model.", path="video/image/"),
        rule("visual_projection.weight", "video/image/projection/kernel", TRANSPOSED),
        *prefixed(words, source="text_model.", path="text/"),
        rule("text_projection.weight", "text_projection/kernel", TRANSPOSED),
        rule("logit_scale", "log_scale"),
    ]


def sizes(config: dict[str, Any], *, source: str) -> dict[str, Any]:
    """Return the arguments that image and text towers share, from the config of either."""
    return {
        "width": number(config, "hidden_size", source=source),
        "depth": number(config, "num_hidden_layers", source=source),
        "heads": number(config, "num_attention_heads", source=source),
        "activation": choice(
            number(config, "hidden_act", default="quick_gelu", source=source),
            known=ACTIVATIONS,
            key="hidden_act",
            source=source,
        ),
        "block": {
            "mlp_hidden": number(config, "intermediate_size", source=source),
            "norm_epsilon": number(config, "layer_norm_eps", default=1e-5, source=source),
        },
    }


def _input(files: SourceFiles, *, size: int, length: int) -> InputSpec:
    pixels = pixel_fields(files, defaults=PixelDefaults(size=size, short=size, mean=MEAN, std=STD))
    return InputSpec(num_frames=8, **pixels, context_length=length)


FAMILY = Family(
    name="clip",
    models=("openai/clip-vit-{base-patch32,base-patch16,large-patch14,large-patch14-336}", "laion/CLIP-ViT-*"),
    licence="MIT",
    matches=lambda files: files.config.get("model_type") == "clip",
    conversion=_conversion,
)
