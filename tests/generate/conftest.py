"""Clips of colours, a tiny generator of them, and two towers that look at its clips."""

import csv
from pathlib import Path

import pytest
from colour_clips import COLOURS, write_clip
from flax import nnx

from twinreel.base.config import load_config
from twinreel.data.options import InputSpec
from twinreel.data.prepare.prepare import prepare
from twinreel.data.text.tokenizer import tokenizer_from_meta
from twinreel.encode.embed.encoder import Encoder
from twinreel.engine.keeping.checkpoint import read_meta
from twinreel.generate.train.stages import train_generator
from twinreel.zoo.build import build
from twinreel.zoo.spec import ModelOptions

CONFIG = """
import ml_collections

def get_config(source: str = ""):
    c = ml_collections.ConfigDict()
    c.seed = 3
    c.data = dict(dir="", batch_size=8, num_frames=4, train_video="random_crop(16)", eval_video="center_crop(16)",
                  context_length=8, vocab_size=300)
    c.autoencoder = dict(channels=2, stem=4, widths=(4,), blocks=1)
    c.condition = dict(kind="text", width=8, depth=1, heads=2)
    if source:
        c.condition = dict(kind="tower", source=source, clips=0.5)
        c.data = dict(dir="", batch_size=8, train_video="random_crop(16)")
    c.flow = dict(width=8, depth=1, heads=2, patch=(2, 4, 4))
    c.loss = dict()
    c.optimizer = dict(name="adamw", lr=1e-2, warmup_steps=1, weight_decay=0.0, ema_decay=0.5)
    c.mesh = dict(replica=-1)
    c.train = dict(steps=4, log_every=1, eval_every=2, checkpoint_every=2)
    c.first_stage = ("data.num_frames=1", "train.steps=2")
    return c
"""


@pytest.fixture(scope="session")
def colour_data(tmp_path_factory) -> Path:
    """A folder with records of colours `data`, and the config `tiny.py` of a generator."""
    root = tmp_path_factory.mktemp("generate")
    (root / "tiny.py").write_text(CONFIG)
    with (root / "clips.csv").open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["path", "caption", "split"])
        for split, count in {"train": 4, "val": 1, "test": 2}.items():
            for i in range(count):
                for label, colour in COLOURS.items():
                    name = f"{split}_{label}_{i}.mp4"
                    write_clip(root / name, colour=colour, seed=i)
                    lines.writerow([name, f"a {label} clip", split])
    prepare(root / "clips.csv", out=root / "data", fps=0, short_side=20, audio=False, workers=1)
    return root


@pytest.fixture(scope="session")
def painter_run(colour_data) -> Path:
    """The workdir of a finished run on it."""
    config = load_config(str(colour_data / "tiny.py"), overrides=[f"data.dir={colour_data / 'data'}"])
    result, place = train_generator(config, workdir=colour_data / "run")
    assert result.reason == "done" and place == colour_data / "run"
    return place


@pytest.fixture(scope="session")
def tower(painter_run, tmp_path_factory) -> Path:
    """A bundle of a dual tower with initial parameters, and one with others."""
    tokenizer = read_meta(painter_run)["generator"]["tokenizer"]
    given = InputSpec(num_frames=4, eval_video="center_crop(16)", context_length=8)
    sizes = {"image_size": 16, "patch": 8, "width": 8, "depth": 1, "heads": 2, "temporal_depth": 0}
    options = ModelOptions(embed_dim=6, video=sizes, text={"width": 8, "depth": 1, "heads": 2})
    vocab_size = tokenizer_from_meta(dict(tokenizer)).vocab_size
    spec = options.spec(input=given, vocab_size=vocab_size).replace(tokenizer=tokenizer)
    folder = tmp_path_factory.mktemp("tower")
    for seed in (0, 1):
        Encoder(spec=spec, model=build(spec, rngs=nnx.Rngs(seed))).save(folder / f"seed{seed}")
    return folder
