"""Folders: captions from texts, metadata files and class folders; nothing in them is ignored without a word."""

import json
import os

import pytest
from files import touch, write

from twinreel.base.errors import UserError
from twinreel.data.sources.folder import read_folder
from twinreel.data.sources.notes import Notes


def read(folder):
    notes = Notes()
    return {clip.path: clip for clip in read_folder(folder, notes=notes)}, notes.lines()


def captions(clips):
    return {path: clip.captions for path, clip in clips.items()}


# --- texts beside the films ---


def test_a_caption_per_line(tmp_path):
    touch(tmp_path, "a.mp4", "deep/b.MOV", "c.webm")
    write(tmp_path / "a.txt", "\ufeffone\r\n\r\n二 \r\n")
    write(tmp_path / "deep" / "b.TXT", "three\rfour\n\n\n")
    clips, notes = read(tmp_path)
    assert captions(clips) == {"a.mp4": ("one", "二 "), "c.webm": (), "deep/b.MOV": ("three", "four")}
    assert [clip.clip_id for clip in clips.values()] == ["a", "c", "deep/b"] and notes == []
    assert {clip.labels for clip in clips.values()} == {()}


def test_texts_as_in_archives(tmp_path):
    touch(tmp_path, "x/a.mp4")
    write(tmp_path / "x" / "a.json", json.dumps({"caption": "one", "url": "u", "clips": [[2, 4.5]], "boxes": [1]}))
    write(tmp_path / "x" / "a.cls", "run\n")
    write(tmp_path / "x" / "a.cap", "two")
    [clip], notes = (list(found.values()) if isinstance(found, dict) else found for found in read(tmp_path))
    assert (clip.captions, clip.labels) == (("two", "one"), ("run",))
    assert clip.meta == {"url": "u", "cut_from_s": [2.0, 4.5]}
    assert notes == ["values of KEY.json left out (meta keeps numbers, truth values and short texts): 1 ('boxes')"]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.txt", "caf\xe9".encode("latin-1"), "the .txt is not UTF-8 (unexpected end of data at byte 3)"),
        ("a.json", b"{'x': 1}", "the .json is not JSON"),
        ("a.json", b'{"caption": "x", "caption": "y"}', "key 'caption' is given twice"),
        ("a.txt", b"x" * (2**20 + 1), "the .txt has more than 1,048,576 bytes"),
    ],
)
def test_text_that_cannot_be_used_costs_its_film_alone(tmp_path, name, content, reason):
    touch(tmp_path, "a.mp4", "b.mp4")
    write(tmp_path / "b.txt", "fine")
    (tmp_path / name).write_bytes(content)
    clips, _ = read(tmp_path)
    assert clips["b.mp4"].captions == ("fine",)
    assert (
        clips["a.mp4"].meta["refused"].startswith("text cannot be used: ") and reason in clips["a.mp4"].meta["refused"]
    )


def test_previews_subtitles_and_others_beside_films_are_counted(tmp_path):
    touch(tmp_path, "a.mp4", "a.webp", "a.en.ass", "a.info.json", "notes.md", "lost.txt", "b.mp4.part", "old/x.tar")
    touch(tmp_path, ".hidden.mp4", ".trash/d.mp4", "@eaDir/a.mp4/SYNOVIDEO.jpg", "list.csv")
    write(tmp_path / "a.txt", "one\n")
    clips, notes = read(tmp_path)
    assert captions(clips) == {"a.mp4": ("one",)}
    assert sorted(notes) == [
        "archives left out (give .tar archives as the source, unpack others): 1 ('old/x.tar')",
        "files of the unknown kind .md left out: 1 ('notes.md')",
        "hidden files and folders left out: 3 ('.hidden.mp4', '.trash', '@eaDir')",
        "lists left out (to use a list, give it as the source): 1 ('list.csv')",
        "pictures beside a video left out (previews; give a picture a .txt of its own to use it): 1 ('a.webp')",
        "subtitle files left out (KEY.srt, KEY.vtt, KEY.en.srt are read, one for each KEY): 1 ('a.en.ass')",
        "texts or features without a film left out (name them as their film is): 1 ('lost.txt')",
        "texts with a further name left out (KEY.txt, KEY.cap, KEY.cls and KEY.json are read): 1 ('a.info.json')",
        "unfinished downloads left out (fetch them again): 1 ('b.mp4.part')",
    ]


# --- class folders and splits ---


@pytest.mark.parametrize(
    "names",
    [
        *(("train", "val", "test"), ("Train", "Val", "Test"), ("training", "validation", "testing")),
        *(("TRAIN", "valid", "TEST"), ("train_set", "dev", "test_set"), ("videos/Train", "videos/Dev", "videos/Test")),
    ],
)
def test_class_folders_in_split_folders(tmp_path, names):
    train, val, test = names
    touch(tmp_path, f"{train}/push_ups/a.mp4", f"{train}/fight/x/b.mp4", f"{val}/fight/c.mp4", f"{test}/fight/c.mp4")
    clips, notes = read(tmp_path)
    assert {path: (clip.split, clip.labels, clip.captions) for path, clip in clips.items()} == {
        f"{test}/fight/c.mp4": ("test", ("fight",), ("fight",)),
        f"{train}/fight/x/b.mp4": ("train", ("fight",), ("fight",)),
        f"{train}/push_ups/a.mp4": ("train", ("push_ups",), ("push ups",)),
        f"{val}/fight/c.mp4": ("val", ("fight",), ("fight",)),
    }
    assert notes == []


