"""Pictures with captions as clips of one frame: COCO by its own files or by Karpathy's splits, and Flickr30k."""

from pathlib import Path
from typing import Any

from ...base.errors import UserError
from .files import Folder, expect, member, read_json
from .source import Annotations, Option, Source

_COUNTS = {
    "2017": {
        **{"train clips": 118_287, "train captions": 591_753},
        **{"val clips": 5_000, "val captions": 25_014},
    },
    "2014": {
        **{"train clips": 82_783, "train captions": 414_113},
        **{"val clips": 40_504, "val captions": 202_654},
    },
    "karpathy": {
        **{"train clips": 113_287, "train captions": 566_747},
        **{"val clips": 5_000, "val captions": 25_010},
        **{"test clips": 5_000, "test captions": 25_010},
    },
}
_FLICKR = {
    **{"train clips": 29_000, "train captions": 145_000},
    **{"val clips": 1_014, "val captions": 5_070},
    **{"test clips": 1_000, "test captions": 5_000},
}
_RESTVAL = "pictures of restval taken into train, as papers do"


def read_coco(folder: Path, *, variant: str = "karpathy") -> Annotations:
    """Read COCO captions.

    Args:
      folder: that has the files which `--list coco` names.
      variant: "karpathy" (5,000 test pictures, on which retrieval is measured), or the owners' own splits of "2014" or
        "2017".

    Raises:
      UserError: files that are missing or at fault.
    """
    files, found = Folder(folder), Annotations(expected=dict(_COUNTS[variant]))
    if variant == "karpathy":
        _karpathy(files.require("dataset_coco.json"), found)
        return found
    for split in ("train", "val"):
        path = files.find(f"captions_{split}{variant}.json")
        if path is not None:
            _captions(path, found, split=split, images=f"{split}{variant}")
    if not found.clips:
        files.lacks(f"captions_train{variant}.json", f"captions_val{variant}.json")
    return found


def read_flickr30k(folder: Path) -> Annotations:
    """Read Flickr30k by Karpathy's splits.

    Args:
      folder: that has dataset_flickr30k.json.

    Raises:
      UserError: the file is missing or at fault.
    """
    found = Annotations(expected=dict(_FLICKR))
    _karpathy(Folder(folder).require("dataset_flickr30k.json"), found)
    return found


def _captions(path: Path, found: Annotations, *, split: str, images: str) -> None:
    """The owners' form: `images` with id and file_name, `annotations` with image_id and caption, in order of its id."""
    data = read_json(path, kind=dict)
    entries: dict[int, dict[str, Any]] = {}
    for index, record in enumerate(member(data, "images", list, where=str(path))):
        where = f"{path}, images[{index}]"
        record = expect(record, dict, what="the entry", where=where)
        number = member(record, "id", int, where=where)
        if number in entries:
            raise UserError(f"{where}: id {number} stands in {entries[number]['where']} already; remove one of the two")
        name = member(record, "file_name", str, where=where)
        entries[number] = {"where": where, "name": name, "captions": []}
    for index, record in enumerate(member(data, "annotations", list, where=str(path))):
        where = f"{path}, annotations[{index}]"
        record = expect(record, dict, what="the entry", where=where)
        number = member(record, "image_id", int, where=where)
        if number not in entries:
            raise UserError(f"{where}: image_id {number} is not among the images of the file; fetch the file again")
        caption = member(record, "caption", str, where=where)
        entries[number]["captions"].append((member(record, "id", int, where=where), caption))
    for number, entry in entries.items():
        captions = [caption for _, caption in sorted(entry["captions"], key=lambda pair: pair[0])]
        _add(found, entry["name"], images, captions, split=split, meta={"image_id": number}, where=entry["where"])


def _karpathy(path: Path, found: Annotations) -> None:
    """Karpathy's form: `images` with filename, split and sentences; COCO's have filepath and cocoid too."""
    for index, record in enumerate(member(read_json(path, kind=dict), "images", list, where=str(path))):
        where = f"{path}, images[{index}]"
        record = expect(record, dict, what="the entry", where=where)
        split = member(record, "split", str, where=where)
        if split == "restval":
            split = "train"
            found.notes[_RESTVAL] += 1
        captions = [
            member(expect(sentence, dict, what="the sentence", where=where), "raw", str, where=where)
            for sentence in member(record, "sentences", list, where=where)
        ]
        folder = member(record, "filepath", str, where=where) if "filepath" in record else ""
        meta = {"image_id": member(record, "cocoid", int, where=where)} if "cocoid" in record else {}
        _add(found, member(record, "filename", str, where=where), folder, captions, split=split, meta=meta, where=where)


def _add(
    found: Annotations, name: str, folder: str, captions: list[str], *, split: str, meta: dict[str, Any], where: str
) -> None:
    fields = {
        "clip_id": name.rpartition(".")[0] or name,
        "path": f"{folder}/{name}" if folder else name,
        "captions": captions,
        "split": split,
        "meta": meta,
    }
    found.add(fields, where=where)


_NOTE = (
    "Each picture is a clip of one frame. Retrieval on the 5,000 test pictures uses all captions: 5 of each, or a few "
    "more for some pictures of COCO (25,010); papers that say 5K mean this split."
)

SOURCES = (
    Source(
        name="coco",
        title="COCO captions: 123,287 pictures with five captions each; retrieval on Karpathy's 5,000 test pictures",
        layout="""\
karpathy: dataset_coco.json                           {images: [{filepath, filename, split, sentences: [{raw}]}]}
2017: captions_train2017.json, captions_val2017.json  {images: [{id, file_name}], annotations: [{image_id, caption}]}
2014: captions_train2014.json, captions_val2014.json  likewise; one of the two is enough""",
        videos="train2014/, val2014/: COCO_val2014_000000000042.jpg ...; 2017: val2017/: 000000000042.jpg ...",
        published_at="https://cocodataset.org/#download",
        licence="captions CC BY 4.0; the pictures belong to their Flickr uploaders",
        notes=_NOTE,
        options=(
            Option(
                name="variant",
                default="karpathy",
                choices=("karpathy", "2014", "2017"),
                help="splits: Karpathy's, or the owners' of a year",
            ),
        ),
        read=read_coco,
    ),
    Source(
        name="flickr30k",
        title="Flickr30k: 31,014 pictures with five captions each; 1,000 test pictures",
        layout="dataset_flickr30k.json   {images: [{filename, split, sentences: [{raw}]}]} (Karpathy's splits)",
        videos="1000092795.jpg ...",
        published_at="https://shannon.cs.illinois.edu/DenotationGraph/",
        licence="research and education; the pictures belong to their Flickr uploaders",
        notes="Each picture is a clip of one frame.",
        read=read_flickr30k,
    ),
)
