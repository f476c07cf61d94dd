"""WebDataset archives: the layout of video2dataset and img2dataset, patterns, faults, splits, records."""

import gzip
import io
import json
import os
import tarfile

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from webdataset_archives import META, clips_of, pack

from twinreel.base.errors import UserError
from twinreel.data import paths
from twinreel.data.manifest import Sentence
from twinreel.data.sources import sidecars
from twinreel.data.sources.notes import Notes
from twinreel.data.sources.splits import hashed_split
from twinreel.data.sources.webdataset import expand, scan


def refused(path, files):
    _, clips, _ = clips_of(pack(path, files))
    return {name: clip.meta["refused"] for name, clip in clips.items() if "refused" in clip.meta}


# --- layout ---


def test_sample_as_video2dataset_writes_it(tmp_path):
    json_text = META | {
        "width": 640,
        "similarity": 0.31,
        "clips": [["00:00:10.000", "00:00:14.500"]],
        "bad": float("nan"),
    }
    json_text["clip_subtitles"] = [
        {"start": "00:00:09.000", "end": "00:00:11.500", "lines": {"de": ["Hallo"], "en": ["Hello", "there"]}},
        {"start": "00:00:12.000", "end": "00:00:15.000", "lines": {"en": [" dog "]}},
        {"start": "00:00:13.000", "end": "00:00:13.000", "lines": {"en": ["no time"]}},
    ]
    pack(tmp_path / "00000.tar", {"0000001.mp4": b"MEDIA", "0000001.txt": "a dog runs", "0000001.json": json_text})
    root, clips, printed = clips_of(tmp_path / "00000.tar")
    [clip] = clips.values()
    assert clip.clip_id == "0000001" and clip.captions == ("a dog runs",)
    with paths.open_binary(paths.join(root, clip.path)) as file:
        assert file.read() == b"MEDIA"
    assert clip.path == "00000.tar::512+5::0000001.mp4"
    assert clip.sentences == (
        Sentence(start_s=0.0, end_s=1.5, text="Hello there"),
        Sentence(start_s=2.0, end_s=4.5, text="dog"),
    )
    assert clip.transcript == "Hello there dog"
    assert clip.meta == {"url": "https://x.org/1", "width": 640, "similarity": 0.31, "cut_from_s": [10.0, 14.5]}
    assert clip.split == hashed_split("https://x.org/1")
    assert "lines of subtitles with impossible times left out: 1" in printed


@pytest.mark.parametrize(
    "said",
    [
        {
            "yt_meta_dict": {
                "info": {},
                "subtitles": {"en": [{"start": "00:00:01.000", "end": "0:02.5", "lines": ["hi"]}]},
            }
        },
        {"yt_meta_dict": {"subtitles": [{"start": 1, "end": 2.5, "lines": ["hi"]}]}},
        {"whisper_transcript": {"segments": [{"start": 1.0, "end": 2.5, "text": " hi"}], "language": "en"}},
        {"clip_subtitles": [{"start": "00:00:01,000", "end": "00:00:02,500", "line": "hi"}]},
    ],
)
def test_what_is_said_in_all_forms(tmp_path, said):
    pack(tmp_path / "a.tar", {"k.mp4": b"1", "k.txt": "c", "k.json": said})
    [clip] = clips_of(tmp_path / "a.tar")[1].values()
    assert clip.sentences == (Sentence(start_s=1.0, end_s=2.5, text="hi"),)


def test_captions_labels_and_features(tmp_path):
    files = {
        "d/k.mp4": b"1",
        "d/k.txt": "\ufeff one \n",
        "d/k.json": {"caption": "one", "captions": ["two", 3, ""], "label": 7},
        "d/k.cls": "5",
        "d/k.rgb.npy": b"F",
        "d/k.m4a": b"S",
        "d/k.xyz": b"?",
        "d/._k.mp4": b"M",
        "README": b"r",
    }
    _, clips, printed = clips_of(pack(tmp_path / "a.tar", files))
    clip = clips["d/k"]
    assert clip.captions == ("one", "two") and clip.labels == ("5", "7")
    assert list(clip.features) == ["rgb"] and clip.features["rgb"].endswith("+1::d/k.rgb.npy")
    for remark in (
        "sound in files of its own",
        "kind .xyz",
        "without a suffix",
        "hidden files left out: 1 ('d/._k.mp4')",
    ):
        assert remark in printed


