"""Frozen in Time (Bain et al. 2021, arXiv:2104.00650), under the names of m-bain/frozen-in-time; EgoVLP has them, too.

A folder holds the weights alone (the published pickle turned into safetensors) and DistilBERT's tokenizer, if texts
are to be encoded. Sizes are read from the shapes; heads are 64 wide unless `twinreel_config.json` says otherwise.
There is no temperature in the file: the loss divided by 0.05.
"""

import math
from typing import Any

from ...base.errors import UserError
from ...data.options import InputSpec
from ..spec import ModelSpec
from . import distilbert
from .clip import dense, norm
from .family import Conversion, Family, depth_of, own_settings, shape_of, side_of
from .files import SourceFiles
from .rules import Rule, prefixed, rule
from .transforms import class_token_and_positions, constant, conv_patches, fused_bias, fused_kernel, reshaped
from .viclip import IMAGENET_MEAN, IMAGENET_STD

_MARK = "video_model.temporal_embed"
_PARALLEL = "module."  # of weights that several GPUs trained
_HEAD_WIDTH = 64
_TEMPERATURE = 0.05
_TRAINED_LENGTH = 100  # the public code cuts texts where the tokenizer does, at 512; its captions are short


def _conversion(files: SourceFiles) -> Conversion:
    start = _start(files)
    if f"{start}text_model.encoder.layer.0.attention.self.query.weight" in files.tensors:
        raise UserError(
            f"{files.name} has BERT as its text model; twinreel reads Frozen in Time with DistilBERT, as released"
        )
    video, text, frames = _video(files, start=start), _text(files, start=start), _frames(files, start=start)
    spec = ModelSpec(
        towers={"video": {"family": "divided", **video}, "text": {"family": "transformer", **text}},
        projections={"video": "affine", "text": "relu_affine"},
        embed_dim=shape_of(files, f"{start}vid_proj.0.bias", axes=1)[0],
        input=_input(side=video["image_size"], frames=frames, positions=text["positions"]),
        tokenizer=files.tokenizer(),
    )
    notes = [f"the file holds no temperature; log_scale starts at log(1/{_TEMPERATURE:g}), that of its loss"]
    rules = prefixed(table(video=video, text=text, num_frames=frames), source=start)
    rules.append(rule((), "log_scale", constant(-math.log(_TEMPERATURE))))
    return Conversion(spec=spec, rules=rules, notes=notes)


def _start(files: SourceFiles) -> str:
    return _PARALLEL if f"{_PARALLEL}{_MARK}" in files.tensors else ""


def _frames(files: SourceFiles, *, start: str) -> int:
    return shape_of(files, f"{start}{_MARK}", axes=3)[1]


def _video(files: SourceFiles, *, start: str) -> dict[str, Any]:
    places, width = shape_of(files, f"{start}video_model.pos_embed", axes=3)[1:]
    patch = shape_of(files, f"{start}video_model.patch_embed.proj.weight", axes=4)[2]
    heads = own_settings(files, defaults=_settings(files, start=start))["heads"]
    hidden = shape_of(files, f"{start}video_model.blocks.0.mlp.fc1.bias", axes=1)[0]
    return {
        "image_size": patch * side_of(places - 1, files=files, what="the positions of patches"),
        **{"patch": patch, "width": width, "depth": depth_of(files, f"{start}video_model.blocks."), "heads": heads},
        **{"activation": "gelu_exact", "form": "frozen", "time_method": "first", "pool": "cls"},
        "block": {"norm_epsilon": 1e-6, "mlp_hidden": hidden},
    }


def _text(files: SourceFiles, *, start: str) -> dict[str, Any]:
    vocabulary, width = shape_of(files, f"{start}text_model.embeddings.word_embeddings.weight", axes=2)
    positions = shape_of(files, f"{start}text_model.embeddings.position_embeddings.weight", axes=2)[0]
    layers = f"{start}text_model.transformer.layer."
    heads = own_settings(files, defaults=_settings(files, start=start))["text_heads"]
    return {
        **{"vocab_size": vocabulary, "width": width, "depth": depth_of(files, layers), "heads": heads},
        **{"activation": "gelu_exact", "pool": "cls"},
        **distilbert.tower_form(positions=positions, hidden=shape_of(files, f"{layers}0.ffn.lin1.bias", axes=1)[0]),
    }


def _settings(files: SourceFiles, *, start: str) -> dict[str, Any]:
    """Return the heads of both towers that the shapes suggest, at least 1."""
    widths = {"heads": f"{start}video_model.pos_embed", "text_heads": f"{start}text_model.embeddings.LayerNorm.bias"}
    return {
        key: max(1, shape_of(files, name, axes=3 if key == "heads" else 1)[-1] // _HEAD_WIDTH)
        for key, name in widths.items()
    }


def _input(*, side: int, frames: int, positions: int) -> InputSpec:
    """Return the public evaluation: shorter side to 8/7 of the pictures', centre crop of that, then to their size."""
    larger = round(side * 256 / 224)
    steps = (
        f"resize_short_bilinear({larger})",
        f"center_crop_torchvision({larger})",
        f"resize_bilinear({side},{side})",
    )
    return InputSpec(
        num_frames=frames,
        eval_sampling="segment_middles",
        eval_video="|".join(steps),
        pixel_mean=IMAGENET_MEAN,
        pixel_std=IMAGENET_STD,
        context_length=min(positions, _TRAINED_LENGTH),
    )


def table(*, video: dict[str, Any], text: dict[str, Any], num_frames: int) -> list[Rule]:
    """Return the table of a model with these towers, but for the temperature; import and export read it.

    Args:
      video: arguments of the video tower.
      text: arguments of the text tower.
      num_frames: T.
    """
    times = (num_frames, video["width"])
    block = [*norm("norm1", "norm1"), *norm("norm2", "norm2"), *norm("norm3", "norm_time")]
    block += [*dense("mlp.fc1", "up"), *dense("mlp.fc2", "down")]
    for source, path in (("attn", "attention"), ("timeattn", "time")):
        block.append(rule(f"{source}.qkv.weight", f"{path}/qkv/kernel", fused_kernel(heads=video["heads"])))
        block.append(rule(f"{source}.qkv.bias", f"{path}/qkv/bias", fused_bias(heads=video["heads"])))
        block += dense(f"{source}.proj", f"{path}/out")
    tower = [
        rule(["cls_token", "pos_embed"], ["class_token", "space_position"], class_token_and_positions(batched=True)),
        rule("temporal_embed", "time_position", reshaped(tensor=(1, *times), parameter=times)),
        rule("patch_embed.proj.weight", "embed/out/kernel", conv_patches(patch=video["patch"])),
        rule("patch_embed.proj.bias", "embed/out/bias"),
        *prefixed(block, source="blocks.#.", path="blocks/layers/"),
        *norm("norm", "blocks/norm"),
    ]
    return [
        *prefixed(tower, source="video_model.", path="video/"),
        *distilbert.table(heads=text["heads"], start="text_model."),
        *dense("vid_proj.0", "video_projection"),
        *dense("txt_proj.1", "text_projection/out"),
    ]


FAMILY = Family(
    name="frozen",
    models=(
        "Frozen in Time: cc-webvid2m-4f_stformer_b_16_224.pth.tar and the others of its repository (pickles)",
        "EgoVLP and others under the same names (pickles)",
    ),
    licence="MIT (code)",
    matches=lambda files: not files.config and f"{_start(files)}{_MARK}" in files.tensors,
    conversion=_conversion,
)
