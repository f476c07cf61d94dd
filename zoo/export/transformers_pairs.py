"""Dual towers as transformers holds them: CLIP, SigLIP and VideoPrism."""

from typing import Any

import numpy as np

from ...data.text.tokenizer import tokenizer_from_meta
from ...models.layers.positions import sinusoids
from ..convert import clip as clip_family
from ..convert import siglip as siglip_family
from ..convert import videoprism_tables
from ..spec import ModelSpec
from .form import Arguments, arguments, image_family
from .layouts import Layout
from .pixels import clip_processor, siglip_processor, video_processor

_ACTIVATIONS = {
    "gelu_exact": "gelu",
    "gelu": "gelu_pytorch_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
}
_OWN_SINUSOIDS = (
    "the table of text positions holds DeepMind's sinusoids, with which the model computes; transformers takes them "
    "from the file, where google's own folders have others"
)

_USAGE = """\
import torch
from transformers import AutoModel, AutoProcessor

model, processor = AutoModel.from_pretrained("FOLDER"), AutoProcessor.from_pretrained("FOLDER")
with torch.no_grad():  # frames: the PIL images of one clip
    images = model.get_image_features(**processor(images=frames, return_tensors="pt")).pooler_output  # [T,E]
    words = processor(text=["a dog runs"], padding="max_length", truncation=True, return_tensors="pt")
    text = model.get_text_features(**words).pooler_output
video = torch.nn.functional.normalize(images.mean(dim=0, keepdim=True), dim=-1)  # a clip is the mean of its frames
cosines = video @ torch.nn.functional.normalize(text, dim=-1).T"""
_PRISM_USAGE = """\
import torch
from transformers import AutoModel, AutoTokenizer

model, tokenizer = AutoModel.from_pretrained("FOLDER"), AutoTokenizer.from_pretrained("FOLDER")
words = tokenizer(["a dog runs."], padding="max_length", truncation=True, return_tensors="pt")
with torch.no_grad():  # video: float32 [B,T,3,H,W], pixels 0..1
    found = model(pixel_values_videos=video, **words)
cosines = found.video_embeds @ found.text_embeds.T"""
_PRISM_ENCODER_USAGE = """\
import torch
from transformers import AutoModel

model = AutoModel.from_pretrained("FOLDER")
with torch.no_grad():  # video: float32 [B,T,3,H,W], pixels 0..1
    tokens = model(pixel_values_videos=video).last_hidden_state"""


def clip(spec: ModelSpec) -> Layout | None:
    """Return a model as CLIP of transformers."""
    if not is_pair(spec, video="frames"):
        return None
    made = arguments(spec)
    image, text = made["video"]["image"], made["text"]
    eos = text.get("eos_id")
    config = {
        "model_type": "clip",
        "architectures": ["CLIPModel"],
        "dtype": "float32",
        "projection_dim": spec.embed_dim,
        "vision_config": {"model_type": "clip_vision_model", **_picture_sizes(image, spec)},
        "text_config": {
            "model_type": "clip_text_model",
            **_text_sizes(text, spec),
            "projection_dim": spec.embed_dim,
            "eos_token_id": 2 if eos is None else eos,  # 2 stands for the largest id of a text
        },
    }
    processor = clip_processor(spec, size=image["image_size"])
    return Layout(
        title="CLIP of transformers",
        family="clip",
        files={"config.json": config, "preprocessor_config.json": processor.file},
        rules=clip_family.table(image=image, text=text),
        usage=_USAGE,
        notes=processor.notes,
    )


def siglip(spec: ModelSpec) -> Layout | None:
    """Return a model as SigLIP of transformers."""
    if not is_pair(spec, video="frames"):
        return None
    made = arguments(spec)
    image, text = made["video"]["image"], made["text"]
    config = {
        "model_type": "siglip",
        "architectures": ["SiglipModel"],
        "dtype": "float32",
        "vision_config": {
            "model_type": "siglip_vision_model",
            "vision_use_head": True,
            **_picture_sizes(image, spec),
        },
        "text_config": {
            "model_type": "siglip_text_model",
            **_text_sizes(text, spec),
            "projection_size": spec.embed_dim,
        },
    }
    del config["vision_config"]["projection_dim"]
    processor = siglip_processor(spec, size=image["image_size"])
    return Layout(
        title="SigLIP of transformers",
        family="siglip",
        files={"config.json": config, "preprocessor_config.json": processor.file},
        rules=siglip_family.table(image=image, text=text),
        usage=_USAGE,
        notes=processor.notes,
    )