def test_picture_is_a_clip_and_a_video_goes_before_it(tmp_path):
    files = {"p.JPG": b"1", "p.txt": "p", "v.jpg": b"2", "v.mp4": b"3", "v.txt": "v", "w.webm": b"4", "w.png": b"5"}
    _, clips, printed = clips_of(pack(tmp_path / "a.tar", files))
    assert [clip.path.rpartition("::")[2] for clip in clips.values()] == ["p.JPG", "v.mp4", "w.webm"]
    assert "pictures beside a video left out" in printed
    _, clips, printed = clips_of(pack(tmp_path / "b.tar", files | {"v.mov": b"6", "v.left.mp4": b"7"}))
    assert len(clips) == 3 and "further media of one sample left out: 2 ('v.mov', 'v.left.mp4')" in printed


def test_films_with_dots_in_their_names(tmp_path):
    names = ["Song 2.0 (Clean)", "Song 2.1 (Live)", "plain"]
    files = {f"{name}.{suffix}": f"{name} {suffix}" for name in names for suffix in ("mp4", "txt")}
    root, clips, printed = clips_of(pack(tmp_path / "a.tar", files))
    assert {name: clip.captions for name, clip in clips.items()} == {name: (f"{name} txt",) for name in names}
    for name, clip in clips.items():
        with paths.open_binary(paths.join(root, clip.path)) as file:
            assert file.read() == f"{name} mp4".encode()
    assert printed == ""


def test_films_that_share_a_key_are_all_listed(tmp_path):
    found = refused(tmp_path / "a.tar", {"Song 2.0.mp4": b"1", "Song 2.1.mp4": b"2", "Song 2.txt": "which?"})
    reason = "2 films share the key 'Song 2': give each film texts of its own name"
    assert found == {"Song 2.0": reason, "Song 2.1": reason}


def test_members_as_clip_video_encode_writes_them(tmp_path):
    files = {}
    for n in range(3):
        array = io.BytesIO()
        np.save(array, np.full((4, 8), n, np.float32))
        files |= {f"name{n}.npy": array.getvalue(), f"name{n}.cap": "a caption", f"name{n}.json": {"fps": 1}}
    root, clips, printed = clips_of(pack(tmp_path / "a.tar", files))
    assert [(clip.path, clip.captions, clip.meta) for clip in clips.values()] == [("", ("a caption",), {"fps": 1})] * 3
    for n, clip in enumerate(clips.values()):
        with paths.open_binary(paths.join(root, clip.features["rgb"])) as file:
            np.testing.assert_array_equal(np.load(file), np.full((4, 8), n, np.float32))
    assert printed == ""


def test_members_of_a_sample_need_not_stand_together(tmp_path):
    files = {"a.mp4": b"1", "b.mp4": b"2", "a.txt": "A", "b.txt": "B"}
    _, clips, _ = clips_of(pack(tmp_path / "a.tar", files))
    assert {name: clip.captions for name, clip in clips.items()} == {"a": ("A",), "b": ("B",)}


# --- several archives ---


def test_patterns(tmp_path):
    assert expand("s/{008..010}-{a,b}.tar", notes=Notes()) == [
        f"s/{n}-{x}.tar" for n in ("008", "009", "010") for x in "ab"
    ]
    for name in ("x-1.tar", "x-2.tar", "y.tar", "z.txt"):
        (tmp_path / name).touch()
    assert expand(f"{tmp_path}/x-*.tar", notes=Notes()) == [f"{tmp_path}/x-1.tar", f"{tmp_path}/x-2.tar"]
    (tmp_path / "more").mkdir()
    (tmp_path / "gone.tar").symlink_to("nowhere.tar")
    notes = Notes()
    assert expand(str(tmp_path), notes=notes) == [f"{tmp_path}/{name}.tar" for name in ("gone", "x-1", "x-2", "y")]
    assert notes.lines() == [
        "texts with a further name left out (KEY.txt, KEY.cap, KEY.cls and KEY.json are read): 1 ('z.txt')",
        "folders beside archives left out (give archives as a pattern: 'DIR/*/*.tar'): 1 ('more')",
    ]


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("s/{1..3.tar", "is no pattern"),
        ("s/{a}.tar", "is no pattern"),
        ("s/{9..1}.tar", "runs backwards"),
        ("s/{0..999999999}.tar", "more than 1,000,000 archives"),
        ("nowhere/*.tar", "does not exist"),
    ],
)
def test_faulty_patterns(pattern, says):
    with pytest.raises(UserError, match=says):
        expand(pattern, notes=Notes())


