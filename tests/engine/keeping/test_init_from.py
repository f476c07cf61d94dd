"""A new run that begins with parts of another checkpoint."""

import functools
from pathlib import Path

import numpy as np
import pytest
from dual_towers import build, build_classifier
from flax import nnx

from twinreel.base.errors import UserError
from twinreel.engine.keeping.init_from import InitFrom
from twinreel.engine.keeping.transfer import shapes

TOWER = {"image_size": 8, "patch": 4, "width": 8, "depth": 1, "heads": 2, "temporal_depth": 1}


@functools.cache
def pretrained(path):
    """Parameters of a dual tower, as a caller reads them whose checkpoints are no run's."""
    assert path == Path("bundle")
    model = build(video=TOWER, text={"width": 8, "depth": 1, "heads": 2}, embed_dim=4, num_frames=4, context_length=6,
                  vocab_size=20, rngs=nnx.Rngs(1))  # fmt: skip
    return {path: np.asarray(value) for path, value in shapes(model).items()}


def test_fine_tuning_fills_its_model_in_the_same_way_and_with_the_same_table(capsys):
    start = InitFrom(checkpoint=Path("bundle"), parts=("video/.*",), read=pretrained, flag="--from", parts_flag="")
    model = build_classifier(video=TOWER, num_frames=6, num_classes=3)
    before = {path: np.asarray(value) for path, value in shapes(model).items()}
    assert start.table(nnx.eval_shape(lambda: model)).row_count == 12
    start.fill(model)
    shown = capsys.readouterr().err
    assert all(word in shown for word in ("loaded", "resized", "new", "unused", "4 x 8 -> 6 x 8"))
    wanted = pretrained(Path("bundle"))
    np.testing.assert_array_equal(model.video.embed.out.kernel[...], wanted["video/embed/out/kernel"])
    np.testing.assert_array_equal(model.head.scores.kernel[...], before["head/scores/kernel"])
    wide = nnx.eval_shape(lambda: build_classifier(video=TOWER | {"width": 16}, num_frames=4, num_classes=3))
    with pytest.raises(UserError, match=r"or give --from the checkpoint of such a model$"):
        start.plan(wide)


def test_an_invalid_regex_is_named():
    with pytest.raises(UserError, match=r"--init_parts: '\(' is not a regular expression"):
        InitFrom(checkpoint="x", parts=("(",))
