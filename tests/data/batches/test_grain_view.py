"""The `grain.MapDataset` of a run: the rows of our own batches, one by one, in any order."""

import itertools
import pickle
import sys

import numpy as np
import pytest

from twinreel.base.errors import UserError
from twinreel.data.batches.pipeline import make_tokenizer, train_batches
from twinreel.data.options import DataOptions

pytest.importorskip("grain", reason="needs Grain: pip install 'twinreel[grain]'")


@pytest.fixture(scope="module")
def options(tiny_data):
    """Makes a DataOptions with all that is random about a row."""

    def make(**changes) -> DataOptions:
        given = {
            "dir": str(tiny_data),
            "batch_size": 8,
            "num_frames": 4,
            "train_video": "random_crop(32)|flip_lr",
            "eval_video": "center_crop(32)",
            "context_length": 24,
            "vocab_size": 300,
            "num_threads": 2,
            "unique_captions": True,
        }
        return DataOptions.of(given | changes)

    return make


@pytest.fixture(scope="module")
def tokenizer(options):
    return make_tokenizer(options())


def ours(data, count, **given):
    batches = train_batches(data, start_step=0, **given)
    found = list(itertools.islice(batches, count))
    batches.close()
    return found


def assert_equal(got, want):
    assert got.keys() == want.keys()
    for name, column in want.items():
        assert got[name].dtype == column.dtype, name
        np.testing.assert_array_equal(got[name], column, err_msg=name)


@pytest.mark.parametrize(
    ("changes", "labels"),
    [
        ({}, ["circle"]),
        (
            {"order": "blocks", "block_shards": 1, "group_size": 2, "captions_per_clip": 2, "unique_captions": False},
            None,
        ),
    ],
)
def test_batches_are_those_of_the_run(options, tokenizer, changes, labels):
    from twinreel.data.batches.grain_view import map_dataset

    data = options(**changes)
    given = {"tokenizer": tokenizer, "seed": 3, "label_names": labels}
    want = ours(data, 5, **given)  # an epoch and more: 24 clips
    rows = map_dataset(data, **given)
    assert len(rows) == sys.maxsize
    for k, batch in enumerate(itertools.islice(rows.batch(8).to_iter_dataset(), 5)):
        assert_equal(batch, want[k])
    for n in (33, 2, 17):  # in any order
        assert_equal(rows[n], {name: column[n % 8] for name, column in want[n // 8].items()})
    assert_equal(rows[16:40].batch(8)[1], want[3])
    for p in range(2):
        share = map_dataset(data, process_index=p, process_count=2, **given)
        assert_equal(share.batch(4)[2], {name: column[4 * p : 4 * p + 4] for name, column in want[2].items()})
    state = (iterator := iter(rows.batch(8).to_iter_dataset())).get_state()
    next(iterator), next(iterator)
    state = iterator.get_state()
    again = iter(pickle.loads(pickle.dumps(rows)).batch(8).to_iter_dataset())  # as in a worker of `mp_prefetch`
    again.set_state(state)
    assert_equal(next(again), want[2])


def test_ends_and_numbers_that_do_not_fit(options, tokenizer):
    from twinreel.data.batches.grain_view import map_dataset

    given = {"tokenizer": tokenizer, "seed": 0}
    rows = map_dataset(options(), steps=3, **given)
    assert len(rows) == 24 and len(list(rows.batch(8))) == 3
    assert_equal(rows.repeat(2)[25], rows[1])
    for changes in ({"steps": 0}, {"process_count": 3}, {"process_index": 1}):
        with pytest.raises(UserError, match=next(iter(changes))):
            map_dataset(options(), **changes, **given)
    with pytest.raises(UserError, match=r"does not exist"):
        map_dataset(options(dir="/none"), **given)[0]