def test_keys_that_start_anew_in_each_archive(tmp_path):
    for part in ("one", "two"):
        pack(tmp_path / part / "0.tar", {"000.mp4": part, "000.txt": part, f"{part}.mp4": b"", f"{part}.txt": "x"})
    root, clips, _ = clips_of(f"{tmp_path}/{{one,two}}/0.tar")
    assert sorted(clips) == ["one", "one/0/000", "two", "two/0/000"] and root == str(tmp_path)
    assert clips["two/0/000"].path == "two/0.tar::512+3::000.mp4"
    with pytest.raises(UserError, match=r"names the archive of sample .* twice"):
        clips_of(f"{tmp_path}/{{one,one}}/0.tar")


def test_splits_by_name_or_by_video(tmp_path):
    for part in ("Train", "validation", "test", "dev"):
        pack(tmp_path / f"x-{part}-000.tar", {f"{part}.mp4": b"1", f"{part}.txt": "x"})
    splits = {name: clip.split for name, clip in clips_of(tmp_path)[1].items()}
    assert splits == {"Train": "train", "validation": "val", "test": "test", "dev": "val"}
    windows = {f"{video:04d}_{window:05d}.mp4": b"1" for video in range(40) for window in range(3)}
    _, clips, _ = clips_of(pack(tmp_path / "h" / "0.tar", windows))
    of_video = {}
    for name, clip in clips.items():
        of_video.setdefault(name[:4], set()).add(clip.split)
    assert all(len(found) == 1 for found in of_video.values()) and set.union(*of_video.values()) == {
        "train",
        "val",
        "test",
    }
    pack(tmp_path / "mixed" / "train-0.tar", {"a.mp4": b"1"})
    pack(tmp_path / "mixed" / "other.tar", {"b.mp4": b"1"})
    with pytest.raises(UserError, match="1 of 2 clips have no split"):
        clips_of(tmp_path / "mixed")


# --- faults ---


def test_faulty_samples_are_refused_with_their_reason_and_the_others_kept(tmp_path):
    files = [
        ("good.mp4", b"1"),
        ("good.txt", "fine"),
        ("latin.mp4", b"1"),
        ("latin.txt", "caf\xe9".encode("latin-1")),
        ("broken.mp4", b"1"),
        ("broken.json", "{'caption': 1}"),
        ("list.mp4", b"1"),
        ("list.json", "[1]"),
        ("deep.mp4", b"1"),
        ("deep.json", "[" * 100_000),
        ("half.mp4", b"1"),
        ("half.json", '{"caption": "\\ud800"}'),
        ("huge.mp4", b"1"),
        ("huge.json", '{"n": ' + "9" * 5000 + "}"),
        ("long.mp4", b"1"),
        ("long.txt", b"x" * (sidecars.LONGEST_TEXT + 1)),
        ("key.mp4", b"1"),
        ("key.json", '{"caption": "x", "caption": "y"}'),
        ("twice.mp4", b"1"),
        ("twice.mp4", b"2"),
        ("failed.json", META | {"status": "failed_to_download"}),
        ("alone.txt", "text only"),
        ("../up.mp4", b"1"),
        ("/abs.mp4", b"1"),
    ]
    found = refused(tmp_path / "a.tar", files)
    assert found == {
        "latin": "text cannot be used: the .txt is not UTF-8 (unexpected end of data at byte 3)",
        "broken": found["broken"],
        "list": "text cannot be used: the .json is a list, wanted a JSON object",
        "deep": found["deep"],
        "half": found["half"],
        "huge": found["huge"],
        "long": "text is too long: 'long.txt' (1,048,577 bytes, at most 1,048,576)",
        "key": found["key"],
        "twice": "member comes twice: 'twice.mp4'",
        "failed": "no media in the archive: status 'failed_to_download'",
        "alone": "no media in the archive",
        "../up": "member has a name with '..' in it: '../up.mp4'",
        "/abs": "member has an absolute name: '/abs.mp4'",
    }
    for name, part in (
        ("broken", "property name"),
        ("deep", "recursion"),
        ("half", "surrogate"),
        ("huge", "JSON"),
        ("key", "'caption' is given twice"),
    ):
        assert found[name].startswith("text cannot be used") and part in found[name]


