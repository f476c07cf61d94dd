"""Dual towers as open_clip holds them: with its own vision transformer, or with one of timm (SigLIP, PE-core)."""

import math
from collections.abc import Mapping
from typing import Any

from ..convert import open_clip as family
from ..convert.open_clip_timm import PE_CORE, SIGLIP
from ..spec import ModelSpec
from .form import Arguments, arguments
from .layouts import Layout
from .pixels import open_clip_pixels
from .transformers_pairs import is_pair

WEIGHTS = "open_clip_model.safetensors"
HF_TOKENIZER = "."
"""`hf_tokenizer_name`: open_clip looks into the folder itself, whatever the name, when it loads `local-dir:`."""

_USAGE = """\
import open_clip
import torch

model, _, preprocess = open_clip.create_model_and_transforms("local-dir:FOLDER")
tokenizer = open_clip.get_tokenizer("local-dir:FOLDER")
with torch.no_grad():  # frames: the PIL images of one clip
    images = model.eval().encode_image(torch.stack([preprocess(frame) for frame in frames]))  # [T,E]
    text = model.encode_text(tokenizer(["a dog runs"]), normalize=True)
video = torch.nn.functional.normalize(images.mean(dim=0, keepdim=True), dim=-1)  # a clip is the mean of its frames
cosines = video @ text.T"""


def native(spec: ModelSpec) -> Layout | None:
    """Return a model with open_clip's own vision transformer, which pools its class token."""
    image = _image(spec)
    if image is None or image["pool"] == "attention":
        return None
    quick = image["activation"] == "quick_gelu"
    vision = {
        "image_size": image["image_size"],
        "layers": image["depth"],
        "width": image["width"],
        "head_width": image["width"] // image["heads"],
        "patch_size": image["patch"],
        "mlp_ratio": _ratio(image),
        **_details(image),
    }
    model = {"embed_dim": spec.embed_dim, "vision_cfg": vision}
    return _layout(spec, model=model | ({"quick_gelu": True} if quick else {}), title="open_clip's CLIP")


def timm(spec: ModelSpec) -> Layout | None:
    """Return a model with an image tower of timm that pools by attention, the one whose sizes are nearest."""
    image = _image(spec)
    if image is None or image["pool"] != "attention":
        return None
    known = SIGLIP if image["block"]["rotary"] == "none" else PE_CORE
    name = max(known, key=lambda one: _agreement(image, name=one, sizes=known[one]))
    vision = {
        "image_size": image["image_size"],
        "timm_model_name": name,
        "timm_model_pretrained": False,
        "timm_pool": "map",
        "timm_proj": "none" if known is SIGLIP else None,
    }
    wanted = _sizes(known[name])
    sizes = {key: image["block"]["mlp_hidden"] if key == "mlp_hidden" else image.get(key) for key in wanted}
    misfit = ""
    if sizes != wanted:
        misfit = f"config.model.video.image has {_listed(sizes)}, timm's nearest model {name} has {_listed(wanted)}"
    model = {"embed_dim": spec.embed_dim, "custom_text": True, "vision_cfg": vision}
    return _layout(spec, model=model, title=f"open_clip with timm's {name}", misfit=misfit)


def _image(spec: ModelSpec) -> Arguments | None:
    return arguments(spec)["video"]["image"] if is_pair(spec, video="frames") else None


def _layout(spec: ModelSpec, *, model: dict[str, Any], title: str, misfit: str = "") -> Layout:
    model["text_cfg"] = _text_cfg(arguments(spec)["text"], spec)
    if spec.initial_bias is not None:
        model["init_logit_bias"] = spec.initial_bias
    pixels = open_clip_pixels(spec, size=model["vision_cfg"]["image_size"])
    return Layout(
        title=title,
        family="open_clip",
        files={family.CONFIG: {"model_cfg": model, "preprocess_cfg": pixels.file}},
        rules=[] if misfit else family.rules(model, source=title),
        weights=WEIGHTS,
        usage=_USAGE,
        notes=pixels.notes,
        misfit=misfit,
    )


def _text_cfg(text: Arguments, spec: ModelSpec) -> dict[str, Any]:
    pools = {"eos": "argmax" if text.get("eos_id") is None else "eos", "cls": "first"}
    config = {
        "context_length": text.get("positions") or spec.input.context_length,
        "vocab_size": text["vocab_size"],
        "width": text["width"],
        "heads": text["heads"],
        "layers": text["depth"],
        "mlp_ratio": _ratio(text),
        "pool_type": pools.get(text["pool"], "last"),
        "no_causal_mask": not text["causal"],
        "proj_bias": spec.projections.get("text", "linear") == "affine",
        **_details(text),
    }
    if text.get("eos_id") is not None:
        config["eos_id"] = text["eos_id"]
    if spec.tokenizer:
        config |= {"hf_tokenizer_name": HF_TOKENIZER}
    if spec.input.text in ("canonicalize", "lower"):
        config["tokenizer_kwargs"] = {"clean": spec.input.text}
    return config


def _details(tower: Arguments) -> dict[str, Any]:
    """Return the settings of a tower that are seldom there."""
    epsilon, found = tower["block"]["norm_epsilon"], {}
    if not math.isclose(epsilon, 1e-5):
        found["norm_kwargs"] = {"eps": epsilon}
    if tower["activation"] == "gelu":
        found["act_kwargs"] = {"approximate": "tanh"}
    return found


def _ratio(tower: Arguments) -> float:
    """Return the `mlp_ratio` of which open_clip, which rounds down, makes the hidden width."""
    width, hidden = tower["width"], tower["block"]["mlp_hidden"]
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)


def _sizes(known: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sizes of a model of timm, with the hidden width of its MLPs in place of a ratio."""
    sizes = dict(known)
    return sizes | {"mlp_hidden": int(sizes.pop("mlp_ratio", 4.0) * sizes["width"])}


def _agreement(image: Arguments, *, name: str, sizes: Mapping[str, Any]) -> tuple[int, bool]:
    """Return how well the sizes of a model of timm fit: those that differ, negative; the name tells the resolution."""
    own = {**image, "mlp_hidden": image["block"]["mlp_hidden"]}
    return -sum(own.get(key) != value for key, value in _sizes(sizes).items()), name.endswith(f"_{image['image_size']}")


def _listed(sizes: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in sizes.items())
