"""Encoders alone as transformers holds them: BERT, ViT and DINOv2."""

from typing import Any

import numpy as np

from ..convert import bert as bert_family
from ..convert import dinov2 as dinov2_family
from ..convert import vit as vit_family
from ..spec import ModelSpec
from .form import Arguments, arguments, image_family
from .layouts import Layout, Writer
from .pixels import picture_processor
from .transformers_pairs import layer_sizes, special_ids

_IMAGE_USAGE = """\
import torch
from transformers import AutoImageProcessor, AutoModel

processor = AutoImageProcessor.from_pretrained("FOLDER")
model = AutoModel.from_pretrained("FOLDER"OPTIONS)
with torch.no_grad():  # frames: the PIL images of one clip
    images = model(**processor(images=frames, return_tensors="pt")).last_hidden_state[:, 0]  # [T,D]
video = images.mean(dim=0)  # a clip is the mean of its frames"""
_NO_POOLER = ", add_pooling_layer=False"
"""Argument of `from_pretrained` where the model has no dense layer on its first token."""
_TEXT_USAGE = """\
import torch
from transformers import AutoModel, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("FOLDER")
model = AutoModel.from_pretrained("FOLDER"OPTIONS)
with torch.no_grad():
    tokens = model(**tokenizer(["a dog runs"], padding=True, return_tensors="pt")).last_hidden_state  # pool: POOL"""


def vit(spec: ModelSpec) -> Layout | None:
    """Return an image encoder as ViT of transformers."""
    image = _image(spec)
    if image is None:
        return None
    config = {
        "model_type": "vit",
        "architectures": ["ViTModel"],
        **_picture_config(image),
        "qkv_bias": image["block"]["qkv_bias"],
    }
    processor = picture_processor(spec, size=image["image_size"], kind="ViTImageProcessor")
    return Layout(
        title="ViT of transformers",
        family="vit",
        files={"config.json": config, "preprocessor_config.json": processor.file},
        rules=vit_family.table(image=image),
        usage=_IMAGE_USAGE.replace("OPTIONS", _NO_POOLER),
        notes=processor.notes,
    )


def dinov2(spec: ModelSpec) -> Layout | None:
    """Return an image encoder as DINOv2 of transformers, with or without registers."""
    image = _image(spec)
    if image is None:
        return None
    registers = image["registers"]
    gated = image["activation"] == "swiglu"
    config = {
        "model_type": "dinov2_with_registers" if registers else "dinov2",
        "architectures": ["Dinov2WithRegistersModel" if registers else "Dinov2Model"],
        **_picture_config(image),
        "mlp_ratio": _mlp_ratio(image, gated=gated),
        "use_swiglu_ffn": gated,
        "qkv_bias": image["block"]["qkv_bias"],
        "layerscale_value": 1.0,
        "use_mask_token": False,
        **({"num_register_tokens": registers} if registers else {}),
    }
    del config["intermediate_size"]
    processor = picture_processor(spec, size=image["image_size"], kind="BitImageProcessor")
    return Layout(
        title="DINOv2 of transformers",
        family="dinov2",
        files={"config.json": config, "preprocessor_config.json": processor.file},
        rules=dinov2_family.table(image=image) if image["block"]["layer_scale"] else [],
        extra={"embeddings.mask_token": np.zeros((1, image["width"]), np.float32)} if registers else {},
        usage=_IMAGE_USAGE.replace("OPTIONS", ""),
        notes=processor.notes,
    )


def bert(spec: ModelSpec) -> Layout | None:
    """Return a text encoder as BERT of transformers; its pool is written as sentence-transformers does."""
    if spec.embed_dim is not None or spec.towers.keys() != {"text"} or spec.towers["text"]["family"] != "transformer":
        return None
    text = arguments(spec)["text"]
    config = {
        "model_type": "bert",
        "architectures": ["BertModel"],
        "dtype": "float32",
        **layer_sizes(text),
        "max_position_embeddings": text.get("positions") or spec.input.context_length,
        "type_vocab_size": text["token_types"],
        "vocab_size": text["vocab_size"],
        **special_ids(spec),
    }
    files: dict[str, Any] = {"config.json": config}
    length, options = spec.input.context_length, "" if text["pool"] == "pooler" else _NO_POOLER
    if text["pool"] in ("mean", "cls"):
        key = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token"}[text["pool"]]
        modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
        files["modules.json"] = [
            {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for number, (path, kind) in enumerate(modules)
        ]
        files["1_Pooling/config.json"] = {"word_embedding_dimension": text["width"], key: True}
        files["sentence_bert_config.json"] = {"max_seq_length": length, "do_lower_case": False}
    return Layout(
        title="BERT of transformers",
        family="bert",
        files=files,
        rules=bert_family.table(text=text),
        usage=_TEXT_USAGE.replace("OPTIONS", options).replace("POOL", text["pool"]),
    )


WRITERS: tuple[Writer, ...] = (bert, vit, dinov2)
"""The encoders that `--format hf` has."""


def _image(spec: ModelSpec) -> Arguments | None:
    video = spec.towers.get("video", {})
    if spec.embed_dim is not None or spec.towers.keys() != {"video"} or video["family"] != "frames":
        return None
    if image_family(spec) != "vit":
        return None
    return arguments(spec)["video"]["image"]


def _picture_config(image: Arguments) -> dict[str, Any]:
    sizes = {"image_size": image["image_size"], "patch_size": image["patch"], "num_channels": 3}
    return {"dtype": "float32", **layer_sizes(image), **sizes}


def _mlp_ratio(image: Arguments, *, gated: bool) -> float:
    """Return the ratio of which DINOv2's code makes the hidden width; a gated MLP has 2/3 of it, in eights."""
    hidden, width = image["block"]["mlp_hidden"], image["width"]
    whole = hidden if not gated else round(hidden * 3 / 2)
    return whole // width if whole % width == 0 else whole / width
