"""InternVideo2-CLIP, small form: S14, B14, L14 (Wang et al. 2024, arXiv:2403.15377), with the text of MobileCLIP-B."""

from typing import Any

from ...base.errors import UserError
from ...data.options import InputSpec
from ..spec import ModelSpec
from .clip import dense, norm
from .family import Conversion, Family, depth_of, own_settings, shape_of, side_of
from .files import SourceFiles
from .rules import Rule, prefixed, rule
from .transforms import (
    TRANSPOSED,
    class_token_and_positions,
    conv_patches,
    fused_bias,
    fused_kernel,
    reshaped,
    temperature,
)
from .viclip import IMAGENET_MEAN, IMAGENET_STD

_MARK = "vision_encoder.clip_projector.cross_attn.q.weight"
_HEAD_WIDTH, _POOL_HEADS, _FRAMES = 64, 16, 8
_GELUS = ("gelu", "gelu_exact")


def _conversion(files: SourceFiles) -> Conversion:
    """Sizes come from the shapes; the others are those of the released models, unless twinreel_config.json has them.

    Its keys: `heads`, `text_heads` (64 channels each), `pool_heads` (16), `num_frames` (8) and `activation` of the
    video tower: "gelu", the tanh form with which the models were trained (flash-attention's fused MLP), or
    "gelu_exact", which their code uses where flash-attention is not installed.
    """
    width, _, tubelet, patch, _ = shape_of(files, "vision_encoder.patch_embed.proj.weight", axes=5)
    vocabulary, text_width = shape_of(files, "text_encoder.embedding_layer.weight", axes=2)
    length = shape_of(files, "text_encoder.positional_embedding.pos_embed.pos_embed", axes=4)[2]
    heads = {"heads": max(width // _HEAD_WIDTH, 1), "text_heads": max(text_width // _HEAD_WIDTH, 1)}
    defaults = heads | {"pool_heads": _POOL_HEADS, "num_frames": _FRAMES, "activation": _GELUS[0]}
    own = own_settings(files, defaults=defaults)
    if own["activation"] not in _GELUS:
        raise UserError(f"{files.name}: activation={own['activation']!r}; the family has {' or '.join(_GELUS)}")
    size = patch * _side(files, times=own["num_frames"] // tubelet)
    video = {
        **{"image_size": size, "patch": patch, "tubelet": tubelet, "width": width, "heads": own["heads"]},
        "depth": depth_of(files, "vision_encoder.blocks."),
        "activation": own["activation"],
        **{"class_token": True, "position": "joint", "time_method": "linear"},
        **{"pool": "attention", "pool_heads": own["pool_heads"]},
        "pool_width": shape_of(files, "vision_encoder.clip_projector.cross_attn.proj.weight", axes=2)[0],
        "block": {
            **{"norm": "rmsnorm", "norm_epsilon": 1e-6, "final_norm": False},
            **{"qkv_bias": False, "qk_norm": "width", "layer_scale": 0.1},
            "mlp_hidden": shape_of(files, "vision_encoder.blocks.0.mlp.fc1.weight", axes=2)[0],
        },
    }
    hidden = shape_of(files, "text_encoder.transformer.0.pre_norm_ffn.1.weight", axes=2)[0]
    words = {
        **{"vocab_size": vocabulary, "width": text_width, "heads": own["text_heads"]},
        **{"depth": depth_of(files, "text_encoder.transformer."), "activation": "gelu_exact"},
        **{"causal": True, "pool": "eos", "block": {"norm_epsilon": 1e-5, "mlp_hidden": hidden}},
    }
    spec = ModelSpec(
        towers={"video": {"family": "joint", **video}, "text": {"family": "transformer", **words}},
        embed_dim=shape_of(files, "vision_align.1.weight", axes=2)[0],
        projections={"video": "norm_affine"},
        input=InputSpec(
            num_frames=own["num_frames"],
            eval_sampling="segment_middles",
            eval_video=f"resize_bicubic({size},{size})",
            pixel_mean=IMAGENET_MEAN,
            pixel_std=IMAGENET_STD,
            context_length=length,
        ),
        tokenizer=files.tokenizer(),
    )
    return Conversion(spec=spec, rules=table(video=video, text=words, context_length=length), notes=[_note(own)])


def _side(files: SourceFiles, *, times: int) -> int:
    """Return the side of the grid of patches: positions are those of the class token and of all places at all times."""
    places = shape_of(files, "vision_encoder.pos_embed", axes=3)[1] - 1
    if not times or places % times:
        raise UserError(
            f"{files.name}: {places} positions of patches do not divide by {times} time steps; set num_frames in "
            "twinreel_config.json to the frames of the released model"
        )
    return side_of(places // times, files=files, what=f"the positions of each of {times} time steps")


def _note(own: dict[str, Any]) -> str:
    other = _GELUS[own["activation"] == _GELUS[0]]
    form = {"gelu": "the tanh form of GELU, as they were trained", "gelu_exact": "the exact GELU"}[own["activation"]]
    return (
        f'MLPs of the video tower use {form}; {{"activation": "{other}"}} in twinreel_config.json chooses the other '
        "form (embeddings differ by about 2e-4)"
    )


def table(*, video: dict[str, Any], text: dict[str, Any], context_length: int) -> list[Rule]:
    """Return the table of a model with these towers; import and export read it."""
    places, width = (context_length, text["width"]), text["width"]
    words = [
        rule("embedding_layer.weight", "embedding"),
        rule(
            "positional_embedding.pos_embed.pos_embed",
            "position",
            reshaped(tensor=(1, 1, context_length, width), parameter=places),
        ),
        *prefixed(_text_layer(heads=text["heads"]), source="transformer.#.", path="blocks/layers/"),
        *norm("final_layer_norm", "blocks/norm"),
    ]
    return [
        *prefixed(_vision(video), source="vision_encoder.", path="video/"),
        *(*norm("vision_align.0", "video_projection/norm"), *dense("vision_align.1", "video_projection/out")),
        *prefixed(words, source="text_encoder.", path="text/"),
        rule("text_encoder.projection_layer", "text_projection/kernel"),
        rule("temp", "log_scale", temperature()),
    ]


def _vision(video: dict[str, Any]) -> list[Rule]:
    layer = [
        *(rule(f"{name}.weight", f"{name}/scale") for name in ("norm1", "norm2")),
        rule("attn.qkv.weight", "attention/qkv/kernel", fused_kernel(heads=video["heads"])),
        rule("attn.q_norm.weight", "attention/query_norm/scale"),
        rule("attn.k_norm.weight", "attention/key_norm/scale"),
        *dense("attn.proj", "attention/out"),
        *(rule(f"ls{number}.gamma", f"scale{number}") for number in (1, 2)),
        *(*dense("mlp.fc1", "up"), *dense("mlp.fc2", "down")),
    ]
    pool = dense("cross_attn.proj", "out")
    for side, name in (("q", "query"), ("k", "key"), ("v", "value")):
        pool += norm(f"norm1_{side}", f"norm_{name}")
        pool += [rule(f"cross_attn.{side}.weight", f"{name}/kernel", TRANSPOSED)]
        pool += [rule(f"cross_attn.{side}_bias", f"{name}/bias")]
    patches = conv_patches(patch=video["patch"], tubelet=video["tubelet"])
    return [
        rule(["cls_token", "pos_embed"], ["class_token", "position"], class_token_and_positions(batched=True)),
        rule("patch_embed.proj.weight", "embed/out/kernel", patches),
        rule("patch_embed.proj.bias", "embed/out/bias"),
        *prefixed(layer, source="blocks.#.", path="blocks/layers/"),
        *prefixed(pool, source="clip_projector.", path="pooler/"),
    ]


def _text_layer(*, heads: int) -> list[Rule]:
    return [
        rule("pre_norm_mha.1.qkv_proj.weight", "attention/qkv/kernel", fused_kernel(heads=heads)),
        rule("pre_norm_mha.1.qkv_proj.bias", "attention/qkv/bias", fused_bias(heads=heads)),
        *dense("pre_norm_mha.1.out_proj", "attention/out"),
        *(*norm("pre_norm_mha.0", "norm1"), *norm("pre_norm_ffn.0", "norm2")),
        *(*dense("pre_norm_ffn.1", "up"), *dense("pre_norm_ffn.4", "down")),
    ]


FAMILY = Family(
    name="internvideo2",
    models=("OpenGVLab/InternVideo2_CLIP_S", "OpenGVLab/InternVideo2_distillation_models clip/{S14,B14,L14} (pickles)"),
    licence="see the model's page",
    matches=lambda files: _MARK in files.tensors,
    conversion=_conversion,
)
