"""Models as StableHLO programs, which JAX alone runs (`jax.export`).

Each program takes its parameters as an argument; they are stored in an npz file next to it. A program is thus a few
dozen kilobytes, no file format limits the size of the model, XLA does not spend minutes folding constants, and other
parameters of the same shapes (a later step of the run) need no new export.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax import export

from ...data.text.tokenizer import tokenizer_from_meta, tokenizer_to_files
from ...engine.step.state import join, split_model
from ..spec import ModelSpec
from .compare import Check, Written, built, checked, encoder, random_inputs, refuse_heads

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
"""What a program is compiled for when it runs."""
_ROWS = 3
_SHAPES = {
    "video": "video uint8 [B,{0[0]},{0[1]},{0[2]},3], RGB 0..255",
    "text": "text int32 [B,{0[0]}], token ids; mask bool [B,{0[0]}], True = a real token",
    "features": "vectors float32 [B,{0[0]},{0[1]}]; mask bool [B,{0[0]}], True = a real one",
    "audio": "audio int16 [B,{0[0]}], 16 kHz; lengths int32 [B], real samples of each row",
}


def write_programs(
    spec: ModelSpec, *, params: Mapping[str, np.ndarray], folder: Path, tokenizer: str, platforms: Sequence[str]
) -> Written:
    """Write one program for each tower, its parameters, `spec.json` and the tokenizer's file; run them and compare.

    Args:
      spec: what the model is; any but one with a head.
      params: "/"-joined path -> array.
      folder: exists; receives the files.
      tokenizer: "none" leaves its file out.
      platforms: of `PLATFORMS`.

    Raises:
      UserError: a model with a head, or results that differ.
    """
    refuse_heads(spec)
    model = built(spec, params)
    checks: list[Check] = []
    for side, inputs in random_inputs(spec, rows=_ROWS).items():
        function, own = _function(model, side)
        (rows,) = export.symbolic_shape("b")
        shapes = [jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype) for x in inputs]
        like = {path: jax.ShapeDtypeStruct(value.shape, value.dtype) for path, value in own.items()}
        made = export.export(jax.jit(function), platforms=tuple(platforms))(like, *shapes)
        (folder / f"encode_{side}.stablehlo").write_bytes(made.serialize())
        arrays: dict[str, Any] = {path: np.asarray(value) for path, value in own.items()}
        np.savez(folder / f"encode_{side}.npz", **arrays)
        checks.append(_check(function, own, inputs, side=side, folder=folder))
    write_spec(spec, folder=folder, tokenizer=tokenizer)
    return Written(title="StableHLO programs", checks=checks, notes=_notes(spec, platforms), usage=usage(spec))


def usage(spec: ModelSpec) -> str:
    """Return the lines that run the programs."""
    side = next(iter(spec.towers))
    argument = {"video": "video", "text": "ids, mask", "audio": "sound, lengths"}[side]
    if spec.towers[side]["family"] == "features":
        argument = "vectors, mask"
    return "\n".join(
        [
            "import numpy as np",
            "from jax import export",
            "",
            f'program = export.deserialize(open("FOLDER/encode_{side}.stablehlo", "rb").read())',
            f'params = dict(np.load("FOLDER/encode_{side}.npz"))',
            f"embeddings = program.call(params, {argument})  # float32 [B,E], rows of unit length, any B",
        ]
    )


def _function(model: Any, side: str) -> tuple[Callable[..., jax.Array], dict[str, Any]]:
    """Return one encoder as a function of its parameters and its input, and these parameters."""
    graph, state = nnx.split(model)
    values = split_model(model)
    starts = (f"{side}/", f"{side}_projection/")
    own = {path: value for path, value in values.items() if path.startswith(starts)}
    flat = nnx.to_flat_state(state)

    def function(params: dict[str, Any], *inputs: Any) -> jax.Array:
        given = [(path, value.replace(params.get(join(path), value[...]))) for path, value in flat]
        return encoder(nnx.merge(graph, nnx.from_flat_state(given)), side)(*inputs)

    return function, own


def _check(
    function: Callable[..., jax.Array],
    own: dict[str, Any],
    inputs: tuple[np.ndarray, ...],
    *,
    side: str,
    folder: Path,
) -> Check:
    """Run what lies in the folder."""
    program = export.deserialize(bytearray((folder / f"encode_{side}.stablehlo").read_bytes()))
    with np.load(folder / f"encode_{side}.npz") as file:
        params = {name: file[name] for name in file.files}
    wanted = np.asarray(jax.jit(function)(own, *inputs))
    return checked(f"{side} embeddings", wanted, np.asarray(program.call(params, *inputs)))


def _notes(spec: ModelSpec, platforms: Sequence[str]) -> list[str]:
    notes = shapes_note(spec, call="`encode_{0}(params, ...)`")
    return [*notes, f"the programs run on {', '.join(platforms)}, with any batch B of at least 1"]


def write_spec(spec: ModelSpec, *, folder: Path, tokenizer: str) -> None:
    """Write `spec.json` and, unless `tokenizer` is "none", the tokenizer's own file."""
    written = spec.to_dict()
    if spec.tokenizer:
        made = tokenizer_from_meta(dict(spec.tokenizer))
        written["tokenizer"] = {} if tokenizer == "none" else tokenizer_to_files(made, folder=folder)
    (folder / "spec.json").write_text(json.dumps(written, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def shapes_note(spec: ModelSpec, *, call: str) -> list[str]:
    """Return what each program takes, and how token ids are made; "{0}" in `call` stands for the modality."""
    shapes = {side: inputs[0].shape[1:] for side, inputs in random_inputs(spec, rows=1).items()}
    kinds = {side: "features" if spec.towers[side]["family"] == "features" else side for side in shapes}
    notes = [f"{call.format(side)} takes {_SHAPES[kinds[side]].format(shape)}" for side, shape in shapes.items()]
    if spec.tokenizer.get("kind") in ("sentencepiece", "tokenizers"):
        library = spec.tokenizer["kind"]
        notes.append(f"token ids: the library {library} with the tokenizer's file; see `tokenizer` in `spec.json`")
    if spec.fusion:
        notes.append(f"the fused side {spec.fused_side!r} has no program; each modality is embedded by its own tower")
    return notes
