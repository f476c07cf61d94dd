import itertools
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest
from shape_words import MOTION, SHAPE

from twinreel.base.errors import UserError
from twinreel.data.manifest import read_manifest
from twinreel.demo import moving_shapes
from twinreel.demo.render import COLOURS, MOTIONS, Tone, render_clip, render_tone

FPS = 12

# Written again here and in shape_words, on purpose: what a reader would accept as naming the fact.
SIZE = {"small": "small|little", "large": "large|big"}
TEXTURE = {"plain": "", "striped": "striped|with stripes", "dotted": "dotted|with dots"}
REVERSED = re.compile(r"^before |^(?!after ).* after (?!that)")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("shapes")
    moving_shapes.write(out, train=16, val=4, test=12, fps=FPS, workers=1, progress=False)
    return out


@pytest.fixture(scope="module")
def clips(folder):
    return read_manifest(folder / "manifest.jsonl")


@pytest.fixture(scope="module")
def jobs():
    return moving_shapes.plan(seed=0, train=4000, val=200, test=500, fps=FPS)


def pictures(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]).astype(float)


def sound(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])


def twins(items, *, group):
    return [(a, b) for a, b in itertools.pairwise(items) if group(a) and group(a) == group(b)]


# Files


def test_files_are_h264_and_aac_of_the_right_length(folder, clips):
    assert len(clips) == 32
    for clip in clips:
        with av.open(str(folder / clip.path)) as container:
            video, audio = container.streams.video[0], container.streams.audio[0]
            assert (video.codec_context.name, video.codec_context.pix_fmt) == ("h264", "yuv420p")
            assert (video.width, video.height, video.average_rate) == (64, 64, FPS)
            assert (audio.codec_context.name, audio.rate, audio.channels) == ("aac", 16_000, 1)
            times = [frame.time for frame in container.decode(video)]
        end = clip.meta["events"][-1]["end_s"]
        assert 2.3 <= end <= 3.1
        np.testing.assert_allclose(times, np.arange(round(end * FPS)) / FPS, atol=1e-3)
        assert len(sound(folder / clip.path)) / 16_000 == pytest.approx(end, abs=2 * 1024 / 16_000)


def test_colours_survive_the_encoding(folder):
    job = moving_shapes.plan(seed=0, train=2, val=0, test=0, fps=FPS)[0]
    drawn = render_clip(job.events, size=64, seed=job.background).astype(float)
    moving_shapes.write(folder / "one", train=2, val=0, test=0, fps=FPS, workers=1, progress=False)
    decoded = pictures(folder / "one" / job.path)
    assert np.abs(decoded.mean((1, 2)) - drawn.mean((1, 2))).max() < 3
    assert np.abs(decoded - drawn).mean() < 5


def test_same_seed_same_bytes_also_in_a_pool(tmp_path):
    for name, seed, workers in (("alone", 3, 1), ("pool", 3, 2), ("other", 4, 1)):
        moving_shapes.write(
            tmp_path / name, seed=seed, train=60, val=2, test=6, size=32, workers=workers, progress=False
        )
    files = {
        name: {
            p.relative_to(tmp_path / name): p.read_bytes()
            for p in sorted((tmp_path / name).rglob("*.*"))
            if p.is_file()
        }
        for name in ("alone", "pool", "other")
    }
    assert len(files["alone"]) == 68 + 2
    assert files["alone"] == files["pool"]
    same = [path for path in files["alone"] if files["alone"][path] == files["other"][path]]
    assert same == []


def test_interrupted_writing_is_resumed(tmp_path, monkeypatch):
    numbers = {"train": 4, "val": 2, "test": 2, "size": 32, "workers": 1, "progress": False}
    write_clip, written = moving_shapes._write_clip, []

    def stop_after_three(job, **kwargs):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(job.clip_id)
        write_clip(job, **kwargs)

    monkeypatch.setattr(moving_shapes, "_write_clip", stop_after_three)
    with pytest.raises(KeyboardInterrupt):
        moving_shapes.write(tmp_path, **numbers)
    assert not (tmp_path / "manifest.jsonl").exists()
    monkeypatch.setattr(moving_shapes, "_write_clip", write_clip)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.mp4")}
    assert len(before) == 3
    manifest = moving_shapes.write(tmp_path, **numbers)
    assert len(read_manifest(manifest)) == len(list(tmp_path.rglob("*.mp4"))) == 8
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert not list(tmp_path.rglob("*.part"))


def test_errors_name_the_number_and_the_remedy(tmp_path):
    with pytest.raises(UserError, match=r"train=3.*even"):
        moving_shapes.write(tmp_path, train=3)
    with pytest.raises(UserError, match=r"size=33.*even"):
        moving_shapes.write(tmp_path, size=33)
    moving_shapes.write(tmp_path, train=2, val=0, test=0, size=32, progress=False)
    with pytest.raises(UserError, match=r"seed=0 \(wanted 1\).*another folder"):
        moving_shapes.write(tmp_path, seed=1, train=2, val=0, test=0, size=32)
    (tmp_path / "foreign" / "clips").mkdir(parents=True)
    with pytest.raises(UserError, match=r"no moving_shapes\.json"):
        moving_shapes.write(tmp_path / "foreign")


