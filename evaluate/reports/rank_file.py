"""The rank of each query of a report, as a file of arrays."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..embedding.embeddings import Embeddings
from ..measures.ranks import Ranks
from ..npz import read_npz, write_npz
from ..protocols.directions import DIRECTIONS


def write_ranks(path: Path, *, embeddings: Embeddings, ranks: Mapping[str, Ranks]) -> None:
    """Write the rank of each query, from 1, as an `.npz`, atomically.

    The arrays: `text_to_video_expected`, `_optimistic` and `_pessimistic` [n], one per text; the same of
    `video_to_text` [c], one per video that has a text; `video_of_text` int [n], each text's video; `video` int [c],
    the video of each row of `video_to_text`; and, where known, `clip_ids` [m] of all videos.

    Args:
      path: of the file.
      embeddings: whose texts and videos are ranked.
      ranks: of the embeddings, see `directions.all_ranks`.
    """
    index = np.asarray(embeddings.video_of_text)
    arrays: dict[str, np.ndarray] = {"video_of_text": index, "video": np.unique(index)}
    for name in DIRECTIONS:
        for case in ("expected", "optimistic", "pessimistic"):
            arrays[f"{name}_{case}"] = getattr(ranks[name], case)
    if embeddings.rows:
        arrays["clip_ids"] = np.array([row["clip_id"] for row in embeddings.rows], dtype=np.str_)
    write_npz(path, **arrays)


def read_ranks(path: Path) -> tuple[Ranks, Ranks]:
    """Return the ranks of a file that `write_ranks` wrote."""
    wanted = {f"{name}_{case}": "int [n]" for name in DIRECTIONS for case in ("optimistic", "pessimistic")}
    arrays = read_npz(path, wanted=wanted)
    found = []
    for name in DIRECTIONS:
        best, worst = (arrays[f"{name}_{case}"] for case in ("optimistic", "pessimistic"))
        found.append(Ranks(above=best - 1, equal=worst - best))
    return found[0], found[1]
