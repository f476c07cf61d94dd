"""Manifest, CSV and folder to clips; splits by hash; faults named with the place and the remedy."""

import collections

import pytest

from twinreel.base.errors import UserError
from twinreel.data.manifest import Clip, write_manifest
from twinreel.data.sources.read import assign_splits, clean_captions, hashed_split, read_source


def write(path, text, *, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def touch(folder, *names):
    for name in names:
        write(folder / name, "")


def test_manifest_is_passed_on(tmp_path):
    clips = [Clip(clip_id="a", path="x/a.mp4", captions=("one",), split="test")]
    write_manifest(tmp_path / "m.jsonl", clips=clips)
    assert read_source(tmp_path / "m.jsonl") == (tmp_path, clips)


# --- CSV ---


def test_csv_rows_of_one_path_and_window_are_captions_of_one_clip(tmp_path):
    source = write(
        tmp_path / "clips.csv",
        "\ufeffPath, Caption,start_s,end_s,split,label,group\r\n"
        'v/a.mp4,"a dog, running",,,train,run,g1\r\n'
        "v/a.mp4,一只狗,,,train,run,g1\r\n"
        "v/b.mp4,first half,0,2.5,test,,\r\n"
        "\r\n"
        "v/b.mp4,second half,2.5,,test,,\r\n"
        "v/b.mp4,the first half again,0.0,2.50,test,,\r\n",
    )
    root, clips = read_source(source)
    assert root == tmp_path
    assert clips == [
        Clip(
            clip_id="v/a",
            path="v/a.mp4",
            captions=("a dog, running", "一只狗"),
            split="train",
            labels=("run",),
            meta={"group": "g1"},
        ),
        Clip(
            clip_id="v/b@0.0-2.5",
            path="v/b.mp4",
            captions=("first half", "the first half again"),
            split="test",
            start_s=0.0,
            end_s=2.5,
        ),
        Clip(clip_id="v/b@2.5-", path="v/b.mp4", captions=("second half",), split="test", start_s=2.5),
    ]


def test_csv_of_ten_thousand_words_and_of_no_word(tmp_path):
    long = "word " * 100_000
    source = write(tmp_path / "c.csv", f"path,caption\na.mp4,{long}\nb.mp4,\nc.mp4,   \n")
    _, clips = read_source(source)
    assert [clip.captions for clip in clips] == [(long,), (), ()]


def test_tsv(tmp_path):
    _, clips = read_source(write(tmp_path / "c.tsv", "path\tcaption\na.mp4\tone, two\n"))
    assert clips[0].captions == ("one, two",)


def test_names_that_differ_only_in_their_suffix_keep_it(tmp_path):
    _, clips = read_source(write(tmp_path / "c.csv", "path,caption\nx/a.mp4,one\nx/a.mov,two\nx/b.mp4,three\n"))
    assert [clip.clip_id for clip in clips] == ["x/a.mp4", "x/a.mov", "x/b"]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("path,text,split\na.mp4,x,train\n", ["no column 'caption'", "path, text, split", "Add the column"]),
        ("path,captions\na.mp4,x\n", ["no column 'caption'", "Rename 'captions' to 'caption'"]),
        ("video,caption\na.mp4,x\n", ["no column 'path'", "video, caption"]),
        ("", ["no column 'path'", "none"]),
        ("path,caption\n", ["has a header but no row"]),
        ("path,caption,start\na.mp4,x,1\n", ["unknown column 'start'", "did you mean 'start_s'"]),
        ("path,caption,end\na.mp4,x,1\n", ["unknown column 'end'", "did you mean 'end_s'"]),
        ("path,caption,caption\na.mp4,x,y\n", ["column 'caption' twice"]),
        ("path,caption\na.mp4,a dog, running\n", ["line 2", "3 fields", "double quotes"]),
        ("path,caption,start_s\na.mp4,x,soon\n", ["line 2", "'start_s'", "'soon'", "12.5"]),
        ("path,caption,start_s,end_s\na.mp4,x,3,2\n", ["line 2", "'end_s'", "after start_s=3"]),
        ("path,caption\n,x\n", ["line 2", "'path'"]),
        ("path,caption,split\na.mp4,x,train\na.mp4,y,test\n", ["line 3", "'test'", "'train'", "must agree"]),
        ("path,caption,split\na.mp4,x,train\nb.mp4,y,\n", ["1 of 2 clips have no split", "'b'"]),
        ('path,caption\na.mp4,"open\n', ["not a CSV file that can be read"]),
    ],
)
def test_csv_fault_is_named(tmp_path, text, parts):
    source = write(tmp_path / "c.csv", text)
    with pytest.raises(UserError) as error:
        read_source(source)
    for part in [str(source), *parts]:
        assert part in str(error.value)


