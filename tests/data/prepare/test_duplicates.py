"""Fingerprints, the search for duplicates, and what prepare does about them."""

import dataclasses
import io

import cv2
import imagehash
import numpy as np
import pytest
from files import lines
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from twinreel.base.errors import UserError
from twinreel.data.manifest import Clip, write_manifest
from twinreel.data.media.decode import DecodeOptions, decode_clip
from twinreel.data.media.fingerprint import fingerprint, perceptual
from twinreel.data.prepare.duplicates import Prints, find_duplicates, near, refuse_counted, search
from twinreel.data.prepare.prepare import prepare

OPTIONS = DecodeOptions(fps=8, short_side=64)


def scene(seed, *, frames=16, size=(72, 96)):
    """A smooth random background over which a bright disc moves on a path of its own."""
    rng = np.random.default_rng(seed)
    ground = cv2.resize(rng.integers(30, 200, (5, 6, 3), dtype=np.uint8), size[::-1], interpolation=cv2.INTER_CUBIC)
    start, end = rng.uniform(15, 60, (2, 2))
    pictures = []
    for place in np.linspace(start, end, frames):
        picture = ground.copy()
        cv2.circle(picture, (int(place[1] * 1.3), int(place[0])), 12, (250, 250, 240), -1)
        pictures.append(picture)
    return pictures


def row(path, *, split="train"):
    clip = decode_clip(path, options=OPTIONS)
    prints = fingerprint(clip.encoded, timestamps_s=clip.timestamps_s, duration_s=clip.duration_s, audio=clip.audio)
    return {"clip_id": path.stem, "split": split, "duration_s": clip.duration_s, **dataclasses.asdict(prints)}


def kinds(rows):
    return {
        (rows[pair.first]["clip_id"], rows[pair.second]["clip_id"]): "exact" if pair.exact else "near"
        for pair in find_duplicates(rows).pairs()
    }


# --- fingerprints ---


def test_hashes_are_those_of_imagehash():
    rng = np.random.default_rng(1)
    pictures = np.stack([cv2.GaussianBlur(rng.integers(0, 255, (32, 32), dtype=np.uint8), (5, 5), 0) for _ in range(8)])
    ours, moving = perceptual(pictures)
    assert list(ours) == [str(imagehash.phash(Image.fromarray(picture))) for picture in pictures]
    assert all(moving)


def test_flat_and_still_pictures_have_no_hash():
    ours, moving = perceptual(np.full((8, 32, 32), 17, np.uint8))
    assert ours == moving == ("",) * 8
    steep = np.broadcast_to(np.arange(0, 256, 8, dtype=np.uint8), (8, 32, 32))
    ours, moving = perceptual(steep)
    assert all(ours) and moving == ("",) * 8


def test_hash_of_bytes_covers_pictures_times_and_sound(media, tmp_path):
    path = media.write(tmp_path / "a.mp4", scene(0), sound=media.tone(2.0))
    clip = decode_clip(path, options=OPTIONS)

    def digest(**changed):
        fields = {"timestamps_s": clip.timestamps_s, "audio": clip.audio, "encoded": clip.encoded} | changed
        return fingerprint(fields.pop("encoded"), duration_s=clip.duration_s, **fields).sha256

    assert digest() == digest()
    others = [
        digest(audio=None),
        digest(audio=clip.audio + 1),
        digest(timestamps_s=clip.timestamps_s + 0.01),
        digest(encoded=clip.encoded[::-1]),
        digest(encoded=[clip.encoded[0] + clip.encoded[1], *clip.encoded[2:]]),
    ]
    assert len({digest(), *others}) == 6


# --- what is a duplicate ---


