"""Bundles: a model as a folder of three files that other programs can read, `spec.json`, tokenizer, safetensors."""

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ..base.errors import UserError
from ..data.text.tokenizer import tokenizer_from_files, tokenizer_from_meta, tokenizer_to_files
from .spec import ModelSpec

SPEC = "spec.json"
"""What the model is, see `zoo.spec.ModelSpec`."""
WEIGHTS = "model.safetensors"
"""The parameters by their "/"-joined paths."""
HEADS = "heads"
"""Folder of the tokenizers that heads have of their own, `heads/NAME`."""


def is_bundle(path: str | Path) -> bool:
    """Tell whether a path is a folder with a spec and parameters."""
    return (Path(path) / SPEC).is_file() and (Path(path) / WEIGHTS).is_file()


def write_bundle(folder: str | Path, *, spec: ModelSpec, params: Mapping[str, np.ndarray]) -> Path:
    """Write a bundle; the folder is whole or absent.

    Args:
      folder: where it goes; must not exist yet, or be empty.
      spec: what the model is, with the tokenizer's meta.
      params: "/"-joined path -> array, of any dtype that safetensors has.

    Returns:
      The folder.

    Raises:
      UserError: the folder holds something already.
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty; give another folder for the bundle, or remove that one")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        written = spec.to_dict()
        if spec.tokenizer:
            written["tokenizer"] = tokenizer_to_files(tokenizer_from_meta(dict(spec.tokenizer)), folder=partial)
        for name, head in written["heads"].items():
            if head.get("tokenizer"):
                own = partial / HEADS / name
                own.mkdir(parents=True)
                made = tokenizer_to_files(tokenizer_from_meta(dict(head["tokenizer"])), folder=own)
                written["heads"][name] = {**head, "tokenizer": made}
        save_file({path: np.asarray(value, order="C") for path, value in params.items()}, partial / WEIGHTS)
        (partial / SPEC).write_text(json.dumps(written, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        partial.chmod(0o755)  # mkdtemp's folder is for its owner alone
        if folder.exists():
            folder.rmdir()
        partial.replace(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return folder


def read_spec(folder: str | Path) -> ModelSpec:
    """Read what a bundle's model is; the tokenizer's files are taken into the spec.

    Raises:
      UserError: no such file, or it is not what `write_bundle` writes.
    """
    path = Path(folder) / SPEC
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}; wanted the spec.json of a bundle") from error
    spec = ModelSpec.from_dict(values, name=str(path))
    heads = {
        name: _with_tokenizer(head, folder=path.parent / HEADS / name) if head.get("tokenizer") else head
        for name, head in spec.heads.items()
    }
    spec = spec.replace(heads=heads)
    return (
        spec.replace(**_with_tokenizer({"tokenizer": spec.tokenizer}, folder=path.parent)) if spec.tokenizer else spec
    )


def _with_tokenizer(fields: Mapping[str, Any], *, folder: Path) -> dict[str, Any]:
    """Return fields of which `tokenizer` names a file in `folder`, with its content instead."""
    return {**fields, "tokenizer": tokenizer_from_files(dict(fields["tokenizer"]), folder=folder).to_meta()}


def read_params(folder: str | Path) -> dict[str, np.ndarray]:
    """Read the parameters of a bundle.

    Raises:
      UserError: no such file, or it is damaged.
    """
    path = Path(folder) / WEIGHTS
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{path} cannot be read: {error}; the bundle is incomplete or damaged, fetch it again"
        ) from error