def test_links_are_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as out:
        for name, kind in (("a.mp4", tarfile.SYMTYPE), ("b.mp4", tarfile.LNKTYPE), ("c.txt", tarfile.SYMTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/hostname"
            out.addfile(info)
        out.addfile(tarfile.TarInfo("c.mp4"))
    _, clips, _ = clips_of(tmp_path / "a.tar")
    assert {name: clip.meta["refused"].partition(":")[0] for name, clip in clips.items()} == {
        "a": "member is a symbolic link",
        "b": "member is a hard link",
        "c": "member is a symbolic link",
    }


def test_archive_cut_short_keeps_what_came_before(tmp_path):
    path = pack(tmp_path / "00007.tar", {"a.mp4": b"1", "a.txt": "A", "b.mp4": b"2" * 3000, "b.txt": "B"})
    os.truncate(path, 3000)
    _, clips, _ = clips_of(path)
    assert clips["a"].captions == ("A",)
    assert clips["00007.tar@2048"].meta["refused"] == (
        "archive is damaged: cut short: member 'b.mp4' needs 3,000 bytes, of which 440 are there, at byte 2,048"
    )


def test_archives_that_cannot_be_read_at_all(tmp_path):
    whole = pack(tmp_path / "a.tar", {"a.mp4": b"1"}).read_bytes()
    (tmp_path / "z.tar").write_bytes(gzip.compress(whole + os.urandom(600)))
    with pytest.raises(UserError, match=r"z\.tar': the archive is compressed \(gzip\), which cannot be read in place"):
        clips_of(tmp_path / "z.tar")
    (tmp_path / "b.tar").write_bytes(os.urandom(2000))
    with pytest.raises(UserError, match=r"b\.tar': no tar archive"):
        clips_of(tmp_path / "b.tar")
    with pytest.raises(UserError, match="does not exist"):
        clips_of(tmp_path / "none.tar")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"has no \.tar"):
        expand(str(tmp_path / "empty"), notes=Notes())
    with pytest.raises(UserError, match="hold no sample"):
        clips_of(pack(tmp_path / "n.tar", {"README": b"1"}))


WHOLE = io.BytesIO()
with tarfile.open(fileobj=WHOLE, mode="w", format=tarfile.PAX_FORMAT) as _out:
    for _name, _data in (
        ("k.mp4", b"m" * 600),
        ("k.json", json.dumps(META | {"clips": [[1, 2]], "clip_subtitles": [{"start": 1, "end": 2, "lines": ["x"]}]})),
        ("é" * 80 + ".txt", "caption"),
        ("l.jpg", b"1"),
        ("l.txt", "l"),
    ):
        _bytes = _data.encode() if isinstance(_data, str) else _data
        _info = tarfile.TarInfo(_name)
        _info.size = len(_bytes)
        _out.addfile(_info, io.BytesIO(_bytes))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    edits=st.lists(st.tuples(st.integers(0, 9000), st.binary(min_size=1, max_size=12)), max_size=5),
    cut=st.integers(0, 12_000),
)
@example(edits=[], cut=511)
@example(edits=[(1536 + 124, b"\x80")], cut=12_000)
def test_any_archive_gives_clips_or_an_error_to_read(tmp_path, edits, cut):
    data = bytearray(WHOLE.getvalue())
    for at, new in edits:
        data[at : at + len(new)] = new
    (tmp_path / "f.tar").write_bytes(data[:cut])
    try:
        shard = scan(str(tmp_path / "f.tar"))
        _, clips, _ = clips_of(tmp_path / "f.tar")
    except UserError:
        return
    assert len(clips) == len(shard.samples) + len(shard.faults)
    for clip in clips.values():
        json.dumps(clip.meta, allow_nan=False)
        if "refused" not in clip.meta and clip.path:
            assert paths.size(tmp_path / clip.path) >= 0


@settings(max_examples=300, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["start", "end", "lines", "text", "en", "segments", "subtitles"]), inner, max_size=4
            )
        ),
        max_leaves=12,
    ),
    st.sampled_from(
        ["clips", "clip_subtitles", "yt_meta_dict", "whisper_transcript", "caption", "captions", "label", "url"]
    ),
)
def test_any_json_gives_fields_of_the_right_kind(value, name):
    fields = sidecars.json_fields(json.dumps({name: value}).encode())
    lines, bad = sidecars.sentences(fields)
    assert bad >= 0 and all(0 <= line["start_s"] < line["end_s"] and line["text"] for line in lines)
    assert all(isinstance(caption, str) and caption for caption in sidecars.captions([""], fields))
    assert all(isinstance(label, str) and label for label in sidecars.labels("", fields))
    json.dumps(sidecars.meta(fields), allow_nan=False)
    assert isinstance(sidecars.video_of(fields), str)
