"""Features of a frozen tower on disk: what is written is read, from memory or from files; no file is made twice."""

from types import SimpleNamespace

import numpy as np
import pytest

from twinreel.engine.sharding.mesh import make_mesh
from twinreel.finetune.examples.clips import LabelledClips
from twinreel.finetune.inputs import features

CLIPS = LabelledClips(split="train", labels=("a", "b"), label=np.tile(np.array([0, -1, 1], np.int32), 14))
TOKENS = np.random.default_rng(0).normal(size=(len(CLIPS.label), 3, 4)).astype(np.float32)
DAMAGED = 15


@pytest.fixture
def compute(tmp_path, monkeypatch):
    """A function batch size -> (features of 28 clips in files of 16, records that had to be computed)."""
    computed = []

    def tokens(records, *, model, context):
        for record in records:
            computed.append(record)
            yield None if record == DAMAGED else TOKENS[record]

    monkeypatch.setattr(features, "CHUNK", 16)
    monkeypatch.setattr(features, "_sources", lambda clips, **_: {})
    monkeypatch.setattr(features, "_tokens", tokens)

    def compute(batch_size):
        computed.clear()
        found = features.compute_features(
            CLIPS,
            context=SimpleNamespace(mesh=make_mesh(), say=print),
            data=SimpleNamespace(feed=SimpleNamespace(batch_size=batch_size)),
            batches=lambda clips, size: iter(clips.indices.tolist()),
            model=None,
            root=tmp_path,
        )
        return found, list(computed)

    return compute


@pytest.mark.parametrize("in_memory", [0, 1 << 30], ids=["from the files", "from memory"])
def test_what_is_written_is_read(compute, monkeypatch, in_memory):
    monkeypatch.setattr(features, "IN_MEMORY", in_memory)
    indices = CLIPS.indices
    places = np.array([27, 0, indices.tolist().index(DAMAGED), 16, 0])
    found, ok = compute(8)[0].read(places)
    assert found.dtype == np.float32 and ok.tolist() == [True, True, False, True, True]
    np.testing.assert_array_equal(found[ok], TOKENS[indices[places[ok]]])
    assert not found[~ok].any()


def test_nothing_is_computed_twice(compute):
    assert compute(8)[1] == CLIPS.indices.tolist()
    assert compute(16)[1] == []


@pytest.mark.parametrize("batch_size", [8, 24])
def test_an_interrupted_computation_continues_with_the_missing_files(compute, tmp_path, batch_size):
    """Also with another batch size, of which 16 clips are no multiple."""
    compute(8)
    [folder] = tmp_path.iterdir()
    (folder / features.ABOUT).unlink()
    (folder / "00001.array_record").unlink()
    found, computed = compute(batch_size)
    assert set(CLIPS.indices[16:]) <= set(computed)
    tokens, ok = found.read(np.arange(28))
    np.testing.assert_array_equal(tokens[ok], TOKENS[CLIPS.indices[ok]])


def test_a_process_with_a_stage_of_its_own_has_them_there(compute, monkeypatch):
    """Of a workdir behind a URL; of any other the first process writes for all."""
    monkeypatch.setattr(features, "url_of", lambda folder: f"s3://runs/{folder.name}", raising=False)
    monkeypatch.setattr(features, "jax", SimpleNamespace(process_index=lambda: 1))
    assert compute(8)[0].read(np.array([0]))[1].all()
