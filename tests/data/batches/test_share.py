"""A share of the training records: by source file, nested, a function of the seed."""

import csv

import numpy as np
import pytest
from media_files import grey, write_media

from twinreel.base.errors import UserError
from twinreel.data.batches.pipeline import make_tokenizer, train_batches
from twinreel.data.batches.records import Records
from twinreel.data.batches.share import records_of_share
from twinreel.data.options import DataOptions


class Rows:
    """A table of which the files alone are known."""

    def __init__(self, file):
        self._file = np.asarray(file, np.uint64)

    def column(self, name):
        assert name == "file"
        return self._file


FILES = np.random.default_rng(0).integers(1, 2**63, 200).astype(np.uint64).repeat(3)


def test_files_stay_together_and_shares_are_nested_and_exact():
    before = np.zeros(len(FILES), bool)
    for share in (0.1, 0.3, 0.5, 1.0):
        taken = records_of_share(Rows(FILES), share=share, seed=0)
        assert taken.sum() == round(200 * share) * 3
        assert (taken.reshape(-1, 3).sum(axis=1) % 3 == 0).all() and taken[before].all()
        before = taken


def test_the_seed_and_not_the_order_of_the_records_decides():
    first = records_of_share(Rows(FILES), share=0.5, seed=0)
    assert set(FILES[::-1][records_of_share(Rows(FILES[::-1]), share=0.5, seed=0)]) == set(FILES[first])
    other = records_of_share(Rows(FILES), share=0.5, seed=1)
    assert 0.3 < (first & other).sum() / first.sum() < 0.7  # as of two independent halves


def test_the_order_is_that_of_splitmix64():
    """Against a loop over Python's integers."""

    def mixed(key, seed):
        key ^= (seed + 1) * 0x9E3779B97F4A7C15 % 2**64
        key = (key ^ (key >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        key = (key ^ (key >> 27)) * 0x94D049BB133111EB % 2**64
        return key ^ (key >> 31)

    files = sorted(set(FILES.tolist()), key=lambda key: mixed(key, 7))
    taken = records_of_share(Rows(FILES), share=0.1, seed=7)
    assert set(FILES[taken].tolist()) == set(files[:20])


def test_records_without_a_file_count_by_themselves_and_one_is_always_left():
    assert records_of_share(Rows(np.zeros(10)), share=0.3, seed=0).sum() == 3
    assert records_of_share(Rows(np.zeros(10)), share=0.01, seed=0).sum() == 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from twinreel.data.prepare.prepare import prepare

    root = tmp_path_factory.mktemp("share")
    with (root / "clips.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "caption", "split"])
        for number in range(8):
            write_media(root / f"{number}.mp4", grey(100, 10 * number))
            rows.writerow([f"{number}.mp4", f"clip {number}", "train"])
    prepare(root / "clips.csv", out=root / "data", fps=0, short_side=16, audio=False, workers=1)
    return root / "data"


def options(folder, **fields) -> DataOptions:
    given = {"dir": str(folder), "batch_size": 2, "num_frames": 1, "eval_video": "resize_short(16)|center_crop(16)"}
    return DataOptions.of(given | {"context_length": 8, "vocab_size": 300} | fields)


def test_batches_hold_records_of_the_share_alone(folder):
    data = options(folder, share=0.5)
    tokenizer = make_tokenizer(data)
    batches = train_batches(data, tokenizer=tokenizer, seed=3, start_step=0)
    seen = [next(batches)["clip_index"] for _ in range(4)]
    taken = records_of_share(Records(folder).rows("train"), share=0.5, seed=3)
    assert sorted(np.concatenate(seen).tolist()) == sorted(2 * np.flatnonzero(taken).tolist())
    only = np.flatnonzero(~taken).tolist() + np.flatnonzero(taken)[:2].tolist()
    both = train_batches(data, tokenizer=tokenizer, seed=3, start_step=0, only=np.array(sorted(only)))
    assert set(next(both)["clip_index"].tolist()) == set(np.flatnonzero(taken)[:2].tolist())


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1])
def test_a_share_out_of_range(share, folder):
    with pytest.raises(UserError, match=r"config\.data\.share must be above 0 and at most 1"):
        options(folder, share=share)


def test_a_share_of_a_mixture_is_refused(folder):
    mixture = {"a": {"dir": str(folder)}, "b": {"dir": str(folder)}}
    data = options(folder, share=0.5, mixture=mixture)
    with pytest.raises(UserError, match=r"config\.data\.share=0\.5 takes a part of one prepared folder"):
        train_batches(data, tokenizer=make_tokenizer(options(folder)), seed=0, start_step=0)