def videoprism(spec: ModelSpec) -> Layout | None:
    """Return a video-text model, or a video encoder alone, as VideoPrism of transformers."""
    pair = is_pair(spec, video="videoprism")
    if not pair and not (spec.towers.keys() == {"video"} and spec.towers["video"]["family"] == "videoprism"):
        return None
    made = arguments(spec)
    video, text = made["video"], made.get("text", {})
    vision = {
        "model_type": "videoprism_vision_model",
        **_prism_sizes(video),
        "image_size": video["image_size"],
        "num_channels": 3,
        "num_frames": video["position_frames"],
        "tubelet_size": [1, video["patch"], video["patch"]],
        "num_spatial_layers": video["depth"],
        "num_temporal_layers": video["temporal_depth"],
        "num_auxiliary_layers": video["auxiliary_depth"],
    }
    processor = video_processor(spec)
    extra: dict[str, np.ndarray] = {}
    options, notes = {}, processor.notes
    config: dict[str, Any] = {**vision, "architectures": ["VideoPrismVisionModel"], "dtype": "float32"}
    if pair:
        words = {
            "model_type": "videoprism_text_model",
            **_prism_sizes(text),
            "num_hidden_layers": text["depth"],
            "max_position_embeddings": spec.input.context_length,
            "vocab_size": text["vocab_size"],
            **special_ids(spec),
        }
        config = {"model_type": "videoprism", "architectures": ["VideoPrismClipModel"], "dtype": "float32"}
        config |= {"vision_config": vision, "text_config": words}
        options = {"text_positions": "stored" if text["position"] == "learned" else "computed"}
        if text["position"] == "sinusoids":
            table = sinusoids(spec.input.context_length, width=text["width"], endpoint=True)
            extra, notes = {videoprism_tables.STORED_POSITIONS: np.asarray(table, np.float32)}, (*notes, _OWN_SINUSOIDS)
        extra["text_model.embeddings.position_ids"] = np.arange(spec.input.context_length)[None]
    return Layout(
        title="VideoPrism of transformers",
        family="videoprism",
        files={"config.json": config, "video_preprocessor_config.json": processor.file},
        rules=videoprism_tables.transformers(video=video, text=text, pair=pair),
        extra=extra,
        options=options,
        usage=_PRISM_USAGE if pair else _PRISM_ENCODER_USAGE,
        notes=notes,
    )


def is_pair(spec: ModelSpec, *, video: str) -> bool:
    """Tell whether a model has a video tower of this family and a transformer for text, in one space.

    A tower on single frames must have a vision transformer.
    """
    towers = spec.towers
    return (
        spec.embed_dim is not None
        and image_family(spec) in ("", "vit")
        and {"video", "text"} <= towers.keys()
        and (towers["video"]["family"], towers["text"]["family"]) == (video, "transformer")
    )


def layer_sizes(tower: Arguments) -> dict[str, Any]:
    """Return what the configs of transformers say about a stack of layers."""
    return {
        "hidden_size": tower["width"],
        "intermediate_size": tower["block"]["mlp_hidden"],
        "num_hidden_layers": tower["depth"],
        "num_attention_heads": tower["heads"],
        "hidden_act": _ACTIVATIONS.get(tower["activation"], "gelu"),
        "layer_norm_eps": tower["block"]["norm_epsilon"],
    }


def special_ids(spec: ModelSpec) -> dict[str, int | None]:
    """Return the ids of begin, end and padding as configs name them, None for those that are not there."""
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    if not spec.tokenizer:
        return dict.fromkeys(names)
    made = tokenizer_from_meta(dict(spec.tokenizer))
    ids = zip(names, (made.bos_id, made.eos_id, made.pad_id), strict=True)
    return {name: value if value >= 0 else None for name, value in ids}


def _picture_sizes(image: Arguments, spec: ModelSpec) -> dict[str, Any]:
    sizes = {"image_size": image["image_size"], "patch_size": image["patch"], "num_channels": 3}
    return layer_sizes(image) | sizes | {"projection_dim": spec.embed_dim}


def _text_sizes(text: Arguments, spec: ModelSpec) -> dict[str, Any]:
    longest = {"max_position_embeddings": text.get("positions") or spec.input.context_length}
    return layer_sizes(text) | longest | {"vocab_size": text["vocab_size"]} | special_ids(spec)


def _prism_sizes(tower: Arguments) -> dict[str, Any]:
    sizes = layer_sizes(tower) | {"attn_logit_softcapping": tower["block"]["logit_cap"] or 50.0}
    del sizes["num_hidden_layers"]
    return sizes | {"qkv_bias": True, "apply_l2norm": True}
