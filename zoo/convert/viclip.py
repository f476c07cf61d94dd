"""ViCLIP, CLIP with joint attention over all frames (Wang et al. 2024, InternVid, arXiv:2307.06942)."""

from typing import Any

from ...data.options import InputSpec
from ..spec import ModelSpec
from .clip import norm
from .family import Conversion, Family, depth_of, own_settings, shape_of, side_of
from .files import SourceFiles
from .open_clip import stack, text_rules
from .rules import Rule, prefixed, rule
from .transforms import class_token_and_positions, conv_patches, reshaped, temperature

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Of red, green and blue in ImageNet's pictures, scale 0..1."""
IMAGENET_STD = (0.229, 0.224, 0.225)
_MARK = "vision_encoder.temporal_positional_embedding"
_HEAD_WIDTH = 64


def _conversion(files: SourceFiles) -> Conversion:
    """Sizes come from the shapes; heads are 64 wide, unless twinreel_config.json says how many there are."""
    width, _, _, patch, _ = shape_of(files, "vision_encoder.conv1.weight", axes=5)
    positions = shape_of(files, "vision_encoder.positional_embedding", axes=2)[0]
    side = side_of(positions - 1, files=files, what="the positions of patches")
    _, embed_dim = shape_of(files, "vision_encoder.proj", axes=2)
    vocabulary, text_width = shape_of(files, "text_encoder.token_embedding.weight", axes=2)
    length = shape_of(files, "text_encoder.positional_embedding", axes=2)[0]
    heads = {"heads": max(width // _HEAD_WIDTH, 1), "text_heads": max(text_width // _HEAD_WIDTH, 1)}
    own = own_settings(files, defaults=heads)
    frames = shape_of(files, _MARK, axes=3)[1]
    video = {
        **{"image_size": side * patch, "patch": patch, "patch_bias": False, "width": width, "heads": own["heads"]},
        **_stack_sizes(files, "vision_encoder."),
        **{"class_token": True, "pre_norm": True, "position": "separate", "time_method": "cut", "pool": "cls"},
    }
    words = {
        **{"vocab_size": vocabulary, "width": text_width, "heads": own["text_heads"]},
        **_stack_sizes(files, "text_encoder."),
        **{"causal": True, "pool": "eos"},
    }
    size = side * patch
    spec = ModelSpec(
        towers={"video": {"family": "joint", **video}, "text": {"family": "transformer", **words}},
        embed_dim=embed_dim,
        input=InputSpec(
            num_frames=frames,
            eval_sampling="strides",
            eval_video=f"resize_linear({size},{size})",
            pixel_mean=IMAGENET_MEAN,
            pixel_std=IMAGENET_STD,
            context_length=length,
        ),
        tokenizer=files.tokenizer(),
    )
    return Conversion(spec=spec, rules=table(video=video, text=words, num_frames=frames))


def _stack_sizes(files: SourceFiles, tower: str) -> dict[str, Any]:
    hidden = shape_of(files, f"{tower}transformer.resblocks.0.mlp.c_fc.weight", axes=2)[0]
    return {
        "depth": depth_of(files, f"{tower}transformer.resblocks."),
        "activation": "quick_gelu",
        "block": {"norm_epsilon": 1e-5, "mlp_hidden": hidden},
    }


def table(*, video: dict[str, Any], text: dict[str, Any], num_frames: int) -> list[Rule]:
    """Return the table of a model with these towers; import and export read it."""
    times = (num_frames, video["width"])
    vision = [
        rule(
            ["class_embedding", "positional_embedding"], ["class_token", "space_position"], class_token_and_positions()
        ),
        rule("temporal_positional_embedding", "time_position", reshaped(tensor=(1, *times), parameter=times)),
        rule("conv1.weight", "embed/out/kernel", conv_patches(patch=video["patch"], tubelet=1)),
        *(*norm("ln_pre", "pre_norm"), *stack(heads=video["heads"]), *norm("ln_post", "blocks/norm")),
    ]
    return [
        *prefixed(vision, source="vision_encoder.", path="video/"),
        rule("vision_encoder.proj", "video_projection/kernel"),
        *prefixed(text_rules(heads=text["heads"]), source="text_encoder."),
        rule("temp", "log_scale", temperature()),
    ]


FAMILY = Family(
    name="viclip",
    models=("OpenGVLab/ViCLIP-{B-16,L-14}-hf",),
    licence="CC-BY-NC-SA-4.0",
    matches=lambda files: _MARK in files.tensors,
    conversion=_conversion,
)