def test_copies_are_found_and_nothing_else(media, tmp_path):
    original = scene(0, size=(144, 192))
    media.write(tmp_path / "original.mp4", original)
    (tmp_path / "renamed.mp4").write_bytes((tmp_path / "original.mp4").read_bytes())
    media.write(tmp_path / "coarse.mp4", original, options={"crf": "38"})
    half = [cv2.resize(picture, (96, 72), interpolation=cv2.INTER_AREA) for picture in original]
    media.write(tmp_path / "half.mp4", half)
    media.write(tmp_path / "cropped.mp4", [picture[2:-2, 4:-4] for picture in original])
    media.write(tmp_path / "bright.mp4", [np.clip(p * 1.1 + 8, 0, 255).astype(np.uint8) for p in original])
    media.write(tmp_path / "mirrored.mp4", [picture[:, ::-1] for picture in original])
    media.write(tmp_path / "backwards.mp4", original[::-1])
    media.write(tmp_path / "longer.mp4", original + original)
    for seed in range(1, 9):
        media.write(tmp_path / f"other{seed}.mp4", scene(seed, size=(144, 192)))
    copies = ["renamed", "coarse", "half", "cropped", "bright"]
    rest = ["mirrored", "backwards", "longer", *(f"other{seed}" for seed in range(1, 9))]
    rows = [row(tmp_path / f"{name}.mp4") for name in ("original", *copies, *rest)]
    found = kinds(rows)
    assert found["original", "renamed"] == "exact"
    assert {found["original", name] for name in copies[1:]} == {"near"}
    assert {name for pair in found for name in pair} == {"original", *copies}


def test_windows_of_one_file_are_no_duplicates(media, tmp_path):
    path = media.write(tmp_path / "a.mp4", scene(3) + scene(4))
    clips = [decode_clip(path, options=OPTIONS, start_s=s, end_s=s + 2) for s in (0.0, 2.0, 0.0)]
    rows = []
    for number, clip in enumerate(clips):
        prints = fingerprint(clip.encoded, timestamps_s=clip.timestamps_s, duration_s=clip.duration_s, audio=None)
        rows.append({"clip_id": str(number), "split": "x", "duration_s": 2.0, **dataclasses.asdict(prints)})
    assert kinds(rows) == {("0", "2"): "exact"}


def test_black_clips_are_compared_by_their_bytes_only(media, tmp_path):
    for name, levels, sound in (("a", [5] * 8, None), ("b", [9] * 8, None), ("c", [5] * 8, media.tone(1.0))):
        media.write(tmp_path / f"{name}.mp4", media.grey(*levels), sound=sound)
    (tmp_path / "d.mp4").write_bytes((tmp_path / "a.mp4").read_bytes())
    rows = [row(tmp_path / f"{name}.mp4") for name in "abcd"]
    assert kinds(rows) == {("a", "d"): "exact"}
    assert find_duplicates(rows).flat == 4


def test_order_twins_are_no_duplicates(tmp_path):
    from twinreel.demo.moving_shapes import write

    write(tmp_path, train=24, val=0, test=8, workers=1, progress=False)
    rows = [row(path) for path in sorted(tmp_path.glob("clips/*/*.mp4"))]
    assert len(rows) == 32
    assert kinds(rows) == {}


# --- the search ---


