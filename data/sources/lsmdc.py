"""LSMDC (the Large Scale Movie Description Challenge, 2016): clips of films with one sentence each."""

from pathlib import Path
from typing import Any

from ...base.errors import UserError
from .files import Folder, read_lines
from .source import Annotations, Source

_FILES = {
    "train": ("LSMDC16_annos_training.csv",),
    "val": ("LSMDC16_annos_val.csv",),
    "test": ("LSMDC16_challenge_1000_publictect.csv",),
}
_COLUMNS = ("clip_id", "start_aligned", "end_aligned", "start_extracted", "end_extracted", "sentence")


def read_lsmdc(folder: Path) -> Annotations:
    """Read the annotation files of LSMDC 2016.

    Args:
      folder: that has one or more of the files which `--list lsmdc` names.

    Raises:
      UserError: files that are missing or at fault.
    """
    files, found = Folder(folder), Annotations(expected={"test clips": 1000, "test captions": 1000})
    for split, names in _FILES.items():
        path = files.find(*names)
        if path is None:
            found.notes[f"split {split} left out, because --annotations has no {names[0]}"] += 1
            continue
        # In the training file a clip may come several times: each sentence is a caption of it.
        rows: dict[str, tuple[str, dict[str, Any]]] = {}
        for where, line in read_lines(path):
            cells = line.split("\t")
            if len(cells) != len(_COLUMNS):
                raise UserError(
                    f"{where}: has {len(cells)} fields, wanted {len(_COLUMNS)} with tabs between: {', '.join(_COLUMNS)}"
                )
            clip_id, *times, sentence = (cell.strip() for cell in cells)
            if clip_id.lower() == "clip_id":
                continue
            meta = dict(zip(_COLUMNS[1:-1], times, strict=True))
            first = {"clip_id": clip_id, "path": clip_id, "captions": [], "split": split, "meta": meta}
            rows.setdefault(clip_id, (where, first))[1]["captions"].append(sentence)
        for where, fields in rows.values():
            found.add(fields, where=where)
    if not found.clips:
        files.lacks(*(name for names in _FILES.values() for name in names))
    return found


SOURCES = (
    Source(
        name="lsmdc",
        title="LSMDC 2016: 118,000 clips of 202 films, a sentence each; 1,000 test clips",
        layout="""\
LSMDC16_annos_training.csv              six columns with tabs between, no header:
LSMDC16_annos_val.csv                     clip_id, start_aligned, end_aligned, start_extracted, end_extracted,
LSMDC16_challenge_1000_publictect.csv     sentence
One of the files is enough.""",
        videos="clip_id.avi, in a folder per film or not: 1004_Juno/1004_Juno_00.00.32.161-00.00.35.402.avi",
        published_at="https://sites.google.com/site/describingmovies/",
        licence="the owners give access on request, for research",
        notes="A clip with several sentences in the training file has several captions.",
        read=read_lsmdc,
    ),
)
