"""SigLIP and SigLIP 2 of fixed resolution as transformers writes them (Zhai et al. 2023; Tschannen et al. 2025)."""

from typing import Any

from ...base.errors import UserError
from ...data.options import InputSpec
from ..spec import ModelSpec
from .clip import dense, layers, norm, sizes
from .family import Conversion, Family, number
from .files import SourceFiles
from .rules import Rule, prefixed, rule
from .transforms import biases_of, conv_patches, kernels_of, reshaped

_HALF = (0.5, 0.5, 0.5)
_GEMMA = 256_000  # entries of SigLIP 2's vocabulary; SigLIP's has 32,000
_DEFAULTS = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
}
"""Of both towers: what transformers takes where the config of a published model says nothing."""


def _conversion(files: SourceFiles) -> Conversion:
    vision, text = (
        _DEFAULTS | number(files.config, f"{side}_config", source=files.name) for side in ("vision", "text")
    )
    if not vision.get("vision_use_head", True):
        raise UserError(f"{files.name} has no pooling head (vision_use_head=false): it has no embedding of a picture")
    image = sizes(vision, source=files.name) | {
        "image_size": number(vision, "image_size", default=224, source=files.name),
        "patch": number(vision, "patch_size", default=16, source=files.name),
        "pool": "attention",
    }
    length = number(text, "max_position_embeddings", default=64, source=files.name)
    vocabulary = number(text, "vocab_size", default=32_000, source=files.name)
    words = sizes(text, source=files.name) | {"vocab_size": vocabulary, "pool": "last", "padding_seen": True}
    embed_dim = number(text, "projection_size", default=text["hidden_size"], source=files.name)
    if embed_dim != image["width"]:
        raise UserError(
            f"{files.name}: text vectors of width {embed_dim} (projection_size) and picture vectors of width "
            f"{image['width']} (hidden_size) have no common space; the config is not that of a SigLIP model"
        )
    spec = ModelSpec(
        towers={"video": {"family": "frames", "image": image}, "text": {"family": "transformer", **words}},
        projections={"video": "none", "text": "affine"},
        embed_dim=embed_dim,
        initial_scale=10.0,
        initial_bias=-10.0,
        input=_input(files, size=image["image_size"], length=length, vocabulary=vocabulary),
        tokenizer=files.tokenizer(),
    )
    return Conversion(spec=spec, rules=table(image=image, text=words), ignored=(r".*\.position_ids",))


def table(*, image: dict[str, Any], text: dict[str, Any]) -> list[Rule]:
    """Return the table of a model with these towers; import and export read it."""
    vision = [
        rule("embeddings.patch_embedding.weight", "embed/out/kernel", conv_patches(patch=image["patch"])),
        rule("embeddings.patch_embedding.bias", "embed/out/bias"),
        rule("embeddings.position_embedding.weight", "space_position"),
        *prefixed(layers(heads=image["heads"]), source="encoder.", path="blocks/"),
        *norm("post_layernorm", "blocks/norm"),
        *prefixed(_pooling_head(width=image["width"]), source="head.", path="pooler/"),
    ]
    words = [
        rule("embeddings.token_embedding.weight", "embedding"),
        rule("embeddings.position_embedding.weight", "position"),
        *prefixed(layers(heads=text["heads"]), source="encoder.", path="blocks/"),
        *norm("final_layer_norm", "blocks/norm"),
    ]
    return [
        *prefixed(vision, source="vision_model.", path="video/image/"),
        *prefixed(words, source="text_model.", path="text/"),
        *dense("text_model.head", "text_projection"),
        rule("logit_scale", "log_scale", reshaped(tensor=(1,), parameter=())),
        rule("logit_bias", "bias", reshaped(tensor=(1,), parameter=())),
    ]


def _pooling_head(*, width: int) -> list[Rule]:
    sides = ("query", "key", "value")
    return [
        rule("probe", "query", reshaped(tensor=(1, 1, width), parameter=(1, width))),
        rule("attention.in_proj_weight", [f"attention/{side}/kernel" for side in sides], kernels_of(3)),
        rule("attention.in_proj_bias", [f"attention/{side}/bias" for side in sides], biases_of(3)),
        *dense("attention.out_proj", "attention/out"),
        *norm("layernorm", "norm_mlp"),
        *(*dense("mlp.fc1", "mlp/up"), *dense("mlp.fc2", "mlp/down")),
    ]


def _input(files: SourceFiles, *, size: int, length: int, vocabulary: int) -> InputSpec:
    pixels = files.json("preprocessor_config.json")
    return InputSpec(
        num_frames=8,
        eval_video=f"resize_bicubic({size},{size})",
        pixel_mean=tuple(pixels.get("image_mean", _HALF)),
        pixel_std=tuple(pixels.get("image_std", _HALF)),
        text="lower" if vocabulary >= _GEMMA else "canonicalize",
        context_length=length,
    )


FAMILY = Family(
    name="siglip",
    models=("google/siglip-{base-patch16-*,large-patch16-*,so400m-patch14-*}", "google/siglip2-* (not naflex)"),
    licence="Apache-2.0",
    matches=lambda files: files.config.get("model_type") == "siglip",
    conversion=_conversion,
)