def test_video_outside_the_split_folders(tmp_path):
    touch(tmp_path, "Train/a.mp4", "extra/b.mp4")
    with pytest.raises(UserError, match=r"split folders \(Train\) but also 1 files outside them .*extra/b.mp4"):
        read(tmp_path)


# --- lists ---


def test_metadata_file_gives_the_captions(tmp_path):
    touch(tmp_path, "clips/c0.mp4", "clips/c1.mp4", "clips/c2.mp4", "clips/c0.txt")
    write(tmp_path / "metadata.csv", "file_name,text\nclips/c0.mp4,a dog runs\nclips/c1.mp4,a cat\nclips/c9.mp4,gone\n")
    clips, notes = read(tmp_path)
    assert captions(clips) == {
        **{"clips/c0.mp4": ("a dog runs",), "clips/c1.mp4": ("a cat",), "clips/c9.mp4": ("gone",)},
    }
    assert {clip.labels for clip in clips.values()} == {()}
    assert "videos and pictures that no metadata file names left out: 1 ('clips/c2.mp4')" in notes
    assert any("'clips/c0.txt'" in line for line in notes)


@pytest.mark.parametrize("name", ["metadata.jsonl", "Metadata.CSV"])
def test_metadata_files_of_split_folders(tmp_path, name):
    touch(tmp_path, "Train/a.mp4", "test/b.mp4")
    for split, file in (("Train", "a"), ("test", "b")):
        line = json.dumps({"file_name": f"{file}.mp4", "text": f"film {file}"})
        text = line if name.endswith("jsonl") else f"file_name,text\n{file}.mp4,film {file}"
        write(tmp_path / split / name, text + "\n")
    clips, _ = read(tmp_path)
    assert captions(clips) == {"Train/a.mp4": ("film a",), "test/b.mp4": ("film b",)}
    assert [clip.split for clip in clips.values()] == ["train", "test"]
    assert [clip.clip_id for clip in clips.values()] == ["Train/a", "test/b"]
    write(tmp_path / "test" / "metadata.tsv", "file_name\ttext\nb.mp4\tfilm b\n")
    with pytest.raises(UserError, match=r"has both .* keep one"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["captions.csv", "clips.jsonl", "x/list.tsv", "train.parquet", "train.ndjson"])
def test_list_beside_films_without_texts_is_not_passed_over(tmp_path, name):
    touch(tmp_path, "clips/c0.mp4", "clips/c1.mp4", name)
    with pytest.raises(UserError, match=r"has videos without texts.*give that file instead, or move it away") as error:
        read(tmp_path)
    assert name in str(error.value)


def test_archives_in_subfolders_are_named(tmp_path):
    touch(tmp_path, "train/0.tar", "val/0.tar")
    with pytest.raises(UserError, match=r"it has archives \(train/0\.tar, val/0\.tar\): give them as a pattern"):
        read(tmp_path)


# --- links and odd files ---


def test_linked_folders_are_followed(tmp_path):
    touch(tmp_path / "elsewhere", "run/a.mp4", "run/inner/b.mp4")
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "run").symlink_to(tmp_path / "elsewhere" / "run")
    (tmp_path / "films" / "jump").symlink_to("../elsewhere/run/inner")
    (tmp_path / "elsewhere" / "run" / "up").symlink_to("..")
    (tmp_path / "films" / "run" / "gone.mp4").symlink_to("nowhere.mp4")
    clips, notes = read(tmp_path / "films")
    assert {path: clip.labels for path, clip in clips.items()} == {
        "jump/b.mp4": ("jump",),
        "run/a.mp4": ("run",),
        "run/gone.mp4": ("run",),  # it is rejected later, as a file that does not exist
        "run/inner/b.mp4": ("run",),
    }
    assert notes == ["linked folders that lead back to a folder around them left out: 1 ('run/up/run')"]


def test_file_names_that_are_not_utf8(tmp_path):
    touch(tmp_path, "run/a.mp4")
    touch(tmp_path, "run/" + os.fsdecode(b"b\xe9.mp4"))
    clips, _ = read(tmp_path)
    assert clips["run/b\\xe9.mp4"].meta["refused"] == "file name is not UTF-8: rename the file"
    assert clips["run/a.mp4"].captions == ("run",)


def test_films_and_texts_in_different_unicode_forms(tmp_path):
    touch(tmp_path, "cafe\u0301.mp4")
    write(tmp_path / "caf\u00e9.txt", "a cup")
    clips, notes = read(tmp_path)
    assert captions(clips) == {"cafe\u0301.mp4": ("a cup",)} and notes == []


def test_pipes_are_left_out(tmp_path):
    touch(tmp_path, "run/a.mp4")
    os.mkfifo(tmp_path / "run" / "b.mp4")
    clips, notes = read(tmp_path)
    assert list(clips) == ["run/a.mp4"] and notes == ["pipes, sockets and devices left out: 1 ('run/b.mp4')"]
