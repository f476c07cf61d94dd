"""Benchmarks read from the original annotation files: counts as the protocols say, first rows as in the files."""

import csv
import json

import pytest

from twinreel.data.manifest import Sentence
from twinreel.data.sources.registry import get_source

pytestmark = pytest.mark.real


@pytest.fixture
def read(real_dir):
    def reader(name, folder=None, **options):
        source = get_source(name)
        return source.read(real_dir / "annotations" / (folder or name), **source.settings(options))

    return reader


def test_msrvtt_1ka(read):
    found = read("msrvtt")
    assert len(found.clips) == 1000
    assert {clip.split for clip in found.clips} == {"test"}
    assert all(len(clip.captions) == 1 for clip in found.clips)
    assert len({clip.captions[0] for clip in found.clips}) == 995
    assert sum(clip.captions == ("a man playing video games",) for clip in found.clips) == 3
    first = found.clips[0]
    assert (first.clip_id, first.captions) == ("video9770", ("a person is connecting something to system",))
    assert found.deviations() == []
    assert any("train left out" in note and "MSRVTT_data.json" in note for note in found.notes)


def test_msrvtt_9k_with_sentences_of_the_owners_form(read, real_dir, tmp_path):
    """The 9k ids are the real ones; the sentences, which are not there, are written in the form of MSRVTT_data.json."""
    folder = real_dir / "annotations" / "msrvtt"
    for name in ("MSRVTT_JSFUSION_test.csv", "MSRVTT_train.9k.csv"):
        (tmp_path / name).symlink_to(folder / name)
    sentences = [
        {"video_id": f"video{n}", "caption": f"{k} of {n}", "sen_id": k} for k in range(2) for n in range(10000)
    ]
    (tmp_path / "MSRVTT_data.json").write_text(json.dumps({"info": {}, "videos": [], "sentences": sentences}))
    source = get_source("msrvtt")
    found = source.read(tmp_path)
    assert found.counted() == {"train clips": 9000, "train captions": 18000, "test clips": 1000, "test captions": 1000,
                               "labels": 0}  # fmt: skip
    assert found.deviations() == []
    assert found.clips[0].captions == ("0 of 0", "1 of 0")
    train = {clip.clip_id for clip in found.clips if clip.split == "train"}
    assert not train & {clip.clip_id for clip in found.clips if clip.split == "test"}


def test_msvd(read, real_dir):
    found = read("msvd")
    counted = found.counted()
    assert [counted[f"{split} clips"] for split in ("train", "val", "test")] == [1200, 100, 670]
    assert [counted[f"{split} captions"] for split in ("train", "val", "test")] == [48774, 4290, 27763]
    assert found.deviations() == []
    assert len(found.clips) == 1970
    assert found.clips[0].clip_id == "-4wsuPCjDBc_5_15"
    assert found.clips[0].captions[:2] == ("a squirrel is eating a peanut in it s shell", "a chipmunk is eating")
    whole = json.loads((real_dir / "annotations" / "msvd" / "captions_msvd.json").read_text())
    assert all(list(clip.captions) == whole[clip.clip_id] for clip in found.clips)


def test_msvd_whole_video_is_cut_to_the_clip(read):
    clip = read("msvd").clips[0]
    (form,) = get_source("msvd").alternatives(clip)
    assert (form.path, form.start_s, form.end_s, form.clip_id) == ("-4wsuPCjDBc", 5.0, 15.0, clip.clip_id)


def test_didemo(read):
    found = read("didemo")
    assert len(found.clips) == 1004
    assert found.deviations() == []
    lengths = [len(clip.captions[0].split()) for clip in found.clips]
    assert (round(sum(lengths) / len(lengths)), max(lengths)) == (29, 81)
    first = found.clips[0]
    assert first.clip_id == "10015567@N08_3655084291_d8b58466fa.mov"
    assert first.captions == (
        "the lighter chick runs quickly left off frame. camera zooms out the white bird runs off camera. "
        "chick in the back races out of the frame white chicken leaves screen",
    )
    assert {(clip.start_s, clip.end_s) for clip in found.clips} == {(None, 30.0)}
    assert found.notes["videos of test_data.json that test_list.txt does not name, left out"] == 1037 - 1004


