"""S3D-G with a tower of word vectors, trained by MIL-NCE on HowTo100M (Miech et al. 2020, arXiv:1912.06430).

A folder holds the weights (the published pickle turned into safetensors) and `s3d_dict.npy`, the list of words. There
is no config: all widths are read from the shapes. The published similarity is the bare dot product of the two vectors,
and there is no temperature; a twinreel model compares by cosine.
"""

import math
from typing import Any

import numpy as np

from ...base.errors import UserError
from ...data.options import InputSpec
from ...data.text.words import WordTokenizer
from ..spec import ModelSpec
from .clip import dense
from .convolutions import STATISTICS_COUNTED, conv_norm
from .family import Conversion, Family, own_settings, shape_of
from .files import SourceFiles
from .rules import Rule, prefixed, rule
from .transforms import constant

WORDS = "s3d_dict.npy"
_MARK = "text_module.word_embd.weight"
_MIXED = ("3b", "3c", "4b", "4c", "4d", "4e", "4f", "5b", "5c")
_BRANCHES = {"b0": "conv_b0", "b1_a": "conv_b1_a", "b1_b": "conv_b1_b", "b2_a": "conv_b2_a", "b2_b": "conv_b2_b"}
_BRANCHES |= {"b3": "conv_b3_b"}
_SEPARABLE = ("b1_b", "b2_b")


def _conversion(files: SourceFiles) -> Conversion:
    """The only number that shapes do not tell is that of the words of a text: 16, or as twinreel_config.json says."""
    stem = [_width(files, name) for name in ("conv1", "conv_2b", "conv_2c")]
    blocks = [[_width(files, f"mixed_{block}.{name}") for name in _BRANCHES.values()] for block in _MIXED]
    vocabulary, width = shape_of(files, _MARK, axes=2)
    hidden = shape_of(files, "text_module.fc1.bias", axes=1)[0]
    length = own_settings(files, defaults={"max_words": 16})["max_words"]
    text = {"vocab_size": vocabulary, "width": width, "hidden": hidden, "pool": "max", "padding_seen": True}
    spec = ModelSpec(
        towers={"video": {"family": "s3d", "stem": stem, "blocks": blocks}, "text": {"family": "words", **text}},
        projections={"video": "affine", "text": "affine"},
        embed_dim=shape_of(files, "fc.bias", axes=1)[0],
        input=InputSpec(
            num_frames=32,
            eval_video="resize_short_bicubic(224)|center_crop(224)",
            pixel_mean=(0.0, 0.0, 0.0),
            pixel_std=(1.0, 1.0, 1.0),
            text="lower",
            context_length=length,
        ),
        tokenizer=_tokenizer(files, vocabulary=vocabulary),
    )
    return Conversion(spec=spec, rules=table(), ignored=(STATISTICS_COUNTED,))


def table() -> list[Rule]:
    """Return the table; import and export read it."""
    video = [
        *conv_norm("conv1.conv1", "conv1.bn1", "conv1", axes=3),
        *conv_norm("conv_2b.conv1", "conv_2b.bn1", "conv_2b", axes=3),
        *_separable("conv_2c", "conv_2c"),
        *dense("gating.fc", "gate/out"),
    ]
    for number, block in enumerate(_MIXED):
        video += prefixed(_block(), source=f"mixed_{block}.", path=f"mixed/{number}/")
    return [
        *prefixed(video, path="video/"),
        *dense("fc", "video_projection"),
        rule(_MARK, "text/embedding"),
        *dense("text_module.fc1", "text/hidden"),
        *dense("text_module.fc2", "text_projection"),
        rule((), "log_scale", constant(math.log(1 / 0.07))),
    ]


def _block() -> list[Rule]:
    rules = []
    for path, source in _BRANCHES.items():
        one = _separable if path in _SEPARABLE else _single
        rules += one(source, path)
    for number in range(4):
        rules += dense(f"gating_b{number}.fc", f"gates/{number}/out")
    return rules


def _single(source: str, path: str) -> list[Rule]:
    return conv_norm(f"{source}.conv1", f"{source}.bn1", path, axes=3)


def _separable(source: str, path: str) -> list[Rule]:
    return [
        *conv_norm(f"{source}.conv1", f"{source}.bn1", f"{path}/space", axes=3),
        *conv_norm(f"{source}.conv2", f"{source}.bn2", f"{path}/time", axes=3),
    ]


def _width(files: SourceFiles, layer: str) -> int:
    return shape_of(files, f"{layer}.conv1.weight", axes=5)[0]


def _tokenizer(files: SourceFiles, *, vocabulary: int) -> dict[str, Any]:
    """Return the meta of the list of words; {} if the folder has none."""
    path = files.folder / WORDS
    if not path.is_file():
        return {}
    try:
        words = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} is no plain array of words: {error}; fetch it again") from error
    if words.dtype.kind != "U" or words.ndim != 1 or len(words) >= vocabulary:
        raise UserError(
            f"{path} holds an array {words.shape} of {words.dtype}, wanted fewer than {vocabulary:,} words, the rows "
            "of the text tower's table; the files belong to different models"
        )
    return WordTokenizer([str(word) for word in words]).to_meta()


FAMILY = Family(
    name="s3d",
    models=("MIL-NCE S3D of HowTo100M: s3d_howto100m.pth as safetensors, with s3d_dict.npy",),
    licence="Apache-2.0 (code)",
    matches=lambda files: (
        not files.config and _MARK in files.tensors and "mixed_5c.conv_b0.conv1.weight" in files.tensors
    ),
    conversion=_conversion,
)
