"""MSR-VTT: 10,000 clips of 20 captions each; the test sets 1k-A (JSFusion), 1k-B (Miech) and the full one."""

from pathlib import Path
from typing import Any

from ...base.errors import UserError
from .files import Folder, expect, member, read_ids, read_json, read_table
from .source import Annotations, Option, Source

_DATA = ("MSRVTT_data.json", "MSRVTT_v2.json", "train_val_videodatainfo.json", "MSR_VTT.json")
_TEST_DATA = "test_videodatainfo.json"  # the owners' second file; train_val_videodatainfo.json is the first
_COUNTS = {
    "1ka": {"test clips": 1000, "test captions": 1000},
    "1kb": {"train clips": 6656, "test clips": 1000},
    "full": {"train clips": 6513, "val clips": 497, "test clips": 2990, "test captions": 59798},
}
_LISTS = {
    "1kb": {"train": ("train_list_miech.txt",), "test": ("test_list_miech.txt",)},
    "full": {"train": ("train_list_full.txt",), "val": ("val_list_full.txt",), "test": ("test_list_full.txt",)},
}


def read_msrvtt(folder: Path, *, variant: str = "1ka", train: str = "9k") -> Annotations:
    """Read the annotation files of MSR-VTT.

    Args:
      folder: that has the files which `--list msrvtt` names.
      variant: "1ka" (1,000 test clips with one caption given for each), "1kb" or "full" (all captions, in order).
      train: "9k" or "7k", the training clips that go with 1k-A.

    Raises:
      UserError: files that are missing or at fault.
    """
    files, found = Folder(folder), Annotations(expected=dict(_COUNTS[variant]))
    captions = _captions(files)
    if variant == "1ka":
        found.expected["train clips"] = {"9k": 9000, "7k": 7010}[train]
        _train_1ka(files, found, captions, name=f"MSRVTT_train.{train}.csv")
        _test_1ka(files, found)
        return found
    if not captions:
        files.lacks(*_DATA)
    for split, names in _LISTS[variant].items():
        path = files.find(*names)
        if path is None and variant == "full":
            ids = _by_official_split(files, {"val": "validate"}.get(split, split))
        else:
            path = path or files.require(*names)
            ids = read_ids(path)
        for video in ids:
            _add(found, video, split=split, captions=captions, where=str(path or files.path))
    return found


def _train_1ka(files: Folder, found: Annotations, captions: dict[str, list[str]], *, name: str) -> None:
    path = files.find(name)
    if path is None or not captions:
        missing = " and ".join([*([name] if path is None else []), *([] if captions else [" or ".join(_DATA)])])
        found.notes[f"split train left out, because --annotations has no {missing}"] += 1
        return
    for where, row in read_table(path, columns=["video_id"]):
        _add(found, row["video_id"].strip(), split="train", captions=captions, where=where)


def _test_1ka(files: Folder, found: Annotations) -> None:
    path = files.require("MSRVTT_JSFUSION_test.csv")
    for where, row in read_table(path, columns=["video_id", "sentence"]):
        video = row["video_id"].strip()
        fields = {"clip_id": video, "path": video, "captions": [row["sentence"]], "split": "test"}
        found.add(fields, where=where)


def _add(found: Annotations, video: str, *, split: str, captions: dict[str, list[str]], where: str) -> None:
    if video not in captions:
        raise UserError(f"{where}: video_id {video!r} has no sentence in the caption file; are both of one release?")
    found.add({"clip_id": video, "path": video, "captions": captions[video], "split": split}, where=where)


def _captions(files: Folder) -> dict[str, list[str]]:
    """All captions of each video, in the order of the files; {} where no caption file is there."""
    captions: dict[str, list[str]] = {}
    for path, data in _data(files):
        # `annotations` with `image_id` is the same in the form of COCO captions.
        key, video_key = ("sentences", "video_id") if "sentences" in data else ("annotations", "image_id")
        for index, record in enumerate(member(data, key, list, where=str(path))):
            where = f"{path}, {key}[{index}]"
            record = expect(record, dict, what="the entry", where=where)
            video = member(record, video_key, str, where=where)
            captions.setdefault(video, []).append(member(record, "caption", str, where=where))
    return captions


def _data(files: Folder) -> list[tuple[Path, dict[str, Any]]]:
    first = files.find(*_DATA)
    both = [path for path in (first, files.find(_TEST_DATA)) if path is not None]
    if first is not None and first.name.lower() != "train_val_videodatainfo.json":
        both = [first]
    return [(path, read_json(path, kind=dict)) for path in both]


def _by_official_split(files: Folder, split: str) -> list[str]:
    """The videos of a split as the owners' `videos` list says: train, validate, test."""
    ids = []
    for path, data in _data(files):
        for index, record in enumerate(member(data, "videos", list, where=str(path))):
            where = f"{path}, videos[{index}]"
            record = expect(record, dict, what="the entry", where=where)
            if member(record, "split", str, where=where) == split:
                ids.append(member(record, "video_id", str, where=where))
    return ids


SOURCES = (
    Source(
        name="msrvtt",
        title="MSR-VTT: 10,000 web clips of 10 to 30 s, 20 captions each",
        layout="""\
MSRVTT_JSFUSION_test.csv         1ka: key,vid_key,video_id,sentence
MSRVTT_train.9k.csv or .7k.csv   1ka: video_id
MSRVTT_data.json                 {videos: [...], sentences: [{video_id, caption, sen_id}]}; or the owners'
                                 train_val_videodatainfo.json and test_videodatainfo.json; or MSR_VTT.json
train_list_miech.txt, test_list_miech.txt   1kb: one video_id per line
train_list_full.txt, val_list_full.txt, test_list_full.txt   full: likewise; or the splits that `videos` names
For the test split of 1ka alone the first file is enough.""",
        videos="video0.mp4 ... video9999.mp4",
        published_at="https://www.microsoft.com/en-us/research/publication/"
        "msr-vtt-a-large-video-description-dataset-for-bridging-video-and-language/",
        licence="research use; the videos belong to their uploaders",
        notes=(
            "1ka gives each test clip the one caption of the JSFusion list: 1,000 captions, 995 of them distinct. full "
            "and 1kb keep all captions in order; some papers measure 1k-B with the first caption only (evaluate "
            "--captions first)."
        ),
        options=(
            Option(name="variant", default="1ka", choices=("1ka", "1kb", "full"), help="test set"),
            Option(name="train", default="9k", choices=("9k", "7k"), help="training clips beside 1ka"),
        ),
        read=read_msrvtt,
    ),
)
