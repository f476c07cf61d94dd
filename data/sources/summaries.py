"""Video summaries: TVSum (scores of annotators) and SumMe (what annotators keep), from their MATLAB files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...base.errors import UserError
from .files import Folder
from .source import Annotations, Option, Source

_TVSUM = "ydata-tvsum50.mat"
_PART_FRAMES = 15  # of TVSum's scores, which are constant over 2 s: one is kept for every 0.5 s at 30 frames/s
_FOLD = Option(
    name="fold", default=1, choices=(1, 2, 3, 4, 5), help="every fifth video from this one on is for testing"
)


def read_tvsum(folder: Path, *, fold: int = 1) -> Annotations:
    """Read TVSum: `meta.importance` has the scores (1 to 5) of each annotator for equal parts of the video.

    Args:
      folder: that has ydata-tvsum50.mat, a MATLAB file of version 7.3 (HDF5).
      fold: 1 to 5, which videos are the test split.

    Raises:
      UserError: no such file, or one at fault; names the video.
    """
    import h5py

    path, found = Folder(folder).require(_TVSUM), Annotations(expected={"labels": 10})
    found.expected |= {"train clips": 40, "test clips": 10}
    try:
        with h5py.File(path) as file:
            for number, entry in enumerate(_entries(file, path=path)):
                where = f"{path}, video {number}"
                video, title, category = (
                    _text(entry[name], name, where=where) for name in ("video", "title", "category")
                )
                fields = {"clip_id": video, "path": video, "captions": [title] if title.strip() else []}
                fields |= {"labels": [category], "split": _split(number, fold=fold)}
                found.add(fields | {"meta": {"importance": _importance(entry, where=where)}}, where=where)
    except UserError:
        raise
    except Exception as error:  # h5py raises errors of many kinds on damaged files
        raise UserError(f"{path}: is no MATLAB file of version 7.3 ({error}); download it again") from error
    return found


def _entries(file: Any, *, path: Path) -> Iterator[dict[str, np.ndarray]]:
    """The fields of each video; MATLAB stores a struct array as references, one per field and element."""
    names = ("video", "title", "category", "nframes", "user_anno")
    table = file.get("tvsum50")
    missing = [name for name in names if table is None or name not in table]
    if table is None or missing:
        raise UserError(f"{path}: has no tvsum50/{missing[0]}; wanted the file of TVSum's owners")
    columns = {name: np.asarray(table[name]).reshape(-1) for name in names}
    for number in range(len(columns["video"])):
        yield {name: np.asarray(file[references[number]]) for name, references in columns.items()}


def _text(codes: np.ndarray, name: str, *, where: str) -> str:
    if codes.dtype.kind not in "iu":
        raise UserError(f"{where}: {name!r} is {codes.dtype} of shape {codes.shape}, wanted a text")
    return "" if codes.dtype.itemsize > 2 else "".join(map(chr, codes.reshape(-1).tolist()))  # an empty one is its size


def _importance(entry: dict[str, np.ndarray], *, where: str) -> list[list[float]]:
    scores, frames = entry["user_anno"], int(entry["nframes"].reshape(-1)[0])
    if scores.ndim == 2 and scores.shape[1] != frames:
        scores = scores.T
    if scores.ndim != 2 or scores.shape[1] != frames or not np.isfinite(scores).all():
        shape = entry["user_anno"].shape
        raise UserError(f"{where}: 'user_anno' of shape {shape} has no number for each of the {frames} frames")
    parts = max(1, round(frames / _PART_FRAMES))
    middle = ((np.arange(parts) + 0.5) * frames / parts).astype(np.int64)
    return scores[:, middle].astype(np.float64).tolist()


def read_summe(folder: Path, *, fold: int = 1) -> Annotations:
    """Read SumMe: `meta.summaries` has for each annotator the stretches that are kept, [start_s, end_s].

    Args:
      folder: that has VIDEO.mat for each video (the folder GT of the data set).
      fold: 1 to 5, which videos are the test split.

    Raises:
      UserError: no such files, or one at fault.
    """
    from scipy.io import loadmat

    files, found = Folder(folder), Annotations(expected={"train clips": 20, "test clips": 5})
    paths = files.ending(".mat")
    if not paths:
        files.lacks("VIDEO.mat")
    for number, path in enumerate(paths):
        try:
            given = loadmat(path, variable_names=("user_score", "FPS", "nFrames"))
        except Exception as error:  # SciPy raises errors of any kind on damaged files
            raise UserError(f"{path}: is no MATLAB file that can be read ({error}); download it again") from error
        fields = {"clip_id": path.stem, "path": path.stem, "split": _split(number, fold=fold)}
        found.add(fields | {"meta": {"summaries": _summaries(given, where=str(path))}}, where=str(path))
    return found


def _summaries(given: dict[str, Any], *, where: str) -> list[list[list[float]]]:
    missing = [name for name in ("user_score", "FPS", "nFrames") if name not in given]
    if missing:
        raise UserError(f"{where}: has no {missing[0]!r}; wanted a file of SumMe's folder GT")
    rate, frames = float(np.reshape(given["FPS"], -1)[0]), int(np.reshape(given["nFrames"], -1)[0])
    scores = np.asarray(given["user_score"])
    if scores.ndim != 2 or len(scores) != frames or not rate > 0:
        raise UserError(
            f"{where}: 'user_score' has shape {scores.shape}, nFrames is {frames} and FPS {rate:g}; wanted a row per "
            "frame, a column per annotator and a rate above 0"
        )
    return [[[first / rate, end / rate] for first, end in _runs(column > 0)] for column in scores.T]


def _runs(kept: np.ndarray) -> list[tuple[int, int]]:
    """First frame and the one after the last of each run of True.

    >>> _runs(np.array([1, 1, 0, 1]) > 0)
    [(0, 2), (3, 4)]
    """
    steps = np.flatnonzero(np.diff(np.concatenate([[0], kept.astype(np.int8), [0]])))
    return [(int(first), int(end)) for first, end in steps.reshape(-1, 2)]


def _split(number: int, *, fold: int) -> str:
    return "test" if number % 5 == fold - 1 else "train"


_SPLITS = (
    "There is no published split: papers draw five of their own, 80 to 20. Here the test split is every fifth video, "
    "and --fold says from which one on. The files of other projects (eccv16_dataset_*.h5) name neither TVSum's videos "
    "nor frames per second, so they are not read."
)

SOURCES = (
    Source(
        name="tvsum",
        title="TVSum: 50 videos of 10 categories, each with the scores of 20 annotators",
        layout="ydata-tvsum50.mat   of ydata-tvsum50-v1_1/matlab",
        videos="YOUTUBEID.mp4",
        published_at="https://github.com/yalesong/tvsum",
        licence="see the owners' repository; the videos belong to their uploaders",
        notes=(
            "meta.importance has the scores of each annotator, one for every 15 frames: they are constant over 2 s. "
            f"The title is the caption, the category the label. {_SPLITS}"
        ),
        options=(_FOLD,),
        read=read_tvsum,
    ),
    Source(
        name="summe",
        title="SumMe: 25 home videos, each with the summaries of 15 to 18 annotators",
        layout="VIDEO.mat   of the folder GT, one per video",
        videos="VIDEO.mp4",
        published_at="https://gyglim.github.io/me/vsum/index.html",
        licence="see the owners' page; the videos belong to their uploaders",
        notes=f"meta.summaries has the stretches that each annotator keeps. The videos have no captions. {_SPLITS}",
        options=(_FOLD,),
        read=read_summe,
    ),
)
