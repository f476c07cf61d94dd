"""Models as ONNX programs, by jax2onnx, checked with ONNX Runtime. The three libraries are not among our own."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export

from ...base.errors import UserError
from ..spec import ModelSpec
from .compare import Written, built, checked, encoder, random_inputs, refuse_heads
from .stablehlo import shapes_note, write_spec

LIBRARIES = ("jax2onnx", "onnx", "onnxruntime")
_INSTALL = (
    "pip install 'twinreel[onnx]' and then pip install --no-deps jax2onnx (whose requirements name an older "
    "orbax-checkpoint than twinreel's; it runs with the newer one)"
)
_NAMES = {"video": ["video", "mask"], "text": ["text", "mask"], "audio": ["audio", "lengths"]}
"""Modality -> names of the inputs; frames have no mask."""
_OUTPUT = "embeddings"
_ROWS = 3
_LARGE = 1_500_000_000
"""Bytes of parameters above which they go to a file beside the program: one file of ONNX holds at most 2 GB."""


def write_onnx(spec: ModelSpec, *, params: Mapping[str, np.ndarray], folder: Path, tokenizer: str) -> Written:
    """Write one program for each tower, `spec.json` and the tokenizer's file; run them and compare.

    Args:
      spec: what the model is; any but one with a head.
      params: "/"-joined path -> array.
      folder: exists; receives the files.
      tokenizer: "none" leaves its file out.

    Raises:
      UserError: a library that is not installed, an operation that jax2onnx does not know, or results that differ.
    """
    refuse_heads(spec)
    jax2onnx, onnx, onnxruntime = libraries()
    model, checks = built(spec, params), []
    (rows,) = export.symbolic_shape("B")
    large = sum(value.nbytes for value in params.values()) > _LARGE
    for side, inputs in random_inputs(spec, rows=_ROWS).items():
        shapes = [jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype) for x in inputs]
        function, path = encoder(model, side), folder / f"encode_{side}.onnx"
        own = _NAMES[side][: len(inputs)]
        names = {"input_names": own, "output_names": [_OUTPUT]}
        try:
            made = jax2onnx.to_onnx(function, shapes, model_name=f"encode_{side}", **names)
        except Exception as error:  # whatever the library does not know
            why = (str(error).strip().splitlines() or [""])[0]
            raise UserError(
                f"jax2onnx cannot write the {side} tower ({type(error).__name__}: {why}); choose --format stablehlo"
            ) from error
        beside = {"save_as_external_data": True, "location": f"{path.name}.data"} if large else {}
        onnx.save(made, str(path), **beside)
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        (found,) = session.run([_OUTPUT], dict(zip(own, inputs, strict=True)))
        checks.append(checked(f"{side} embeddings", np.asarray(jax.jit(function)(*inputs)), found))
    write_spec(spec, folder=folder, tokenizer=tokenizer)
    notes = [*shapes_note(spec, call="`encode_{0}.onnx`"), "the batch B is any number of at least 1"]
    return Written(title="ONNX programs", checks=checks, notes=notes, usage=_usage(spec))


def libraries() -> list[Any]:
    """Import the libraries.

    Raises:
      UserError: one of them is not installed.
    """
    try:
        return [importlib.import_module(name) for name in LIBRARIES]
    except ImportError as error:
        raise UserError(f"--format onnx needs {error.name}, which is not installed: {_INSTALL}") from error


def _usage(spec: ModelSpec) -> str:
    side = next(iter(spec.towers))
    frames = side == "video" and spec.towers[side]["family"] != "features"
    given = ", ".join(f'"{name}": {name}' for name in _NAMES[side][: 1 if frames else 2])
    return "\n".join(
        [
            "import onnxruntime",
            "",
            f'session = onnxruntime.InferenceSession("FOLDER/encode_{side}.onnx")',
            f"(embeddings,) = session.run(None, {{{given}}})  # float32 [B,E], rows of unit length, any B",
        ]
    )
