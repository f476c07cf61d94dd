"""VideoPrism (Zhao et al. 2024): DeepMind's npz files and the form of Hugging Face's transformers.

Both hold video-text models (LvT) and video encoders alone; the latter become a spec without `embed_dim`. An npz comes
without a config: sizes are read from its tensors. Taken for granted are the forms that all published models share: a
square grid of positions, exact GELU in the video tower, ReLU in the text tower, logits capped at 50.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...base.errors import UserError
from ...data.options import InputSpec
from ...data.text.pieces import SentencePieceTokenizer
from ...models.layers.positions import sinusoids
from ..spec import ModelSpec
from . import videoprism_tables as tables
from .family import ACTIVATIONS, Conversion, Family, choice, number
from .files import SourceFiles
from .processor import PixelDefaults, pixel_fields
from .rules import Rule

TEXT = "punctuation_to_spaces|lower|collapse_spaces|full_stop"
"""DeepMind's `canonicalize_text`."""
CONTEXT_LENGTH = 64
"""Tokens of a text in DeepMind's code; the class token comes on top."""
_TEXT_FORM = {"causal": True, "scale_embedding": True, "class_token": True, "pool": "cls"}
_NO_TOKENIZER = (
    "VideoPrism's tokenizer, which is not in the folder, is the SentencePiece model c4_en of 32,000 pieces: "
    "https://storage.googleapis.com/t5-data/vocabs/cc_en.32000/sentencepiece.model"
)
_COMPUTED = (
    "text positions are the sinusoids of DeepMind's code. The file holds another table (up to {:.2g} away), which "
    "transformers uses; unit text embeddings of small random models are 0.015 to 0.034 apart. The option "
    "text_positions=stored takes that table"
)
_STORED = "text positions are the table in the file, as transformers uses it; DeepMind's code computes other sinusoids"


def _conversion(files: SourceFiles, *, text_positions: str) -> Conversion:
    stored = text_positions == "stored"
    if not any(name.startswith("params/") for name in files.tensors):
        return _of_transformers(files, stored=stored)
    if stored:
        raise UserError(
            f"text_positions=stored: {files.name} is DeepMind's npz, which holds no text positions; leave the option "
            "out, or convert the transformers form"
        )
    return _of_npz(files)


