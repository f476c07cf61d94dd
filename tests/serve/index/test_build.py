"""Indexing a folder: what is embedded, and what a second run does."""

import itertools
import os
import shutil

import numpy as np
import pytest
from brightness_model import brightness_model, renamed
from index_state import ask, same, state
from serve_films import LEVELS, SETTINGS

from twinreel.base.errors import UserError
from twinreel.data.manifest import Clip, write_manifest
from twinreel.data.media.decode import DecodeOptions, decode_clip
from twinreel.serve.index.database import Settings
from twinreel.serve.index.store import Store
from twinreel.serve.search.collection import Collection


def test_moments_are_embedded_as_the_files_alone_are(library, films):
    found = state(library)
    short = [key for key in found if "short" in key[0]]
    assert sorted(short) == sorted((str(films / "short" / f"grey{level}.mp4"), 0.0, 2.0) for level in LEVELS)
    ramp = str(films / "long" / "ramp.mp4")
    times = sorted(key[1:] for key in found if key[0] == ramp)
    assert times == [(2.0 * i, 2.0 * i + 4) for i in range(23)]
    assert {key[1:] for key in found if "picture" in key[0]} == {(0.0, 0.04)}
    opened = brightness_model()
    for start in (0.0, 18.0, 44.0):
        clip = decode_clip(ramp, options=DecodeOptions(fps=4, short_side=32), start_s=start, end_s=start + 4)
        alone = opened.encoder.encode_video_arrays(opened.frames(clip)[None], batch_size=1)[0]
        np.testing.assert_allclose(found[ramp, start, start + 4]["video"], alone, atol=1e-6)
    said = {key[1:]: vectors["transcript"] for key, vectors in found.items() if "transcript" in vectors}
    assert sorted(said) == [(18.0, 22.0), (20.0, 24.0), (38.0, 42.0), (40.0, 44.0), (42.0, 46.0)]
    np.testing.assert_allclose(said[40.0, 44.0], opened.encoder.encode_text(["grey 200"])[0], atol=1e-6)
    assert {key[0] for key, vectors in found.items() if "audio" in vectors} == {key[0] for key in short}


def test_facts_and_thumbnails(library, films):
    columns = "duration_s, height, width, fps, has_audio, size"
    (row,) = ask(library, f"SELECT {columns} FROM files WHERE path LIKE '%ramp%'")
    assert row == (48.0, 32, 48, 4.0, 0, (films / "long" / "ramp.mp4").stat().st_size)
    pictures = [row[0] for row in ask(library, "SELECT webp FROM thumbnails")]
    assert len(pictures) == len(ask(library, "SELECT id FROM moments")) == 30
    assert all(one[8:12] == b"WEBP" for one in pictures)


def test_a_second_run_decodes_nothing(copied, update):
    first = update(copied)
    assert (first["files"], first["moments"], first["added"], first["failed"]) == (8, 30, 8, [])
    again = brightness_model()
    second = update(copied, opened=again)
    assert again.encoder.clips == 0 and second["unchanged"] == 8 and second["added"] == second["removed"] == 0
    assert update()["unchanged"] == 8  # the sources of earlier runs


def test_new_changed_moved_copied_and_deleted_files(copied, update, tmp_path, media):
    update(copied)
    short = copied / "short"
    media.write(short / "new.mp4", media.grey(*[20] * 8), fps=4)
    media.write(short / "grey30.mp4", media.grey(*[50] * 12), fps=4)
    (short / "grey70.mp4").rename(copied / "moved.mp4")
    shutil.copy(short / "grey110.mp4", copied / "twin.mp4")
    (short / "grey150.mp4").unlink()
    os.utime(short / "grey190.mp4", (1, 1))
    opened = brightness_model()
    found = update(copied, opened=opened)
    counts = {key: found[key] for key in ("added", "changed", "moved", "removed", "unchanged")}
    assert counts == {"added": 2, "changed": 1, "moved": 1, "removed": 1, "unchanged": 5}
    assert opened.encoder.clips == 2  # the new and the changed one; moved, copied and touched files are not decoded
    fresh = tmp_path / "fresh"
    update(copied, folder=fresh)
    same(state(tmp_path / "index"), state(fresh))


def test_other_subtitles_are_another_transcript(copied, update, tmp_path):
    update(copied)
    (copied / "long" / "ramp.en.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\ngrey 90\n")
    assert update(copied)["changed"] == 1
    said = {key[1:] for key, vectors in state(tmp_path / "index").items() if "transcript" in vectors}
    assert said == {(0.0, 4.0)}


def test_files_that_cannot_be_decoded_are_listed_once(copied, update, tmp_path, media):
    (copied / "broken.mp4").write_bytes(b"no film at all" * 99)
    (copied / "empty.mkv").touch()
    (copied / "gone.mp4").symlink_to(copied / "nothing.mp4")
    found = update(copied, max_bad_fraction=0.5)
    reasons = {one["path"].rpartition("/")[2]: one["reason"] for one in found["failed"]}
    want = {"broken.mp4": "cannot be opened", "empty.mkv": "file is empty", "gone.mp4": "file does not exist"}
    assert reasons == want and found["files"] == 8 and found["within_limit"]
    assert not update(copied, max_bad_fraction=0.1)["within_limit"]
    media.write(copied / "empty.mkv", media.grey(*[99] * 8), fps=4)  # mended: it is tried again by itself
    (copied / "gone.mp4").unlink()
    found = update(copied)
    assert [one["path"] for one in found["failed"]] == [str(copied / "broken.mp4")] and found["added"] == 1
    opened = brightness_model()
    assert len(update(copied, opened=opened)["failed"]) == 1 and opened.encoder.clips == 0
    assert len(update(copied, retry=True)["failed"]) == 1


