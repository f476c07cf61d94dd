"""Perception Encoder, core, under the names of its own repository (Bolya et al. 2025; PE-Core-*)."""

from typing import Any

from ...data.options import InputSpec
from ..spec import ModelSpec
from .clip import dense, norm
from .family import Conversion, Family, depth_of, shape_of, side_of
from .files import SourceFiles
from .open_clip import stack, text_rules
from .rules import Rule, prefixed, rule
from .transforms import biases_of, class_token_and_positions, conv_patches, kernels_of, reshaped

_MARK = "visual.attn_pool.probe"
_HEAD_WIDTH = 64
_POOL_HEADS = 8


def _conversion(files: SourceFiles) -> Conversion:
    """Sizes come from the shapes; heads are 64 wide (G: 96) and the pool has 8, unless twinreel_config.json says."""
    tensors, own = files.tensors, files.json("twinreel_config.json")
    width, _, patch, _ = tensors["visual.conv1.weight"].shape
    depth, hidden = _stack_of(files, "visual.transformer.resblocks.")
    positions, embed_dim = tensors["visual.positional_embedding"].shape[0], tensors["visual.proj"].shape[1]
    has_class = "visual.class_embedding" in tensors
    side = side_of(positions - has_class, files=files, what="the positions of patches")
    heads = own.get("heads", width // (_HEAD_WIDTH if has_class else 96))
    image = {
        **{"image_size": side * patch, "patch": patch, "patch_bias": False, "width": width, "depth": depth},
        **{"heads": heads, "mlp_ratio": hidden / width, "activation": "gelu_exact"},
        **{"class_token": has_class, "pre_norm": True, "position_method": "bilinear"},
        **{"rotary_start": int(has_class), "pool": "attention", "pool_heads": own.get("pool_heads", _POOL_HEADS)},
        **{"pool_mlp_ratio": 4.0, "projection": embed_dim},
        "block": {"norm_epsilon": 1e-5, "rotary": "interleaved", "mlp_hidden": hidden},
    }
    vocabulary, text_width = tensors["token_embedding.weight"].shape
    length = tensors["positional_embedding"].shape[0]
    text_depth, text_hidden = _stack_of(files, "transformer.resblocks.")
    words = {
        **{"vocab_size": vocabulary, "width": text_width, "depth": text_depth},
        **{"heads": own.get("text_heads", text_width // _HEAD_WIDTH), "activation": "gelu_exact"},
        **{"causal": True, "pool": "eos", "block": {"norm_epsilon": 1e-5, "mlp_hidden": text_hidden}},
    }
    spec = ModelSpec(
        towers={"video": {"family": "frames", "image": image}, "text": {"family": "transformer", **words}},
        projections={"video": "none"},
        embed_dim=embed_dim,
        input=InputSpec(
            num_frames=8,
            eval_sampling="endpoints",
            eval_video=f"resize_bilinear({side * patch},{side * patch})",
            context_length=length,
        ),
        tokenizer=files.tokenizer(),
    )
    return Conversion(spec=spec, rules=table(image=image, text=words))


def table(*, image: dict[str, Any], text: dict[str, Any]) -> list[Rule]:
    """Return the table of a model with these towers; import and export read it."""
    width, sides = image["width"], ("query", "key", "value")
    positions = rule("positional_embedding", "space_position")
    if image["class_token"]:
        sources, paths = ["class_embedding", "positional_embedding"], ["class_token", "space_position"]
        positions = rule(sources, paths, class_token_and_positions())
    pool = [
        rule("probe", "query", reshaped(tensor=(1, 1, width), parameter=(1, width))),
        rule("attn.in_proj_weight", [f"attention/{side}/kernel" for side in sides], kernels_of(3)),
        rule("attn.in_proj_bias", [f"attention/{side}/bias" for side in sides], biases_of(3)),
        *dense("attn.out_proj", "attention/out"),
        *norm("layernorm", "norm_mlp"),
        *(*dense("mlp.c_fc", "mlp/up"), *dense("mlp.c_proj", "mlp/down")),
    ]
    vision = [
        positions,
        rule("conv1.weight", "embed/out/kernel", conv_patches(patch=image["patch"])),
        *(*norm("ln_pre", "pre_norm"), *stack(heads=image["heads"]), *norm("ln_post", "blocks/norm")),
        *prefixed(pool, source="attn_pool.", path="pooler/"),
        rule("proj", "projection/kernel"),
    ]
    return [
        *prefixed(vision, source="visual.", path="video/image/"),
        *text_rules(heads=text["heads"]),
        rule("logit_scale", "log_scale"),
    ]


def _stack_of(files: SourceFiles, prefix: str) -> tuple[int, int]:
    """Return depth and hidden width of a stack of layers."""
    return depth_of(files, prefix), shape_of(files, f"{prefix}0.mlp.c_fc.weight", axes=2)[0]


FAMILY = Family(
    name="pe_core",
    models=("facebook/PE-Core-{T16-384,S16-384,B16-224,L14-336,G14-448} (pickles there; timm/PE-Core-* is open_clip)",),
    licence="Apache-2.0",
    matches=lambda files: _MARK in files.tensors,
    conversion=_conversion,
)
