"""`config.data.share` in fine-tuning: fewer clips to train on, the same ones to validate and to report on."""

import types

import numpy as np
import pytest
from colour_clips import config_of

from twinreel.data.batches.records import Records
from twinreel.data.batches.share import records_of_share
from twinreel.finetune.commands.finetune import open_task
from twinreel.finetune.examples.context import TaskContext
from twinreel.finetune.examples.queries import QueryOptions, choose_queries


@pytest.mark.parametrize(
    ("name", "more"), [("demo_classify", ()), ("demo_attributes", ("task.target=labels", "task.min_count=1"))]
)
def test_the_share_is_of_the_train_clips_alone(name, more, colours, tmp_path):
    said, sets = [], []
    for share in (1.0, 0.5):
        config = config_of(colours, "task.heads=2", f"data.share={share}", *more, name=name)
        *_, task = open_task(config.to_dict(), init=colours / "pretrained", workdir=tmp_path, say=said.append)
        sets.append(task)
    taken = records_of_share(Records(colours / "data").rows("train"), share=0.5, seed=0)
    whole, half = (set(task.trained_on().indices.tolist()) for task in sets)
    assert half == whole & set(np.flatnonzero(taken).tolist()) and len(half) < len(whole)
    for one, other in zip(*(task.evaluated_on() for task in sets), strict=True):
        assert one.indices.tolist() == other.indices.tolist()
    assert any(str(line).startswith("config.data.share=0.5: 18 of 37 clips of split 'train'") for line in said)


def test_queries_of_the_share(colours):
    """Spans are added to the rows that are read."""

    class Rows(list):
        def column(self, name):
            return np.arange(1, len(self) + 1, dtype=np.uint64)

    span = {"start_s": 0.0, "end_s": 1.0, "label": None, "text": "it moves", "score": None}
    rows = Rows({"spans": [span, span | {"text": "it stops"}], "duration_s": 2.0, "file": str(n)} for n in range(10))
    feed = types.SimpleNamespace(share=0.5, train_split="train")
    context = types.SimpleNamespace(
        data=types.SimpleNamespace(feed=feed),
        config={"seed": 0},
        records=types.SimpleNamespace(splits={"train": 10, "test": 10}, rows=lambda split: rows),
        say=lambda text: None,
    )
    context.in_share = lambda split: TaskContext.in_share(context, split)
    found = choose_queries(context, options=QueryOptions(val_split="", holdout=0.0))
    assert len(found.train) == 10 and len(found.report) == 20
    assert (
        sorted(set(found.train.record.tolist())) == np.flatnonzero(records_of_share(rows, share=0.5, seed=0)).tolist()
    )
