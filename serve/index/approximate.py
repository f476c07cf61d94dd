"""Approximate indexes of large collections (FAISS): which kind, how one is built, and where it lies.

HNSW: Malkov & Yashunin 2018 (arXiv:1603.09320), over rows of 8 bits a dimension. Inverted lists with product
quantisation (IVF-PQ): Jégou et al. 2011.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console
from rich.progress import Progress

from ...base.errors import UserError, unknown
from ...evaluate.measures.neighbours import has_faiss
from .database import ModelRow
from .store import Store
from .vectors import vector_file

KINDS = ("auto", "flat", "hnsw", "ivfpq")
LARGE = 1_000_000
"""Vectors up to which search is exact by default."""

_REBUILD = 0.8  # share of the vectors that an index must cover to be kept; the others are searched exactly
_LINKS, _BUILD_EFFORT = 32, 100  # of HNSW: neighbours of a node, and candidates while building
_LEAST_PQ = 39 * 256  # vectors that product quantisation is trained on, at least
_TRAIN, _ROUNDS = 160_000, 10  # rows from which lists and quantisers are learned, and rounds of k-means
_PER_CENTROID = 64  # rows for each of the 256 centroids of a part of product quantisation
_BLOCK = 65_536


def approximate_file(folder: Path, *, model: ModelRow, side: str) -> Path:
    """Return the path of the approximate index of a model's side."""
    path = vector_file(folder, model=model.id, side=side, generation=model.generation)
    return path.with_suffix(".faiss")


def choose(kind: str, *, count: int, width: int) -> str:
    """Return the kind of index for `count` vectors: "flat" (exact), "hnsw" or "ivfpq".

    "auto" is exact up to a million vectors. Above, HNSW is taken if its vectors and links fit in half of the memory,
    IVF-PQ otherwise. Without FAISS it is exact.

    Raises:
      UserError: an unknown kind, FAISS is not installed, or too few vectors for IVF-PQ.
    """
    if kind not in KINDS:
        raise unknown("--ann", kind, KINDS)
    if kind == "auto":
        if count <= LARGE or not has_faiss():
            return "flat"
        return "hnsw" if count * (width + 8 * _LINKS) < psutil.virtual_memory().total / 2 else "ivfpq"
    if kind != "flat" and not has_faiss():
        raise UserError(f"--ann {kind} needs FAISS: pip install 'twinreel[serve]'")
    if kind == "ivfpq" and count < _LEAST_PQ:
        raise UserError(
            f"--ann ivfpq is trained on at least {_LEAST_PQ:,} moments, the index has {count:,}; use auto or flat"
        )
    return kind


def build_approximate(store: Store, *, model: ModelRow, kind: str, progress: bool = False) -> dict[str, str]:
    """Build or renew the approximate indexes of a model; return the kind of search of each of its sides.

    An index that covers four fifths of the vectors is kept: what was added since is searched exactly.

    Raises:
      UserError: see `choose`.
    """
    kinds = {}
    for side in model.sides:
        vectors = store.mapped(model, side)
        if not len(vectors):
            continue
        chosen = choose(kind, count=len(vectors), width=model.width)
        path = approximate_file(store.folder, model=model, side=side)
        before = json.loads(model.ann or "{}").get(side)
        if chosen == "flat":
            path.unlink(missing_ok=True)
        elif before != chosen or not path.is_file() or _read(path).ntotal < _REBUILD * len(vectors):
            _write(path, _build(vectors, kind=chosen, progress=progress))
        kinds[side] = chosen
    found = {side: chosen for side, chosen in kinds.items() if chosen != "flat"}
    store.set_ann(model, kind=json.dumps(found) if found else "")
    return kinds


def _build(vectors: np.ndarray, *, kind: str, progress: bool) -> Any:
    """Return an index of all rows, those of removed moments included, so that a row's number is its place."""
    import faiss  # pyright: ignore[reportMissingImports]

    width = vectors.shape[1]
    if kind == "hnsw":
        # Candidates are scored again with the full rows: 8 bits find the same ones with a quarter of the memory.
        eight_bits: Any = faiss.ScalarQuantizer.QT_8bit
        index: Any = faiss.IndexHNSWSQ(width, eight_bits, _LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = _BUILD_EFFORT
    else:
        lists = max(1, min(round(4 * math.sqrt(len(vectors))), len(vectors) // 39))
        parts = max(part for part in range(1, max(width // 4, 1) + 1) if width % part == 0)
        index = faiss.index_factory(width, f"IVF{lists},PQ{parts}", faiss.METRIC_INNER_PRODUCT)
        index.cp.niter = index.pq.cp.niter = _ROUNDS
        index.pq.cp.max_points_per_centroid = _PER_CENTROID
    chosen = np.random.default_rng(0).permutation(len(vectors))[:_TRAIN]
    index.train(np.array(vectors[np.sort(chosen)]))
    with Progress(console=Console(stderr=True), disable=not progress, transient=True) as bar:
        task = bar.add_task(f"build {kind}", total=len(vectors))
        for start in range(0, len(vectors), _BLOCK):
            index.add(np.array(vectors[start : start + _BLOCK]))
            bar.update(task, completed=min(start + _BLOCK, len(vectors)))
    return index


def _write(path: Path, index: Any) -> None:
    import faiss  # pyright: ignore[reportMissingImports]

    temporary = path.with_suffix(".faiss.tmp")
    faiss.write_index(index, str(temporary))
    temporary.replace(path)


def _read(path: Path) -> Any:
    import faiss  # pyright: ignore[reportMissingImports]

    # The older flag maps inverted lists only, and reads HNSW into the memory of each process.
    return faiss.read_index(str(path), getattr(faiss, "IO_FLAG_MMAP_IFC", faiss.IO_FLAG_MMAP))


def open_approximate(path: Path, *, count: int) -> Any:
    """Open an approximate index for searches of about `count` neighbours; None if there is none, or no FAISS.

    The effort of its searches is set such that far more than `count` candidates are looked at.
    """
    if not path.is_file() or not has_faiss():
        return None
    index = _read(path)
    if hasattr(index, "hnsw"):
        index.hnsw.efSearch = max(128, 2 * count)
    elif hasattr(index, "nprobe"):
        index.nprobe = max(1, min(64, index.nlist))
    return index
