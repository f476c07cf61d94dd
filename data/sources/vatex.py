"""VATEX: clips of Kinetics-600 with ten English and ten Chinese captions each."""

from collections.abc import Iterable
from pathlib import Path

from ...base.errors import UserError
from ..manifest import Clip
from .files import Folder, expect, member, read_ids, read_json
from .source import Annotations, Option, Source
from .windows import cut_from, trimmed_name

_FILES = {
    "train": ("vatex_training_v1.0.json",),
    "val": ("vatex_validation_v1.0.json",),
    "test": ("vatex_public_test_english_v1.1.json", "vatex_public_test_english_v1.0.json"),
}
_CAPTIONS = {"en": "enCap", "zh": "chCap"}
_ALL = {"train clips": 25991, "val clips": 3000, "test clips": 6000}


def read_vatex(folder: Path, *, variant: str = "hgr", text: str = "en") -> Annotations:
    """Read the annotation files of VATEX.

    Args:
      folder: that has the files which `--list vatex` names.
      variant: "hgr", where val and test are two halves of the owners' validation file as two lists say; or "all", where
        each file of the owners is a split.
      text: "en" or "zh", the captions' language.

    Raises:
      UserError: files that are missing or at fault, or an id of a list that the validation file does not have.
    """
    files, found = Folder(folder), Annotations()
    train = files.find(*_FILES["train"])
    if train is None:
        found.notes[f"split train left out, because --annotations has no {_FILES['train'][0]}"] += 1
    else:
        _add(found, _captions(train, text=text), split="train", path=train)
    if variant == "hgr":
        found.expected = {"train clips": 25991, "val clips": 1500, "test clips": 1500}
        path = files.require(*_FILES["val"])
        captions = _captions(path, text=text)
        for split in ("val", "test"):
            listed = files.require(f"{split}_list.txt")
            ids = read_ids(listed)
            for name in ids:
                if name not in captions:
                    raise UserError(f"{listed}: clip {name!r} does not stand in {path}; give the lists of that split")
            _add(found, {name: captions[name] for name in ids}, split=split, path=path)
        return found
    found.expected = dict(_ALL)
    for split in ("val", "test"):
        path = files.find(*_FILES[split])
        if path is None:
            found.notes[f"split {split} left out, because --annotations has no {_FILES[split][0]}"] += 1
        else:
            _add(found, _captions(path, text=text), split=split, path=path)
    if not found.clips:
        files.lacks(*(name for names in _FILES.values() for name in names))
    return found


def _captions(path: Path, *, text: str) -> dict[str, list[str]]:
    captions: dict[str, list[str]] = {}
    for index, record in enumerate(read_json(path, kind=list)):
        where = f"{path}, entry {index}"
        record = expect(record, dict, what="the entry", where=where)
        name = member(record, "videoID", str, where=where)
        if name in captions:
            raise UserError(f"{where}: videoID {name!r} stands in the file already; remove one of the two")
        captions[name] = member(record, _CAPTIONS[text], list, where=where)
    return captions


def _add(found: Annotations, captions: dict[str, list[str]], *, split: str, path: Path) -> None:
    for name, texts in captions.items():
        fields = {"clip_id": name, "path": name, "captions": texts, "split": split}
        found.add(fields, where=f"{path}, videoID {name!r}")


def _alternatives(clip: Clip) -> Iterable[Clip]:
    if parts := trimmed_name(clip.clip_id):
        yield cut_from(clip, path=parts[0], start_s=parts[1], end_s=parts[2])


SOURCES = (
    Source(
        name="vatex",
        title="VATEX: 35,000 clips of Kinetics-600, ten English and ten Chinese captions each",
        layout="""\
vatex_training_v1.0.json              [{videoID, enCap: [...], chCap: [...]}, ...]
vatex_validation_v1.0.json            likewise
val_list.txt, test_list.txt           hgr: the 1,500 validation clips of each half, one videoID per line
vatex_public_test_english_v1.1.json   all: likewise, English captions only""",
        videos="youtubeid_000012_000022.mp4; or the whole youtubeid.mp4, from which the window is cut",
        published_at="https://eric-xw.github.io/vatex-website/",
        licence="annotations CC BY 4.0; the videos belong to their uploaders",
        notes=(
            "Papers differ: the split of HGR tests on 1,500 of the 3,000 validation clips, others on all of them or on "
            "the public test set, with however many videos were still online. Numbers compare only on one subset id."
        ),
        options=(
            Option(name="variant", default="hgr", choices=("hgr", "all"), help="splits"),
            Option(name="text", default="en", choices=("en", "zh"), help="language of the captions"),
        ),
        read=read_vatex,
        alternatives=_alternatives,
    ),
)
