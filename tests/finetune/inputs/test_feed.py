"""The batches of examples: each row's example is that of its clip, in every order of the records."""

import itertools

import numpy as np
import pytest
from colour_clips import config_of

from twinreel.base.errors import UserError
from twinreel.finetune.commands.finetune import open_task


@pytest.mark.parametrize("order", ["records", "blocks"])
def test_examples_belong_to_the_clips_of_their_rows(colours, order):
    """Over blocks as of a data set behind a URL, which has them by default."""
    config = config_of(colours, f"data.order={order}", "task.heads=2")
    task = open_task(config.to_dict(), init=colours / "pretrained", workdir=colours / "none", say=lambda what: None)[3]
    record = task.splits.train.indices
    for batch in itertools.islice(task.feed.examples(task.splits.train, record=record, start_step=0), 3):
        np.testing.assert_array_equal(record[batch["example"]], batch["clip_index"])
    if order == "blocks":
        with pytest.raises(UserError, match=r"several examples .*; set config\.data\.order='records'"):
            next(task.feed.examples(task.splits.train, record=np.repeat(record, 2), start_step=0))