def prints_of(rng, count, *, flips):
    """Random fingerprints in families: the members differ from their parent in a few bits of each hash."""
    parents = rng.integers(0, 2**64, (max(1, count // 4), 2, 8), dtype=np.uint64)
    hashes = parents[rng.integers(len(parents), size=count)]
    for _ in range(flips):
        flip = rng.random(hashes.shape) < 0.7
        hashes = hashes ^ np.where(flip, np.uint64(1) << rng.integers(0, 64, hashes.shape, dtype=np.uint64), 0)
    there = rng.random((2, count, 8)) < 0.9
    hashes = hashes.astype(np.uint64)
    return Prints(hashes[:, 0], hashes[:, 1], there[0], there[1], rng.uniform(1, 4, count))


def brute_force(prints):
    """The rule, pair by pair and bit by bit."""
    found = {}
    for a in range(len(prints.seconds)):
        for b in range(a + 1, len(prints.seconds)):
            shorter, longer = sorted((prints.seconds[a], prints.seconds[b]))
            shown = [s for s in range(8) if prints.shaped[a, s] and prints.shaped[b, s]]
            moved = [s for s in range(8) if prints.moving[a, s] and prints.moving[b, s]]
            pictures = [bin(int(prints.phash[a, s]) ^ int(prints.phash[b, s])).count("1") for s in shown]
            motion = [bin(int(prints.motion[a, s]) ^ int(prints.motion[b, s])).count("1") for s in moved]
            one_only = sum(bool(prints.moving[a, s]) != bool(prints.moving[b, s]) for s in range(8))
            if longer - shorter > max(0.5, 0.1 * longer) or len(shown) < 4 or one_only > 2:
                continue
            if min(pictures + motion) > 2 or (motion and sum(motion) / len(motion) > 10):
                continue
            if sum(pictures) / len(pictures) <= (10 if motion else 4):
                found[a, b] = sum(pictures) / len(pictures)
    return found


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(2, 60), flips=st.integers(0, 14))
def test_search_finds_what_brute_force_finds(seed, count, flips):
    prints = prints_of(np.random.default_rng(seed), count, flips=flips)
    edges, distances, crowded = search(prints)
    assert crowded == 0
    expected = brute_force(prints)
    assert dict(zip(map(tuple, edges.tolist()), distances.tolist(), strict=True)) == pytest.approx(expected)


def test_brute_force_finds_something():
    assert len(brute_force(prints_of(np.random.default_rng(5), 40, flips=4))) > 5


def test_rule_is_symmetric():
    prints = prints_of(np.random.default_rng(2), 40, flips=6)
    a, b = np.triu_indices(40, 1)
    np.testing.assert_array_equal(near(prints, a, b)[0], near(prints, b, a)[0])


def test_crowds_are_cut_and_counted(monkeypatch):
    monkeypatch.setattr("twinreel.data.prepare.duplicates._CROWD", 3)
    ones = np.full((10, 8), 7, np.uint64)
    there = np.ones((10, 8), bool)
    edges, _, crowded = search(Prints(ones, ones, there, there, np.ones(10)))
    assert {b - a for a, b in edges.tolist()} == {1, 2, 3}
    assert crowded > 0


def test_drop_keeps_test_before_train_and_breaks_no_chains():
    def made(split, phash, sha):
        return {"split": split, "duration_s": 1.0, "sha256": sha, "phash": [f"{phash:016x}"] * 8, "motion": [""] * 8}

    base = 0x0F0F_0F0F_0F0F_0F0F
    rows = [
        made("train", base, "a"),  # near b, which test keeps
        made("test", base ^ 0b11, "b"),
        made("train", base ^ 0b1111, "c"),  # near b (2 bits)
        made("train", base ^ 0b111111, "d"),  # 4 bits from b and best match 4 bits: no duplicate of b
        made("val", base ^ (0xFFFF << 20), "e"),
        made("train", base ^ (0xFFFF << 20), "e"),
    ]
    found = find_duplicates(rows)
    assert found.to_drop() == {0: 1, 2: 1, 5: 4}
    assert {(pair.first, pair.second, pair.exact) for pair in found.leaks()} == {(0, 1, False), (4, 5, True)}


# --- prepare ---


@pytest.fixture(scope="module")
def source(media, tmp_path_factory):
    """Six clips: b is a copy of a (train, train), t of c (test, train), nearly so; d stands alone, u too."""
    root = tmp_path_factory.mktemp("source")
    for name, seed in (("a", 0), ("c", 1), ("d", 2), ("u", 3)):
        media.write(root / f"{name}.mp4", scene(seed))
    (root / "b.mp4").write_bytes((root / "a.mp4").read_bytes())
    media.write(root / "t.mp4", scene(1), options={"crf": "36"})
    splits = {"t": "test", "u": "test"}
    clips = [
        Clip(clip_id=name, path=f"{name}.mp4", captions=(name,), split=splits.get(name, "train")) for name in "abcdtu"
    ]
    write_manifest(root / "m.jsonl", clips=clips)
    return root / "m.jsonl"


def run(source, out, **options):
    printed = io.StringIO()
    console = Console(file=printed, width=200)
    report = prepare(source, out=out, fps=8, short_side=64, workers=1, shard_clips=2, console=console, **options)
    return report, printed.getvalue()


def records(out):
    from twinreel.data.batches.records import Records

    folder = Records(out)
    return {
        row["clip_id"]: folder.read(split, [row["index"]])[0] for split in folder.splits for row in folder.rows(split)
    }


@pytest.fixture(scope="module")
def reported(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("reported") / "set"
    return out, *run(source, out)


def test_report(reported):
    out, report, printed = reported
    assert report["duplicates"] == {
        **{"exact": 1, "near": 1, "within_split": 1, "across_splits": 1, "leaks": {"test": 1}},
        **{"flat": 0, "crowded": 0, "dropped": 0},
    }
    leak, copy = lines(out / "duplicates.jsonl")
    assert leak["kind"] == "near" and leak["leak"] and leak["distance"] <= 4
    assert leak["clips"] == [{"split": "train", "clip_id": "c"}, {"split": "test", "clip_id": "t"}]
    assert copy["kind"] == "exact" and not copy["leak"]
    assert set(records(out)) == set("abcdtu")
    for part in ("1 exact duplicates", "1 near duplicates", "1 clips of test have a duplicate in train"):
        assert part in printed


def test_drop_leaves_the_other_records_as_they_were(source, reported, tmp_path):
    report, printed = run(source, tmp_path / "set", duplicates="drop")
    before = records(reported[0])
    assert records(tmp_path / "set") == {name: before[name] for name in "adtu"}
    assert report["counts"] == {"train": {"clips": 2, "rejected": 2}, "test": {"clips": 2, "rejected": 0}}
    assert report["duplicates"]["dropped"] == 2
    assert report["rejected"] == {"duplicate": 2}
    assert [(line["clip_id"], line["reason"]) for line in lines(tmp_path / "set" / "rejects.jsonl")] == [
        *(("b", "duplicate: of a"), ("c", "duplicate: of t")),
    ]
    assert [(row["clip_id"], row["index"]) for row in lines(tmp_path / "set" / "clips.jsonl")] == [
        *(("a", 0), ("d", 1), ("t", 0), ("u", 1)),
    ]
    assert "2 duplicates dropped" in printed
    again, said = run(source, tmp_path / "set", duplicates="drop")
    assert again == report and "nothing to do" in said


def test_drop_that_was_interrupted_goes_on_to_the_same_end(source, tmp_path, monkeypatch):
    from twinreel.data.prepare import builder

    expected, _ = run(source, tmp_path / "whole", duplicates="drop")

    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(builder, "assemble", stop)
        with pytest.raises(KeyboardInterrupt):
            run(source, tmp_path / "set", duplicates="drop")
    report, _ = run(source, tmp_path / "set", duplicates="drop")
    assert report == expected
    for path in (tmp_path / "whole").rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "set" / path.relative_to(tmp_path / "whole")).read_bytes(), path


def test_keep_does_not_look(source, tmp_path):
    report, _ = run(source, tmp_path / "set", duplicates="keep")
    assert report["duplicates"] is None
    assert not (tmp_path / "set" / "duplicates.jsonl").exists()


def test_fail_on_leak(source, reported, tmp_path):
    with pytest.raises(
        UserError, match=r"(?s)1 clips of other splits.*test t is nearly the same as train c.*--dup"
    ) as e:
        run(source, tmp_path / "set", fail_on_leak=True)
    assert "duplicates.jsonl" in str(e.value)
    assert not (tmp_path / "set" / "prepare.json").exists()
    assert len(lines(tmp_path / "set" / "duplicates.jsonl")) == 2
    with pytest.raises(UserError, match="test t is nearly the same as train c"):
        run(source, reported[0], fail_on_leak=True)  # on a folder that was finished before
    report, _ = run(source, tmp_path / "other", fail_on_leak=True, duplicates="drop")
    assert report["duplicates"]["dropped"] == 2


# --- real clips ---


@pytest.mark.real
def test_real_clips_are_told_apart(real_dir):
    picked = [line for line in lines(real_dir / "clips.jsonl") if line["clip_id"].startswith(("nat", "fig"))][::6]
    rows = [row(real_dir / line["path"]) for line in picked]
    assert len(rows) > 30
    assert kinds(rows) == {}


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (None, r"nobody looked for duplicates in 's3://b/p'"),
        ({"leaks": {"test": 2, "val": 0}, "dropped": 0}, r"in train: 2 of test; s3://b/p/duplicates.jsonl lists them"),
        ({"leaks": {"test": 2}, "dropped": 3}, ""),
        ({"leaks": {}, "dropped": 0}, ""),
    ],
)
def test_a_finished_folder_is_refused_by_what_it_says_of_itself(found, message):
    if not message:
        refuse_counted(found, folder="s3://b/p")
        return
    with pytest.raises(UserError, match=message):
        refuse_counted(found, folder="s3://b/p")
