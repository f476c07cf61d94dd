"""The files of a public model: config, tensors and tokenizer, from a folder or from the Hugging Face Hub.

Tensors are read one by one when they are asked for, from safetensors (whole or sharded) or npz. Pickles are never read.
"""

import dataclasses
import functools
import hashlib
import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from ...base.errors import UserError
from ...data import hub
from ...data.text import families
from ...data.text.words import read_vectors

PICKLES = (".bin", ".pt", ".pth", ".pth.tar", ".ckpt", ".pkl", ".pickle", ".npy.pkl")
VECTORS = ("*.vec", "glove*.txt")
"""Names of files that hold word vectors as text."""
_INDEX = ".safetensors.index.json"
_TEXT = (".vec", ".txt")
_WANTED = ("*.json", "*.safetensors", "*.npz", "sentencepiece.model", *families.FILES)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceFiles:
    """A public model as it lies on disk.

    Attributes:
      name: what the user called it.
      folder: where its files are.
      revision: the commit on the Hub, "" for a local folder.
    """

    name: str
    folder: Path
    revision: str = ""

    def has(self, file: str) -> bool:
        """Tell whether there is such a file."""
        return (self.folder / file).is_file()

    def json(self, file: str) -> dict[str, Any]:
        """Read a JSON file; {} if there is none.

        Raises:
          UserError: it is damaged, or no object.
        """
        return self._loaded(file, kind=dict, wanted="an object of settings")

    def listing(self, file: str) -> list[Any]:
        """Read a JSON file that holds a list; [] if there is none.

        Raises:
          UserError: it is damaged, or no list.
        """
        return self._loaded(file, kind=list, wanted="a list")

    def _loaded(self, file: str, *, kind: type, wanted: str) -> Any:
        path = self.folder / file
        if not path.is_file():
            return kind()
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read: {error}; fetch it again") from error
        if not isinstance(value, kind):
            raise UserError(f"{path} holds a {type(value).__name__}, wanted {wanted}; fetch it again")
        return value

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        """`config.json`, {} if there is none."""
        return self.json("config.json")

    @functools.cached_property
    def tensors(self) -> "Tensors":
        """The tensors by name.

        Raises:
          UserError: there are none that can be read (pickles are refused), or a file is damaged.
        """
        return Tensors(self.folder, name=self.name)

    def tokenizer(self, *, ends: bool = False) -> dict[str, Any]:
        """Return the tokenizer's meta, as `ModelSpec.tokenizer` holds it; {} if there are no files of one.

        Args:
          ends: an end token follows each text, see `families.read_folder`.

        Raises:
          UserError: its files cannot be read, or are of a kind that is not known.
        """
        if not any(self.has(file) for file in families.WHOLE):
            return {}
        return families.read_folder(self.folder, ends=ends).to_meta()


def find(source: str | Path, *, revision: str = "") -> SourceFiles:
    """Find the files of a source; those on the Hub are fetched into its cache.

    Args:
      source: a folder, a file in it, or `hf:ORGANISATION/NAME[@REVISION]`.
      revision: a branch, tag or commit of the Hub, "" = the one in `source`, or else main.

    Raises:
      UserError: no such place, or the Hub cannot be reached.
    """
    text = str(source)
    if hub.is_hub(text):
        folder = hub.fetch(text, patterns=_WANTED, what="model", revision=revision)
        return SourceFiles(name=text, folder=folder, revision=folder.name)
    path = Path(source)
    if not path.exists():
        raise UserError(
            f"{text!r} does not exist; give a folder of public weights, a bundle, a run, or hf:ORGANISATION/NAME"
        )
    return SourceFiles(name=text, folder=path if path.is_dir() else path.parent)


def looks_public(path: Path) -> bool:
    """Tell whether a folder has files of public weights, pickles among them (which `find` then refuses)."""
    if not path.is_dir():
        return path.name.endswith((".safetensors", ".npz", *PICKLES)) and path.is_file()
    return any(file.name.endswith((".safetensors", ".npz", *PICKLES)) for file in path.iterdir() if file.is_file())


