"""Pictures as clips: COCO by its own files and Karpathy's, Flickr30k, and folders of pictures."""

import json

import pytest

from twinreel.base.errors import UserError
from twinreel.data.sources.images import read_coco, read_flickr30k
from twinreel.data.sources.read import read_source
from twinreel.data.sources.registry import SOURCES
from twinreel.data.sources.videos import locate

IMAGES = [{"id": 42, "file_name": "000000000042.jpg", "height": 3}, {"id": 7, "file_name": "000000000007.jpg"}]
NOTES = [
    {"id": 30, "image_id": 42, "caption": "third"},
    {"id": 10, "image_id": 42, "caption": "A dog. "},
    {"id": 20, "image_id": 7, "caption": "a cat"},
]


def write(path, value):
    path.write_text(json.dumps(value))
    return path.parent


def test_owners_files_give_a_clip_per_picture_with_captions_in_order_of_their_ids(tmp_path):
    write(tmp_path / "captions_val2017.json", {"images": IMAGES, "annotations": NOTES, "info": {}})
    write(tmp_path / "captions_train2017.json", {"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": []})
    found = read_coco(tmp_path, variant="2017")
    assert [(c.clip_id, c.path, c.split, c.captions, c.meta) for c in found.clips] == [
        ("1", "train2017/1.jpg", "train", (), {"image_id": 1}),
        ("000000000042", "val2017/000000000042.jpg", "val", ("A dog. ", "third"), {"image_id": 42}),
        ("000000000007", "val2017/000000000007.jpg", "val", ("a cat",), {"image_id": 7}),
    ]
    assert any("val clips: the files have 2, the protocol says 5,000" in line for line in found.deviations())
    with pytest.raises(UserError, match=r"captions_train2014\.json"):
        read_coco(tmp_path, variant="2014")


def karpathy(*splits: str, coco: bool = True) -> dict:
    images = []
    for number, split in enumerate(splits):
        sentences = [{"tokens": ["a"], "raw": f"caption {number} {k}", "sentid": k} for k in range(2)]
        image = {"filename": f"{number}.jpg", "split": split, "sentences": sentences, "imgid": number}
        images.append(image | ({"filepath": "val2014", "cocoid": 100 + number} if coco else {}))
    return {"images": images, "dataset": "coco"}


def test_karpathys_splits_take_restval_into_train_and_say_so(tmp_path):
    write(tmp_path / "dataset_coco.json", karpathy("test", "restval", "train", "val"))
    found = read_coco(tmp_path)
    assert [c.split for c in found.clips] == ["test", "train", "train", "val"]
    assert found.clips[0].captions == ("caption 0 0", "caption 0 1") and found.clips[0].path == "val2014/0.jpg"
    assert found.clips[1].meta == {"image_id": 101}
    assert sum(n for note, n in found.notes.items() if "restval" in note) == 1
    write(tmp_path / "dataset_flickr30k.json", karpathy("test", coco=False))
    assert read_flickr30k(tmp_path).clips[0].path == "0.jpg"


@pytest.mark.parametrize(
    "change,match",
    [
        ({"annotations": [{"id": 1, "image_id": 9, "caption": "a"}]}, r"annotations\[0\]: image_id 9 is not among"),
        ({"annotations": [{"id": 1, "image_id": 42}]}, r"annotations\[0\]: has no 'caption'"),
        ({"annotations": [{"id": 1, "image_id": 42, "caption": 3}]}, "wanted a string"),
        ({"images": [*IMAGES, IMAGES[0]]}, r"images\[2\]: id 42 stands in .*images\[0\]"),
        ({"images": {}}, "wanted a list"),
    ],
)
def test_faults_name_file_and_entry(tmp_path, change, match):
    write(tmp_path / "captions_val2017.json", {"images": IMAGES, "annotations": NOTES} | change)
    with pytest.raises(UserError, match=match):
        read_coco(tmp_path, variant="2017")


def test_pictures_are_found_under_their_folders(tmp_path):
    write(tmp_path / "captions_val2017.json", {"images": IMAGES, "annotations": NOTES})
    for name in ("train2017/000000000042.jpg", "val2017/000000000042.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    clips = read_coco(tmp_path, variant="2017").clips
    located = locate(clips, folder=tmp_path, alternatives=SOURCES["coco"].alternatives)
    assert [clip.path for clip in located.present] == ["val2017/000000000042.jpg"]
    assert [clip.clip_id for clip in located.missing] == ["000000000007"]


def test_a_folder_of_pictures_with_texts_and_one_of_classes(tmp_path):
    for name in ("a.jpg", "b.PNG", "deep/c.webp", "note.md"):
        (tmp_path / "texts" / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / "texts" / name).write_bytes(b"x")
    (tmp_path / "texts" / "a.txt").write_text("one\ntwo")
    clips = read_source(tmp_path / "texts").clips
    assert {c.path: c.captions for c in clips} == {"a.jpg": ("one", "two"), "b.PNG": (), "deep/c.webp": ()}
    for name in ("train/cat/1.jpg", "train/big_dog/2.jpeg", "train/big_dog/3.mp4", "val/cat/4.bmp"):
        (tmp_path / "classes" / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / "classes" / name).write_bytes(b"x")
    clips = read_source(tmp_path / "classes").clips
    assert {c.path: (c.split, c.labels, c.captions) for c in clips} == {
        "train/big_dog/2.jpeg": ("train", ("big_dog",), ("big dog",)),
        "train/big_dog/3.mp4": ("train", ("big_dog",), ("big dog",)),
        "train/cat/1.jpg": ("train", ("cat",), ("cat",)),
        "val/cat/4.bmp": ("val", ("cat",), ("cat",)),
    }


def test_pictures_become_records_of_one_frame(tmp_path):
    import cv2
    import numpy as np
    import simplejpeg

    from twinreel.data.prepare.prepare import prepare

    grey = {"train/dark/1.png": 40, "train/light/2.jpg": 200, "train/light/3.webp": 220}
    for name, level in grey.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "in" / name), np.full((48, 64, 3), level, np.uint8))
    report = prepare(tmp_path / "in", out=tmp_path / "out", short_side=24, workers=1)
    assert report["counts"] == {"train": {"clips": 3, "rejected": 0}}
    rows = [json.loads(line) for line in (tmp_path / "out" / "clips.jsonl").read_text().splitlines()]
    assert [(r["num_frames"], r["height"], r["width"], r["captions"]) for r in rows] == [
        (1, 24, 32, ["dark"]),
        (1, 24, 32, ["light"]),
        (1, 24, 32, ["light"]),
    ]
    import tensorflow_datasets as tfds

    stored = tfds.builder_from_directory(next((tmp_path / "out" / "twinreel_clips").iterdir()))
    for record, level in zip(stored.as_data_source(split="train"), grey.values(), strict=True):
        assert abs(simplejpeg.decode_jpeg(record["frames"][0]).mean() - level) < 3