def test_activitynet_paragraphs(read):
    found = read("activitynet")
    assert len(found.clips) == 4917
    assert found.deviations() == []
    lengths = [len(clip.captions[0].split()) for clip in found.clips]
    assert (round(sum(lengths) / len(lengths)), max(lengths)) == (48, 332)
    first = found.clips[0]
    assert (first.clip_id, first.split) == ("v_uqiMw7tQ1Cc", "val_1")
    text = "The coach helps the guy in red with the proper body placement and lifting technique."
    assert first.captions == (f"A weight lifting tutorial is given. {text}",)
    assert first.sentences == (
        Sentence(start_s=0.28, end_s=55.15, text="A weight lifting tutorial is given."),
        Sentence(start_s=13.79, end_s=54.32, text=text),
    )


def test_activitynet_sentences(read, real_dir):
    whole = json.loads((real_dir / "annotations" / "activitynet" / "val_1.json").read_text())
    found = read("activitynet", text="sentence")
    assert len(found.clips) == sum(len(video["sentences"]) for video in whole.values()) == 17505
    assert all(0 <= clip.start_s < clip.end_s <= whole[clip.path]["duration"] for clip in found.clips)
    beyond = sum(end > video["duration"] + 0.011 for video in whole.values() for _, end in video["timestamps"])
    assert found.notes["windows cut at the end of the video"] == beyond
    second = found.clips[1]
    assert (second.clip_id, second.path, second.start_s, second.end_s) == (
        "v_uqiMw7tQ1Cc#1",
        "v_uqiMw7tQ1Cc",
        13.79,
        54.32,
    )


def test_youcook2(read, real_dir):
    found = read("youcook2")
    assert found.counted() == {"val clips": 3350, "val captions": 3350, "labels": 0}
    assert found.deviations() == []
    assert len({clip.path for clip in found.clips}) == 436
    first = found.clips[0]
    assert (first.path, first.start_s, first.end_s) == ("xHr8X2Wpmno", 47.0, 60.0)
    assert first.captions == ("pick the ends off the verdalago",)
    twice = [clip for clip in found.clips if clip.clip_id.startswith("oJZUxU9szWA_120_252")]
    assert [clip.captions[0][:9] for clip in twice] == ["soak gram", "pressure "]
    with (real_dir / "annotations" / "youcook2" / "validation_youcook.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [clip.captions[0] for clip in found.clips] == [row["text"] for row in rows]


def test_charades_sta(read):
    found = read("charades_sta")
    assert len(found.clips) == 3720
    assert found.deviations() == []
    assert len({clip.path for clip in found.clips}) == 1334
    assert [clip.clip_id for clip in found.clips[:5]] == ["3MSZA#0", "3MSZA#1", "3MSZA#2", "3MSZA#3", "AMT7R#0"]
    assert found.clips[0].captions == ("person turn a light on.",)
    assert found.clips[0].meta["moments"] == [[24.3, 30.4]]


def test_qvhighlights(read):
    found = read("qvhighlights")
    assert found.counted() == {"val clips": 1550, "val captions": 1550, "labels": 0}
    assert found.deviations() == []
    first = found.clips[0]
    assert (first.path, first.meta["qid"], first.meta["moments"]) == ("NUsG9BgSes0_210.0_360.0", 2579, [[82.0, 150.0]])
    assert first.meta["relevant_clip_ids"][:2] == [41, 42]
    assert first.meta["saliency"][:2] == [[1, 1, 2], [1, 1, 3]]
    (form,) = get_source("qvhighlights").alternatives(first)
    assert (form.path, form.start_s, form.end_s) == ("NUsG9BgSes0", 210.0, 360.0)


def test_class_names_in_words_are_those_of_the_label_lists(real_dir):
    """Our words for UCF101's classes, without blanks, are the list's names; HMDB51's folders give the list's names."""
    from twinreel.data.sources.actions import words

    labels = real_dir / "annotations" / "labels"
    with (labels / "ucf_101_labels.csv").open(newline="") as file:
        ucf = [row["name"] for row in csv.DictReader(file)]
    assert len(ucf) == 101
    assert all(words(name).replace(" ", "") == name.lower() for name in ucf)
    assert words("HandstandPushups") == "handstand pushups"
    with (labels / "hmdb_51_labels.csv").open(newline="") as file:
        hmdb = [row["name"] for row in csv.DictReader(file)]
    assert len(hmdb) == 51
    assert [words(name.replace(" ", "_")) for name in hmdb] == hmdb