def test_importing_it_loads_neither_jax_nor_tensorflow():
    heavy = "{'jax', 'tensorflow', 'flax'}"
    code = f"import sys, twinreel.demo.moving_shapes; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


# Splits and twins


def test_counts_and_balance_of_the_default_set(jobs):
    assert Counter(job.split for job in jobs) == {"train": 4000, "val": 200, "test": 500}
    assert len({job.clip_id for job in jobs}) == 4700
    pairs = twins(jobs, group=lambda job: job.group)
    assert Counter(a.split for a, _ in pairs) == {"train": 2000, "val": 100, "test": 125}
    in_pairs = Counter(job.split for job in jobs if job.group)
    assert in_pairs == {"train": 4000, "val": 200, "test": 250}
    for split in ("train", "val", "test"):
        first = Counter(job.events[0].motion for job in jobs if job.split == split)
        total = sum(first.values())
        assert set(first) == set(MOTIONS)
        assert max(first.values()) < 0.2 * total and min(first.values()) > 0.05 * total


def test_splits_and_groups_share_no_combination(jobs):
    where: dict[tuple, set] = {}
    for job in jobs:
        facts = sorted((e.shape, e.colour, e.size, e.texture, e.motion) for e in job.events)
        where.setdefault(tuple(facts), set()).add(job.group or job.clip_id)
    assert all(len(groups) == 1 for groups in where.values())
    assert len(where) == 2000 + 100 + 125 + 250


def test_test_clips_do_not_depend_on_the_other_splits(jobs):
    fewer = moving_shapes.plan(seed=0, train=0, val=0, test=500, fps=FPS)
    assert fewer == [job for job in jobs if job.split == "test"]


def test_twins_differ_in_nothing_but_the_order(jobs):
    for a, b in twins(jobs, group=lambda job: job.group):
        assert (a.tone, a.background, a.split) == (b.tone, b.background, b.split)
        assert a.events == b.events[::-1] and a.events != b.events
        assert len(a.captions) == len(b.captions)
        for one, other in zip(a.captions, b.captions, strict=True):
            assert one != other
            assert sorted(re.findall(r"\w+", one)) == sorted(re.findall(r"\w+", other))


def test_segments_of_twins_look_and_sound_alike(folder, clips):
    pairs = twins(clips, group=lambda clip: clip.meta.get("group"))
    assert len(pairs) == 8 + 2 + 3
    for a, b in pairs:
        seen = [pictures(folder / clip.path) for clip in (a, b)]
        assert len(seen[0]) == len(seen[1])
        assert np.abs(seen[0] - seen[1]).mean() > 1  # the order can be seen
        segments = []
        for clip, frames in zip((a, b), seen, strict=True):
            cut = [[round(e["start_s"] * FPS), round(e["end_s"] * FPS)] for e in clip.meta["events"]]
            segments.append([frames[start:end] for start, end in cut])
        for one, other in zip(segments[0], segments[1][::-1], strict=True):
            assert one.shape == other.shape
            assert np.abs(one - other).mean() < 2.5  # what compression does
        np.testing.assert_array_equal(sound(folder / a.path), sound(folder / b.path))


def test_train_clips_are_sorted_by_their_colours_and_twins_stay_together(jobs):
    train = [job for job in jobs if job.split == "train"]
    assert all(a.group == b.group for a, b in zip(train[::2], train[1::2], strict=True))
    colours = [tuple(sorted(event.colour for event in job.events)) for job in train]
    runs = [next(members) for _, members in itertools.groupby(colours)]
    assert len(runs) == len(set(runs))
    assert [len(run) for run in runs] == sorted(len(run) for run in runs)


# Captions


def test_captions_say_what_happens_in_its_order(jobs):
    reversed_count = 0
    for job in jobs:
        assert 1 <= len(set(job.captions)) == len(job.captions) <= 3
        for index, caption in enumerate(job.captions):
            places = []
            for event in job.events:
                noun = rf"{event.colour} ({SHAPE[event.shape]})( with stripes| with dots)? ({MOTION[event.motion]})"
                match = re.search(rf"\ban? ((small|little|large|big|plain|striped|dotted) )*{noun}", caption)
                assert match, (caption, event)
                texture = TEXTURE[event.texture]
                assert re.search(texture, match[0]), (caption, event)
                assert bool(texture) == bool(re.search("striped|dotted|stripes|dots", match[0]))
                said_size = re.search(r"\b(small|little|large|big)\b", match[0])
                assert said_size or index > 0
                assert not said_size or re.fullmatch(SIZE[event.size], said_size[0])
                places.append(match.start())
            backwards = bool(REVERSED.search(caption))
            reversed_count += backwards
            assert places == sorted(places, reverse=backwards), caption
            assert not (backwards and index == 0)
            if "tone" in caption or "beep" in caption:
                assert f"a {job.tone.pitch} " in caption
    assert 0 < reversed_count < 0.05 * sum(len(job.captions) for job in jobs)


