"""SigLIP and SigLIP 2 as transformers writes them (Zhai et al. 2023; Tschannen et al. 2025).

The NaFlex form of SigLIP 2 takes pictures of any aspect ratio, cut into at most `max_num_patches` patches. They reach
its tower as a sequence of patches with their grid (`data.transforms.naflex`), so that clips of several aspect ratios
share a batch; frames of one size are taken as by any other tower.
"""

from typing import Any

from ...base.errors import UserError
from ...data.options import InputSpec
from ..spec import ModelSpec
from .clip import dense, layers, norm, sizes
from .family import Conversion, Family, choice, number, side_of
from .files import SourceFiles
from .processor import PixelDefaults, method_of, pixel_fields, scaling, settings
from .rules import Rule, prefixed, rule
from .transforms import TRANSPOSED, biases_of, conv_patches, kernels_of, reshaped

_NAFLEX = "siglip2"  # model_type; SigLIP 2 of fixed resolution has SigLIP's
_GEMMA = 256_000  # entries of SigLIP 2's vocabulary; SigLIP's has 32,000
_LEFT = (
    "the tokenizer says that texts are padded on the left, as transformers 5 writes for SigLIP 2; its models were "
    "trained with padding on the right, and twinreel pads there"
)
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
    naflex = files.config["model_type"] == _NAFLEX
    patch = number(vision, "patch_size", default=16, source=files.name)
    image = sizes(vision, source=files.name) | {"patch": patch, "pool": "attention"}
    if naflex:
        places = number(vision, "num_patches", default=256, source=files.name)
        image["image_size"] = patch * side_of(places, files=files, what="the positions (num_patches)")
        image |= {"position_method": "bilinear", "position_antialias": True, "naflex": True}
    else:
        image["image_size"] = number(vision, "image_size", default=224, source=files.name)
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
        input=_input(files, image=image, length=length, vocabulary=vocabulary, naflex=naflex),
        tokenizer=files.tokenizer(),
    )
    rules = table(image=image, text=words, naflex=naflex)
    return Conversion(spec=spec, rules=rules, ignored=(r".*\.position_ids",), notes=_padding(files))


def table(*, image: dict[str, Any], text: dict[str, Any], naflex: bool = False) -> list[Rule]:
    """Return the table of a model with these towers; import and export read it.

    Args:
      image: arguments of the image tower.
      text: arguments of the text tower.
      naflex: the embedding of patches is a linear map of flat patches instead of a convolution.
    """
    patches = TRANSPOSED if naflex else conv_patches(patch=image["patch"])
    vision = [
        rule("embeddings.patch_embedding.weight", "embed/out/kernel", patches),
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


def _padding(files: SourceFiles) -> tuple[str, ...]:
    """Return the note about a tokenizer that pads on the left; the last token is pooled, so the side matters."""
    sides = [files.json("tokenizer_config.json").get("padding_side")]
    sides.append((files.json("tokenizer.json").get("padding") or {}).get("direction"))
    return (_LEFT,) if "left" in [str(side).lower() for side in sides] else ()


def _input(files: SourceFiles, *, image: dict[str, Any], length: int, vocabulary: int, naflex: bool) -> InputSpec:
    size, patch = image["image_size"], image["patch"]
    defaults = PixelDefaults(size=size)
    if naflex:
        pixels: dict[str, Any] = _naflex_fields(files, patch=patch, places=(size // patch) ** 2, defaults=defaults)
    else:
        pixels = pixel_fields(files, defaults=defaults)
    text = "lower" if vocabulary >= _GEMMA else "canonicalize"
    return InputSpec(num_frames=8, **pixels, text=text, context_length=length)


def _naflex_fields(files: SourceFiles, *, patch: int, places: int, defaults: PixelDefaults) -> dict[str, Any]:
    given, source = settings(files), files.name
    mean, std = scaling(given, defaults=defaults, source=source)
    choice(method_of(given, default="bilinear", source=source), known={"bilinear": 0}, key="resample", source=source)
    if given.get("patch_size", patch) != patch:
        raise UserError(
            f"{source}: patch_size is {given['patch_size']} in its processor's file and {patch} in config.json; the "
            "files belong to different models"
        )
    most = number(given, "max_num_patches", default=places, source=source)
    return {"eval_video": f"naflex({most},{patch})", "pixel_mean": mean, "pixel_std": std}


FAMILY = Family(
    name="siglip",
    models=("google/siglip-{base-patch16-*,large-patch16-*,so400m-patch14-*}", "google/siglip2-*"),
    licence="Apache-2.0",
    matches=lambda files: files.config.get("model_type") in ("siglip", _NAFLEX),
    conversion=_conversion,
)
