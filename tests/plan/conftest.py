"""A small config whose step compiles in seconds."""

import pytest

from twinreel.base.config import load_config

SMALL = [
    "data.batch_size=16",
    "data.context_length=12",
    "data.vocab_size=100",
    "data.foils_per_clip=0",
    "model.video.dtype=float32",
    "model.text.dtype=float32",
    "loss.hard_negative=0.0",
    "optimizer.name=adamw",
    "model.video.width=32",
    "model.video.heads=2",
    "model.video.depth=2",
    "model.video.stem=0",
    "model.video.gradients=0",
    "model.video.pool=mean",
    "model.video.temporal_depth=1",
    "model.text.width=16",
    "model.text.heads=2",
    "model.text.depth=3",
    "model.embed_dim=8",
]


@pytest.fixture(scope="session")
def overrides():
    """The changes that make config `demo` small and its towers plain."""
    return SMALL


@pytest.fixture(scope="session")
def small():
    """`small(*changes)` loads it."""
    return lambda *changes: load_config("demo", overrides=[*SMALL, *changes])
