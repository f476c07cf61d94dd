"""The place of a run in its data: arithmetic, and a run whose batch size changes."""

import numpy as np
import pytest
from engine_toy import ToyObjective, config

from twinreel.engine.keeping.checkpoint import read_meta
from twinreel.engine.loop.position import Position
from twinreel.engine.loop.train import train


@pytest.mark.parametrize(
    ("seen", "before", "now", "batch", "note"),
    [
        (48, 8, 8, 6, ""),
        (48, 8, 16, 3, "batches of 16 instead of 8 rows continue after the 48 examples seen so far"),
        (48, 8, 4, 12, "batches of 4 instead of 8 rows continue after the 48 examples seen so far"),
        (40, 8, 16, 3, "batches of 16 instead of 8 rows continue after the 40 examples seen so far; 8 are left out"),
    ],
)
def test_it_continues_after_the_examples_that_were_seen(seen, before, now, batch, note):
    found = Position.of({"examples": seen, "batch_size": before}, step=6, batch_size=now)
    assert (found.batch, found.offset) == (batch, batch - 6)
    assert found.note.startswith(note) and bool(found.note) == bool(note)
    assert found.to_meta(9) == {"examples": (batch + 3) * now, "batch_size": now}


def test_a_run_without_a_batch_size_in_its_config_counts_steps():
    found = Position.of({}, step=6, batch_size=None)
    assert (found.batch, found.to_meta(9)) == (6, {})
    assert Position.of({}, step=0, batch_size=8).to_meta(2) == {"examples": 16, "batch_size": 8}


def stream(size, *, read):
    """Batches of consecutive examples, of which each is noted."""

    def source(start):
        k = start
        while True:
            rows = np.arange(k * size, (k + 1) * size)
            read.append((k, rows))
            x = np.random.default_rng(rows[0]).normal(size=(size, 6)).astype(np.float32)
            yield {"x": x, "y": x.sum(axis=1), "clip_index": rows}
            k += 1

    return source


def go(workdir, *, size, steps, read, **options):
    cfg = config(train__steps=steps, train__checkpoint_every=100, data={"batch_size": size})
    train(objective=ToyObjective(), batches=stream(size, read=read), workdir=workdir, config=cfg, meta={}, **options)


def test_no_example_is_left_out_or_repeated_when_the_batch_size_changes(tmp_path):
    parts = [[], [], []]
    for read, size, steps in zip(parts, (8, 16, 8), (4, 6, 10), strict=True):
        go(tmp_path, size=size, steps=steps, read=read, overwrite_config=True)
    taken = [rows for read, steps in zip(parts, (4, 2, 4), strict=True) for _, rows in read[:steps]]
    np.testing.assert_array_equal(np.concatenate(taken), np.arange(4 * 8 + 2 * 16 + 4 * 8))
    assert read_meta(tmp_path)["examples"] == 96
    assert [read[0][0] for read in parts] == [0, 2, 8]  # number of the first batch, in batches of its own size
    go(tmp_path, size=8, steps=12, read=(read := []))  # and a plain resume after that
    assert read[0][0] == 12


def test_what_the_source_logs_is_that_of_its_own_batches(tmp_path):
    class Epochs:
        """An iterator with facts, as the input pipeline has."""

        def __init__(self, size, start):
            self.size, self.batches = size, stream(size, read=[])(start)

        def __iter__(self):
            return self

        def __next__(self):
            return next(self.batches)

        def facts(self, step):
            return {"epoch": step * self.size / 64}

    def run(size, steps):
        cfg = config(train__steps=steps, data={"batch_size": size})
        how = {"objective": ToyObjective(), "workdir": tmp_path, "config": cfg, "meta": {}, "overwrite_config": True}
        train(batches=lambda start: Epochs(size, start), **how)

    from files import lines

    run(8, 4)
    run(16, 6)
    assert [(line["step"], line["epoch"]) for line in lines(tmp_path, "train")] == [(2, 0.25), (4, 0.5), (6, 1.0)]