def _of_npz(files: SourceFiles) -> Conversion:
    pair = any(name.startswith("params/text_encoder/") for name in files.tensors)
    encoder = "params/vision_encoder" if pair else "params"
    video = _stack_of(files, f"{encoder}/spatial_encoder/{tables.STACK}") | {"activation": "gelu_exact"}
    pixels = _shape(files, f"{encoder}/patch_projection/linear/kernel", rank=2)[0]
    places = _shape(files, f"{encoder}/spatial_pos_emb/emb_var", rank=2)[0]
    patch = _root(files, pixels // 3, of="patch_projection")
    video |= {"image_size": patch * _root(files, places, of="spatial_pos_emb"), "patch": patch}
    video["temporal_depth"] = _stack_of(files, f"{encoder}/temporal_encoder/{tables.STACK}")["depth"]
    text: dict[str, Any] = {}
    if pair:
        video["auxiliary_depth"] = _stack_of(files, f"params/auxiliary_encoder/{tables.STACK}")["depth"]
        pooled = _shape(files, f"{tables.NPZ_POOLER}/pooling_attention/query/b", rank=2)
        video |= {"pool": "attention", "pool_width": math.prod(pooled)}
        text = _stack_of(files, f"params/text_encoder/{tables.TEXT_STACK}") | {"activation": "relu"}
        text["vocab_size"] = _shape(files, "params/text_encoder/token_emb/emb_var", rank=2)[0]
        text["position"] = "sinusoids"
    return _made(
        files,
        video=video,
        text=text,
        frames=_shape(files, f"{encoder}/temporal_pos_emb/emb_var", rank=2)[0],
        rules=tables.npz(video=video, text=text),
    )


def _of_transformers(files: SourceFiles, *, stored: bool) -> Conversion:
    config, name = files.config, files.name
    kind = config["model_type"]
    if kind not in ("videoprism", "videoprism_vision_model"):
        raise UserError(f"{name} is a {kind}; of VideoPrism twinreel reads video-text models and video encoders")
    vision = number(config, "vision_config", source=name) if kind == "videoprism" else config
    video = _sizes(vision, source=name) | _encoder_sizes(vision, source=name)
    if kind == "videoprism" or "head.per_dim_scale" in files.tensors:
        video["auxiliary_depth"] = number(vision, "num_auxiliary_layers", source=name)
        video |= {"pool": "attention", "pool_width": video["block"]["mlp_hidden"]}
    text, length, notes = {}, CONTEXT_LENGTH, []
    if kind == "videoprism":
        words = number(config, "text_config", source=name)
        text = _sizes(words, source=name) | {"depth": number(words, "num_hidden_layers", source=name)}
        text["vocab_size"] = number(words, "vocab_size", source=name)
        text["position"] = "learned" if stored else "sinusoids"
        length = number(words, "max_position_embeddings", source=name)
        notes = [_STORED] if stored else _difference(files, width=text["width"])
    elif stored:
        raise UserError(f"text_positions=stored: {name} is a video encoder without a text tower; leave the option out")
    return _made(
        files,
        video=video,
        text=text,
        frames=number(vision, "num_frames", source=name),
        length=length,
        rules=tables.transformers(video=video, text=text, pair=kind == "videoprism"),
        notes=notes,
    )


def _pixels(files: SourceFiles, *, size: int) -> dict[str, Any]:
    """Return how pixels are made; transformers' VideoPrism normalises none, whatever the file of its processor says."""
    found = pixel_fields(files, defaults=PixelDefaults(size=size))
    return {"eval_video": found["eval_video"], "pixel_mean": (0.0, 0.0, 0.0), "pixel_std": (1.0, 1.0, 1.0)}


def _made(
    files: SourceFiles,
    *,
    video: dict[str, Any],
    text: dict[str, Any],
    frames: int,
    rules: list[Rule],
    length: int = CONTEXT_LENGTH,
    notes: Sequence[str] = (),
) -> Conversion:
    """Put the conversion together; without `text` it is that of an encoder."""
    given = InputSpec(
        num_frames=frames,
        eval_sampling="segment_starts",
        **_pixels(files, size=video["image_size"]),
        text=TEXT if text else "",
        context_length=length,
    )
    video = {"family": "videoprism", **video, "position_frames": frames}
    spec = ModelSpec(towers={"video": video}, input=given)
    if not text:
        return Conversion(spec=spec, rules=rules)
    spec = spec.replace(
        towers={**spec.towers, "text": {"family": "transformer", **text, **_TEXT_FORM}},
        projections={"video": "none", "text": "none"},
        embed_dim=video["width"],
        tokenizer=_tokenizer(files),
    )
    ignored = [r"text_model\.embeddings\.position_ids"]
    if text["position"] == "sinusoids":
        ignored.append(r"text_model\.embeddings\.position_embedding")
    return Conversion(
        spec=spec, rules=rules, ignored=ignored, notes=[*notes, *([] if spec.tokenizer else [_NO_TOKENIZER])]
    )


def _block(*, hidden: int, epsilon: float = 1e-6, cap: float = 50.0) -> dict[str, Any]:
    return {"mlp_hidden": hidden, "norm_epsilon": epsilon, "norm_plus_one": True, "logit_cap": cap}


def _stack_of(files: SourceFiles, stack: str) -> dict[str, Any]:
    """Return what the shapes of its tensors say about a stack in an npz."""
    depth, width = _shape(files, f"{stack}/layer_norm/scale", rank=2)
    return {
        "width": width,
        "depth": depth,
        "heads": _shape(files, f"{stack}/self_attention/query/b", rank=3)[1],
        "block": _block(hidden=_shape(files, f"{stack}/ff_layer/ffn_layer1/linear/bias", rank=2)[1]),
    }


def _shape(files: SourceFiles, tensor: str, *, rank: int) -> tuple[int, ...]:
    if tensor not in files.tensors:
        raise UserError(f"{files.name} lacks {tensor}; it is no VideoPrism model, or incomplete: fetch it again")
    shape = files.tensors[tensor].shape
    if len(shape) != rank:
        raise UserError(f"{files.name}: {tensor} has shape {shape}, wanted {rank} axes; fetch the file again")
    return shape


def _root(files: SourceFiles, number: int, *, of: str) -> int:
    root = math.isqrt(number)
    if root * root != number:
        raise UserError(f"{files.name}: {of} is of {number} places, wanted a square; VideoPrism's frames are square")
    return root


def _sizes(config: dict[str, Any], *, source: str) -> dict[str, Any]:
    """Return the arguments that the two towers share, of the transformers form."""
    for key, wanted in (("qkv_bias", True), ("apply_l2norm", True)):
        if config.get(key, wanted) is not wanted:
            raise UserError(f"{key} in the config of {source} is {config[key]!r}, twinreel reads models with {wanted}")
    activation = number(config, "hidden_act", source=source)
    return {
        "width": number(config, "hidden_size", source=source),
        "heads": number(config, "num_attention_heads", source=source),
        "activation": choice(activation, known=ACTIVATIONS, key="hidden_act", source=source),
        "block": _block(
            hidden=number(config, "intermediate_size", source=source),
            epsilon=number(config, "layer_norm_eps", source=source),
            cap=number(config, "attn_logit_softcapping", source=source),
        ),
    }


def _encoder_sizes(config: dict[str, Any], *, source: str) -> dict[str, Any]:
    size = number(config, "image_size", source=source)
    frames, *patch = number(config, "tubelet_size", source=source)
    sides = set(size if isinstance(size, list) else [size])
    if frames != 1 or len(set(patch)) != 1 or len(sides) != 1:
        raise UserError(
            f"{source} has image_size {size} and tubelet_size {[frames, *patch]}; VideoPrism has square frames, square "
            "patches and tubelets of one frame"
        )
    return {
        "image_size": sides.pop(),
        "patch": patch[0],
        "depth": number(config, "num_spatial_layers", source=source),
        "temporal_depth": number(config, "num_temporal_layers", source=source),
    }


def _difference(files: SourceFiles, *, width: int) -> list[str]:
    """Return the note about a stored table of positions that is not the one of DeepMind's code."""
    table = files.tensors.get(tables.STORED_POSITIONS)
    if table is None or table.ndim != 2 or table.shape[1] != width:
        return []
    apart = float(np.max(np.abs(table - sinusoids(len(table), width=width, endpoint=True))))
    return [_COMPUTED.format(apart)] if apart > 1e-3 else []


def _tokenizer(files: SourceFiles) -> dict[str, Any]:
    """Return the tokenizer's meta, {} if the folder has none: SentencePiece without begin and end, padded with 0."""
    if files.has("tokenizer.json"):
        return files.tokenizer()
    models = sorted(files.folder.glob("*.model"))
    if not models:
        return {}
    return SentencePieceTokenizer(models[0].read_bytes(), add_bos=False, add_eos=False, pad_id=0).to_meta()


def _matches(files: SourceFiles) -> bool:
    kind = files.config.get("model_type")
    if kind:
        return str(kind).startswith("videoprism")
    return any(files.folder.glob("*.npz")) and any(
        name.endswith("spatial_pos_emb/emb_var") and name.startswith("params/") for name in files.tensors
    )


FAMILY = Family(
    name="videoprism",
    models=("google/videoprism-lvt-{base-f16r288,large-f8r288}", "google/videoprism-{base-f16r288,large-f8r288}"),
    licence="Apache-2.0",
    matches=_matches,
    conversion=_conversion,
    options={"text_positions": ("computed", "stored")},
)