def test_first_captions_of_the_test_clips_are_all_different(jobs):
    first = [job.captions[0] for job in jobs if job.split == "test"]
    assert len(set(first)) == len(first) == 500


def test_manifest_tells_label_events_and_tone(folder, clips):
    lines = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    for line, clip in zip(lines, clips, strict=True):
        assert line["labels"] == [line["meta"]["events"][0]["colour"]] == list(clip.labels)
        places = []
        for span, event in zip(clip.spans, line["meta"]["events"], strict=True):
            assert (span.start_s, span.end_s, span.label) == (event["start_s"], event["end_s"], event["motion"])
            assert event["colour"] in span.text and span.text in clip.captions[0]
            places.append(clip.captions[0].index(span.text))
        assert places == sorted(places)
        told = {event[name] for event in line["meta"]["events"] for name in ("size", "colour", "shape", "motion")}
        assert told < set(line["meta"]["attributes"])
        assert set(line["meta"]["tone"]) == {"pitch", "motion"}
        assert ("group" in line["meta"]) == line["clip_id"].endswith(("a", "b"))


# Sound


def loudest_hz(samples: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 1 << 16))
    return float(np.argmax(spectrum)) * 16_000 / (1 << 16)


def check_tone(samples: np.ndarray, *, pitch: str, motion: str):
    n = len(samples)
    early, late = (loudest_hz(samples[int(n * a) : int(n * b)]) for a, b in ((0.05, 0.3), (0.7, 0.95)))
    assert (early < 600 and late < 600) if pitch == "low" else (early > 1000 and late > 1000)
    ratio = late / early
    assert {"rises": ratio > 1.3, "falls": ratio < 1 / 1.3}.get(motion, 0.97 < ratio < 1.03)
    loudness = np.sqrt([np.mean(part**2) for part in np.array_split(samples[n // 20 : -n // 20], 60)])
    gaps = np.mean(loudness < 0.2 * loudness.max())
    assert gaps > 0.2 if motion == "beeps" else gaps == 0


@pytest.mark.parametrize("pitch", ["low", "high"])
@pytest.mark.parametrize("motion", ["rises", "falls", "beeps", "stays"])
def test_tone_moves_as_named(pitch, motion):
    samples = render_tone(Tone(pitch=pitch, motion=motion, seed=5), seconds=2.7)
    assert samples.dtype == np.int16 and len(samples) == 43_200
    check_tone(samples / 32768, pitch=pitch, motion=motion)


def test_tone_in_the_files_is_the_one_of_the_manifest(folder, clips):
    for clip in clips:
        check_tone(sound(folder / clip.path), **clip.meta["tone"])


# Foils


def facts(caption):
    """Return what a caption says: for each event in the order of mention its size, texture, colour, shape, motion."""
    caption = caption.split(" while a ")[0]
    shapes = list(re.finditer("|".join(SHAPE.values()), caption))
    parts = [caption[a:b] for a, b in itertools.pairwise([0, *(_end(caption, m) for m in shapes)])]
    return [
        tuple(
            next((name for name, words in table.items() if words and re.search(rf"\b({words})\b", part)), "plain")
            for table in (SIZE, TEXTURE, {c: c for c in COLOURS}, SHAPE, MOTION)
        )
        for part in parts
    ]


def _end(caption, shape):
    """Where the motion after a shape's word ends."""
    return re.compile("|".join(f"({words})" for words in MOTION.values())).search(caption, shape.end()).end()


def test_foils_change_one_thing_and_stay_possible(jobs):
    place = {"size": 0, "texture": 1, "colour": 2, "shape": 3, "motion": 4}
    count = Counter()
    for job in jobs:
        assert (job.split == "val") == (not job.foils)
        own = facts(job.captions[0])
        for name, foil in job.foils.items():
            count[job.split, name] += 1
            said = facts(foil)
            if name == "order":
                assert said == own[::-1]
                continue
            changed = [(i, k) for i, (a, b) in enumerate(zip(own, said, strict=True)) for k in range(5) if a[k] != b[k]]
            assert len(changed) == 1, (job.captions[0], foil)
            assert changed[0][1] == place[name]
            assert not any(shape in ("disc", "ring") and motion == "turns" for *_, shape, motion in said)
    assert count == {(split, name): n for split, n in (("train", 4000), ("test", 250)) for name in moving_shapes.FOILS}


def test_twins_and_foils_agree_on_the_order(jobs):
    captions = {job.clip_id: job.captions[0] for job in jobs}
    pairs = [job for job in jobs if "order" in job.foils and job.group]
    assert pairs
    for job in pairs:
        assert job.foils["order"] == captions[job.group + ("b" if job.clip_id.endswith("a") else "a")]


def test_foils_stand_in_the_manifest(clips):
    assert all(len(clip.foils) == {"train": 6, "val": 0, "test": 3}[clip.split] for clip in clips)