class Tensors(Mapping[str, np.ndarray]):
    """The tensors of a folder by name, read when asked for."""

    def __init__(self, folder: Path, *, name: str):
        """Open the files.

        Args:
          folder: with `*.safetensors` (one file, or shards with their index) or one `*.npz`.
          name: of the source, for errors.

        Raises:
          UserError: neither is there, or a file is damaged.
        """
        self._name = name
        self._where: dict[str, Path] = {}
        for path in _weight_files(folder, name=name):
            for tensor in _names(path):
                self._where[tensor] = path

    def __getitem__(self, key: str) -> np.ndarray:
        """Read a tensor; bfloat16 and float16 become float32."""
        path = self._where[key]
        if path.suffix in _TEXT:
            return _vectors(path, path.stat().st_mtime_ns)[1]
        value = _member(path, key) if path.suffix == ".npz" else _read(path, key)
        return value.astype(np.float32) if value.dtype.kind in "fV" and value.dtype.itemsize == 2 else value

    def words(self) -> list[str]:
        """Return the words of a file of word vectors, whose only tensor is "vectors"."""
        path = self._where["vectors"]
        return _vectors(path, path.stat().st_mtime_ns)[0]

    @functools.cached_property
    def sha256(self) -> str:
        """SHA-256 (hex) of the file, as the Hub shows it; of several files, of one line `HASH  NAME` for each."""
        lines = []
        for path in sorted(set(self._where.values())):
            lines.append((_digest(path, path.stat().st_mtime_ns), path.name))
        if len(lines) == 1:
            return lines[0][0]
        return hashlib.sha256("".join(f"{digest}  {name}\n" for digest, name in lines).encode()).hexdigest()

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)


def _weight_files(folder: Path, *, name: str) -> list[Path]:
    indices = sorted(folder.glob(f"*{_INDEX}"))
    if indices:
        return _shards(indices[0])
    safe, arrays = sorted(folder.glob("*.safetensors")), sorted(folder.glob("*.npz"))
    found = safe or arrays or sorted(path for pattern in VECTORS for path in folder.glob(pattern))
    if len(found) == 1:
        return found
    if found:
        listed = ", ".join(path.name for path in found)
        raise UserError(f"{name} has several files of weights ({listed}); give a folder with one of them and a config")
    pickles = sorted(path for path in folder.iterdir() if path.name.endswith(PICKLES))
    if pickles:
        raise UserError(_refusal(pickles[0]))
    listed = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
    raise UserError(
        f"{name} has no weights: wanted *.safetensors (with config.json or open_clip_config.json) or *.npz, found "
        f"{listed}. `twinreel convert --list` shows what can be read"
    )


def _refusal(pickle: Path) -> str:
    return (
        f"{pickle} is a pickle, which can run any code when it is opened, so twinreel reads none. Where you trust it, "
        "turn it into safetensors with these two lines (PyTorch and safetensors installed), and give that folder:\n"
        f"  import torch; from safetensors.torch import save_file; d = torch.load({pickle.name!r}, weights_only=True)\n"
        f"  save_file({{k: v.contiguous() for k, v in d.get('state_dict', d).items()}}, {_stem(pickle)!r})"
    )


def _stem(pickle: Path) -> str:
    return pickle.name.removesuffix(next(end for end in PICKLES[::-1] if pickle.name.endswith(end))) + ".safetensors"


def _shards(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        paths = [index.parent / Path(name).name for name in names]
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(f"{index} cannot be read: {error!r}; fetch it again") from error
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise UserError(f"{index.name} names {len(paths)} shards, of which {', '.join(missing)} are missing")
    return paths


def _names(path: Path) -> list[str]:
    if path.suffix in _TEXT:
        return ["vectors"]
    if path.suffix == ".npz":
        return list(_npz(path, path.stat().st_mtime_ns).files)
    try:
        with safe_open(path, framework="numpy") as file:
            return list(file.keys())
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} is no whole safetensors file: {error}; fetch it again") from error


def _read(path: Path, key: str) -> np.ndarray:
    try:
        with safe_open(path, framework="numpy") as file:
            return file.get_tensor(key)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: tensor {key!r} cannot be read: {error}; fetch the file again") from error


@functools.lru_cache(maxsize=1)
def _vectors(path: Path, changed: int) -> tuple[list[str], np.ndarray]:
    """Read word vectors, once for as long as the file's time of change (ns) is the same."""
    del changed
    return read_vectors(path)


@functools.lru_cache(maxsize=64)
def _digest(path: Path, changed: int) -> str:
    """Return the SHA-256 of a file, computed once for as long as its time of change (ns) is the same."""
    del changed
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _member(path: Path, key: str) -> np.ndarray:
    try:
        return _npz(path, path.stat().st_mtime_ns)[key]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path}: array {key!r} cannot be read: {error}; fetch the file again") from error


@functools.lru_cache(maxsize=4)
def _npz(path: Path, changed: int) -> Any:
    """Open a file, once for as long as its time of change (ns) is the same."""
    del changed
    if not zipfile.is_zipfile(path):  # numpy would leave the file open
        raise UserError(f"{path} is no whole npz file of arrays; fetch it again")
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no whole npz file of arrays: {error}; fetch it again") from error