def test_csv_that_is_not_utf8(tmp_path):
    with pytest.raises(UserError, match="is not UTF-8"):
        read_source(write(tmp_path / "c.csv", "path,caption\na.mp4,ä\n", encoding="latin-1"))


# --- folder ---


def test_folder_with_caption_files(tmp_path):
    touch(tmp_path, "a.mp4", "deep/b.MOV", "c.webm", ".hidden.mp4", ".trash/d.mp4", "notes.md")
    write(tmp_path / "a.txt", "\ufeffone\r\n\r\n二\r\n")
    write(tmp_path / "deep" / "b.txt", "three")
    root, clips = read_source(tmp_path)
    clips, dropped, from_labels = clean_captions(clips)
    assert root == tmp_path
    assert [(clip.clip_id, clip.path, clip.captions, clip.labels) for clip in clips] == [
        ("a", "a.mp4", ("one", "二"), ()),
        ("c", "c.webm", (), ()),  # the build lists it as rejected
        ("deep/b", "deep/b.MOV", ("three",), ()),
    ]
    assert (dropped, from_labels) == (2, 0)
    assert all(clip.split == hashed_split(clip.clip_id) for clip in clips)


def test_class_folders_with_splits(tmp_path):
    touch(tmp_path, "train/push_ups/a.mp4", "train/fight/x/b.mp4", "val/fight/c.mp4", "test/fight/c.mp4")
    _, clips = read_source(tmp_path)
    assert [(clip.clip_id, clip.split, clip.labels, clip.captions) for clip in clips] == [
        ("test/fight/c", "test", ("fight",), ("fight",)),
        ("train/fight/x/b", "train", ("fight",), ("fight",)),
        ("train/push_ups/a", "train", ("push_ups",), ("push ups",)),
        ("val/fight/c", "val", ("fight",), ("fight",)),
    ]


def test_video_outside_the_split_folders(tmp_path):
    touch(tmp_path, "train/a.mp4", "extra/b.mp4")
    with pytest.raises(UserError, match=r"split folders \(train\) but also 1 videos outside them .*extra/b.mp4"):
        read_source(tmp_path)


def test_missing_and_empty_sources(tmp_path):
    with pytest.raises(UserError, match="does not exist; give a manifest"):
        read_source(tmp_path / "none")
    with pytest.raises(UserError, match=r"has no video and no picture \(looked for"):
        read_source(tmp_path)
    touch(tmp_path, "clips.jsonl")
    with pytest.raises(UserError, match=r"it has clips\.jsonl: give that file instead"):
        read_source(tmp_path)
    with pytest.raises(UserError, match="is of no known kind"):
        read_source(write(tmp_path / "clips.parquet", "x"))


# --- splits and captions ---


def test_hashed_splits_are_80_10_10_and_do_not_depend_on_the_others():
    counts = collections.Counter(hashed_split(f"clip{index}") for index in range(5000))
    assert abs(counts["train"] - 4000) < 120
    assert abs(counts["val"] - 500) < 90
    clips = [Clip(clip_id=str(index), path=f"{index}.mp4") for index in range(50)]
    whole = {clip.clip_id: clip.split for clip in assign_splits(clips, where="")}
    part = {clip.clip_id: clip.split for clip in assign_splits(clips[::3], where="")}
    assert part.items() <= whole.items()


def test_windows_of_a_file_and_members_of_a_group_share_a_split():
    windows = [Clip(clip_id=f"a@{start}", path="a.mp4", start_s=float(start)) for start in range(30)]
    assert len({clip.split for clip in assign_splits(windows, where="")}) == 1
    twins = [Clip(clip_id=str(index), path=f"{index}.mp4", meta={"group": "g"}) for index in range(30)]
    assert len({clip.split for clip in assign_splits(twins, where="")}) == 1


def test_blank_captions_go_and_labels_step_in():
    clips, dropped, from_labels = clean_captions(
        [
            Clip(clip_id="a", path="a", captions=("", " \t", " kept as it is ")),
            Clip(clip_id="b", path="b", captions=("",), labels=("push_ups", "x")),
            Clip(clip_id="c", path="c"),
        ]
    )
    assert [clip.captions for clip in clips] == [(" kept as it is ",), ("push ups",), ()]
    assert (dropped, from_labels) == (3, 1)