def test_a_film_that_breaks_off_keeps_what_was_decoded(tmp_path, update, media):
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(4 * 150)]
    path = media.write(tmp_path / "films" / "a.mkv", noise, fps=4)
    data = bytearray(path.read_bytes())
    data[int(0.6 * len(data)) :] = bytes(len(data) - int(0.6 * len(data)))
    path.write_bytes(bytes(data))
    found = update(tmp_path / "films", max_bad_fraction=1.0)
    assert found["files"] == 1 and 20 < found["moments"] < 50  # of 74


def test_a_length_that_the_container_does_not_know(tmp_path, update, media):
    """A raw stream states none, and is longer than a chunk."""
    path = tmp_path / "films" / "a.h264"
    media.write(path, media.grey(*[i % 250 for i in range(4 * 70)]), fps=4, options={"crf": "12", "g": "8"})
    found = update(tmp_path / "films")
    times = sorted(key[1:] for key in state(tmp_path / "index"))
    assert found["moments"] == len(times) > 2
    assert all(b[0] - a[0] == pytest.approx(2) for a, b in itertools.pairwise(times))


def test_two_models_stand_side_by_side(copied, update, tmp_path):
    update(copied)
    before = state(tmp_path / "index")
    update(copied, opened=brightness_model(name="second", gap=0.9, sound=False))
    same(state(tmp_path / "index"), before)
    second = state(tmp_path / "index", model="second")
    assert second.keys() == before.keys() and not any("audio" in vectors for vectors in second.values())
    assert ask(tmp_path / "index", "SELECT COUNT(*) FROM moments") == [(30,)]
    (copied / "picture.png").unlink()
    update(copied, opened=brightness_model(name="second", gap=0.9, sound=False))
    assert len(state(tmp_path / "index")) == len(state(tmp_path / "index", model="second")) == 29
    with Store(tmp_path / "index", settings=SETTINGS) as store:
        store.drop_model("second")
    same(state(tmp_path / "index"), {key: value for key, value in before.items() if "picture" not in key[0]})
    assert not list((tmp_path / "index" / "vectors").glob("2-*"))
    left = tmp_path / "index" / "vectors" / "2-video-1.faiss"  # of a removal that was killed
    left.touch()
    update(copied, opened=brightness_model(name="third", gap=0.8, sound=False))
    assert not left.exists() and list(left.parent.glob("2-video-*.f32"))


def test_another_model_of_the_same_name(films, update):
    update(films / "short")
    with pytest.raises(UserError, match=r"another model under the name 'brightness'.*--name.*--drop_model brightness"):
        update(films / "short", opened=brightness_model(gap=0.5))
    assert update(films / "short", opened=renamed(brightness_model(), "alias"))["model"] == "brightness"


def test_other_settings_and_bad_sources(films, update, tmp_path):
    update(films / "short")
    with pytest.raises(UserError, match=r"other settings \(--window 4 -> 5\)"):
        update(films / "short", settings=Settings(window_s=5.0, overlap_s=2.0, fps=4.0))
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UserError, match="has no video and no picture"):
        update(tmp_path / "nothing")
    with pytest.raises(UserError, match="does not exist"):
        update(tmp_path / "absent")
    with pytest.raises(UserError, match="is a single file; give the folder"):
        update(films / "short" / "grey30.mp4")
    with pytest.raises(UserError, match=r"is new: give the folder"):
        update(folder=tmp_path / "other")
    with pytest.raises(UserError, match="is no index and not empty"):
        update(films, folder=films)
    with Store(tmp_path / "index", settings=SETTINGS), pytest.raises(UserError, match="another process is writing"):
        update(films / "short")
    assert update()["files"] == len(LEVELS)  # nothing of this has harmed it


def test_clips_of_a_manifest(films, update, tmp_path):
    clips = [
        Clip(clip_id="a", path="long/ramp.mp4", start_s=10.0, end_s=13.0, labels=("dark",), captions=("it is dark",)),
        Clip(clip_id="b", path="long/ramp.mp4", start_s=30.0, end_s=39.0, transcript="grey 150"),
        Clip(clip_id="c", path="absent.mp4"),
        Clip(clip_id="d", path="shards/0.tar::a.mp4"),
    ]
    manifest = films.parent / f"{films.name}.jsonl"
    moved = [Clip(**{**clip.__dict__, "path": f"{films.name}/{clip.path}"}) for clip in clips]
    write_manifest(manifest, clips=moved)
    found = update(manifest, max_bad_fraction=1.0)
    assert [one["reason"].split(":")[0] for one in found["failed"]] == ["file does not exist", "no local file"]
    times = {key[1:]: set(vectors) for key, vectors in state(tmp_path / "index").items()}
    both = {"video", "transcript"}
    want = {(10.0, 13.0): {"video"}, (30.0, 34.0): both, (32.0, 36.0): both, (34.0, 38.0): both, (36.0, 39.0): both}
    assert times == want
    with Collection(tmp_path / "index") as collection:
        (file,) = (one for one in collection.files([1, 2]).values() if one.start_s == 10.0)
    assert file.labels == ("dark",) and file.captions == ("it is dark",)


def test_vectors_are_written_anew_when_many_are_gone(copied, update, tmp_path):
    update(copied)
    shutil.rmtree(copied / "long")
    before = state(tmp_path / "index")
    assert update(copied)["removed"] == 1
    (file,) = (tmp_path / "index" / "vectors").glob("1-video-*.f32")
    assert file.name == "1-video-1.f32" and file.stat().st_size == 7 * 16 * 4
    same(state(tmp_path / "index"), {key: value for key, value in before.items() if "ramp" not in key[0]})
    update(copied)
    assert len(state(tmp_path / "index")) == 7
