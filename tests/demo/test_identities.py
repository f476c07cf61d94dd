"""Generated identities and sessions: who stands in which split, and whose taste is seen in the clips."""

import json
from collections import Counter

import numpy as np
import pytest

from twinreel.base.errors import UserError
from twinreel.data.manifest import Clip, read_manifest, write_manifest
from twinreel.demo import identities, moving_shapes, sessions


def test_identities_stand_in_one_split_each_and_their_clips_differ():
    jobs = identities.plan(seed=0, test=40, val=20, clips=16, fps=12)
    assert len(jobs) == 198 * 16 and len({job.clip_id for job in jobs}) == len(jobs)
    splits = {}
    for job in jobs:
        splits.setdefault(job.identity, set()).add(job.split)
    assert Counter(min(found) for found in splits.values()) == {"train": 138, "test": 40, "val": 20}
    assert all(len(found) == 1 for found in splits.values())
    own = [job for job in jobs if job.identity == jobs[0].identity]
    assert {job.event.size for job in own} == {"small", "large"} and len({job.event.motion for job in own}) > 3
    assert len({job.seed for job in jobs}) == len(jobs)
    assert jobs == identities.plan(seed=0, test=40, val=20, clips=16, fps=12)


def test_identities_are_written(tmp_path, monkeypatch):
    plan = identities.plan
    monkeypatch.setattr(identities, "plan", lambda **given: plan(**given)[:2])
    given = {"test": 2, "val": 2, "clips": 2, "size": 32, "workers": 1, "progress": False}
    clips = list(read_manifest(identities.write(tmp_path / "out", **given)))
    assert [clip.split for clip in clips] == ["test", "test"] and clips[0].labels == clips[1].labels
    assert all((tmp_path / "out" / clip.path).is_file() for clip in clips)
    with pytest.raises(UserError, match="two must be left to train"):
        identities.write(tmp_path / "more", test=190, val=10)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """A manifest of moving shapes, without files."""
    jobs = moving_shapes.plan(seed=0, train=200, val=2, test=60, fps=12)
    path = tmp_path_factory.mktemp("shapes") / "manifest.jsonl"
    write_manifest(path, clips=(moving_shapes._clip(job, fps=12) for job in jobs))
    return path


def test_sessions_show_a_taste_and_new_clips_are_not_in_those_of_training(manifest, tmp_path):
    given = {"sessions": 60, "val": 10, "test": 20, "shortest": 4, "longest": 6}
    path = sessions.write(tmp_path / "s.jsonl", manifest=manifest, **given)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert Counter(row["split"] for row in rows) == {"train": 30, "val": 10, "test": 20}
    clips = {clip.clip_id: clip for clip in read_manifest(manifest)}
    shares = []
    for row in rows:
        assert 4 <= len(row["clips"]) == len(row["times"]) <= 6 and row["times"] == sorted(row["times"])
        found = Counter(
            pair for clip in row["clips"] for pair in {(e["colour"], e["motion"]) for e in clips[clip].meta["events"]}
        )
        shares.append(max(found.values()) / len(row["clips"]))
        if row["split"] == "train":
            assert not any(clips[clip].split == "test" for clip in row["clips"])
    assert np.mean(shares) > 0.6  # of any clip: 1/88 for each of its two or three events
    assert any(clips[clip].split == "test" for row in rows for clip in row["clips"])


def test_what_makes_no_sessions(manifest, tmp_path):
    for given, wanted in (
        ({"sessions": 10, "val": 5, "test": 5}, "some must be left to train on"),
        ({"loyalty": 1.5}, "are shares from 0 to 1"),
    ):
        with pytest.raises(UserError, match=wanted):
            sessions.write(tmp_path / "s.jsonl", manifest=manifest, **given)
    write_manifest(tmp_path / "m.jsonl", clips=[Clip(clip_id="a", path="a.mp4", split="train")])
    with pytest.raises(UserError, match="has no clips with events"):
        sessions.write(tmp_path / "s.jsonl", manifest=tmp_path / "m.jsonl")
