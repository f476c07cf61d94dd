"""Models as folders of transformers and open_clip, read back by `zoo.convert` and compared."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from ...base.errors import UserError
from ..convert.convert import convert
from ..convert.rules import to_tensors
from ..spec import ModelSpec
from . import open_clip, transformers_encoders, transformers_pairs
from .compare import Check, Written, largest_difference
from .form import canonical
from .layouts import Layout, Writer, fitting
from .tokenizer_files import write_tokenizer

WRITERS: dict[str, tuple[Writer, ...]] = {
    "hf": (
        transformers_pairs.clip,
        transformers_pairs.siglip,
        transformers_pairs.videoprism,
        *transformers_encoders.WRITERS,
    ),
    "open_clip": (open_clip.native, open_clip.timm),
}
"""Format -> the layouts that it has; the nearest one is taken."""
_BIAS = "bias"
_LOSS = ("log_scale", _BIAS)
"""Parameters of the loss, on which no embedding depends."""
_NO_BIAS = "the model has no bias of the sigmoid loss: logit_bias is 0, which leaves its logits as they are"


def write_public(
    spec: ModelSpec, *, params: Mapping[str, np.ndarray], folder: Path, format: str, tokenizer: str, name: str = ""
) -> Written:
    """Write a model as a folder of another library, read it back and compare.

    Args:
      spec: what the model is.
      params: "/"-joined path -> array.
      folder: exists; receives the files.
      format: a key of `WRITERS`.
      tokenizer: one of `tokenizer_files.MODES`.
      name: of the repository on the Hub that the folder is meant for, "" for none.

    Raises:
      UserError: the format cannot hold the model or its tokenizer, or what was written reads back differently.
    """
    own, values = canonical(spec, params=params)
    layout, others = fitting(own, params=values, writers=WRITERS[format], format=format)
    values, notes = _loss_parameters(values, layout=layout)
    notes += [f"frames of another size than that of training are encoded otherwise: {one}" for one in others]
    _write_tensors(values, layout=layout, folder=folder)
    for file, content in layout.files.items():
        _write_json(folder / file, _renamed(content, name=name))
    notes += [*layout.notes, *write_tokenizer(own, folder=folder, mode=tokenizer)]
    return Written(
        title=layout.title,
        checks=_read_back(spec, params=params, values=values, layout=layout, folder=folder),
        notes=notes,
        usage=layout.usage,
    )


def _loss_parameters(values: Mapping[str, np.ndarray], *, layout: Layout) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the parameters that the layout holds, and what becomes of those of the loss."""
    held = {path for one in layout.rules if one.sources for path in one.paths}
    kept, notes = {path: value for path, value in values.items() if path in held}, []
    for path in values.keys() - held:
        if path not in _LOSS:
            raise UserError(f"{layout.title} has no place for the parameter {path!r}; choose --format stablehlo")
        notes.append(f"{path} = {float(values[path]):.6g} is not in the folder: embeddings do not depend on it")
    if _BIAS in held and _BIAS not in values:
        kept[_BIAS] = np.zeros((), np.float32)
        notes.append(_NO_BIAS)
    return kept, sorted(notes)


def _write_tensors(values: Mapping[str, np.ndarray], *, layout: Layout, folder: Path) -> None:
    rules = [one for one in layout.rules if one.sources]
    tensors = to_tensors(values, rules=rules) | dict(layout.extra)
    arrays = {key: np.asarray(value, order="C") for key, value in tensors.items()}
    save_file(arrays, folder / layout.weights, {"format": "pt"})  # transformers asks for it


def _read_back(
    spec: ModelSpec,
    *,
    params: Mapping[str, np.ndarray],
    values: Mapping[str, np.ndarray],
    layout: Layout,
    folder: Path,
) -> list[Check]:
    """Convert the folder and compare with the model that was exported."""
    made = convert(folder, family=layout.family, options=layout.options)
    count = 0
    for path, value in values.items():
        if path not in made.params or not np.array_equal(made.params[path], value):
            raise UserError(
                f"{layout.title}: the parameter {path!r} reads back differently, so the folder was not written. This "
                "is a fault of twinreel; report it with the model's spec.json"
            )
        count += int(np.size(value))
    same = Check(name=f"{count:,} parameters", difference=0.0)
    other = dict(made.params) | {path: value for path, value in values.items() if path in _LOSS}
    return [same, *largest_difference((spec, params), (made.spec, other))]


def _renamed(content: Any, *, name: str) -> Any:
    """Return a config with the repository's name where open_clip looks for the tokenizer."""
    if not name or "model_cfg" not in content:
        return content
    text = dict(content["model_cfg"]["text_cfg"])
    if "hf_tokenizer_name" in text:
        text["hf_tokenizer_name"] = name
    return content | {"model_cfg": content["model_cfg"] | {"text_cfg": text}}


def _write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
