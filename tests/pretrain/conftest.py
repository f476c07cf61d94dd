"""A tiny prepared data set of moving shapes, and a config that trains on it in seconds."""

import pytest

TINY = [
    "shapes.train=24",
    "shapes.val=8",
    "shapes.test=8",
    "data.batch_size=8",
    "data.context_length=24",
    "model.video.width=16",
    "model.video.heads=2",
    "model.video.depth=1",
    "model.video.temporal_depth=1",
    "model.text.width=16",
    "model.text.heads=2",
    "model.text.depth=1",
    "model.embed_dim=8",
    "optimizer.warmup_steps=2",
    "train.steps=6",
    "train.log_every=1",
    "train.eval_every=3",
    "train.checkpoint_every=3",
]


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory):
    """Folder of records: 24 train, 8 val and 8 test clips."""
    from twinreel.data.prepare.prepare import prepare
    from twinreel.demo import moving_shapes

    folder = tmp_path_factory.mktemp("tiny")
    manifest = moving_shapes.write(folder / "videos", train=24, val=8, test=8, workers=1, progress=False)
    prepare(manifest, out=folder / "data", fps=6.0, short_side=52, workers=1)
    return folder / "data"


@pytest.fixture(scope="session")
def tiny_overrides(tiny_data):
    """Overrides of config `demo` for that folder."""
    return [*TINY, f"data.dir={tiny_data}"]
