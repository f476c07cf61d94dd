"""Clips whose class is their colour, a small pretrained model of them, and short runs of fine-tuning."""

from pathlib import Path

import av
import numpy as np

from twinreel.base.config import load_config
from twinreel.data.prepare.prepare import prepare
from twinreel.pretrain.pretrain import pretrain

COLOURS = {"blue": (20, 30, 220), "green": (30, 200, 40), "red": (220, 30, 20)}

SHORT = [
    "--config.data.batch_size=8",
    "--config.train.steps=40",
    "--config.train.eval_every=10",
    "--config.train.checkpoint_every=20",
    "--config.optimizer.lr=0.01",
    "--config.optimizer.warmup_steps=5",
]


def write_clip(path: Path, *, colour: tuple[int, int, int], seed: int) -> None:
    """Write six noisy frames of one colour as H.264 in MP4."""
    rng = np.random.default_rng(seed)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=4)
        stream.width, stream.height, stream.pix_fmt = 24, 20, "yuv420p"
        for _ in range(6):
            picture = np.clip(np.array(colour) + rng.normal(0, 40, (20, 24, 1)) + rng.normal(0, 15, 3), 0, 255)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture.astype(np.uint8), format="rgb24")))
        file.mux(stream.encode())


CONFIG = """
import ml_collections

def get_config(mixture: str = ""):
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.data = dict(dir="", batch_size=8, num_frames=4, train_video="random_crop(16)",
                  eval_video="center_crop(16)", context_length=8, vocab_size=300)
    if mixture:
        c.data.mixture = {"only": {"dir": mixture}}
    c.model = dict(
        embed_dim=4,
        video=dict(image_size=16, patch=8, width=16, depth=1, heads=2, temporal_depth=0),
        text=dict(width=8, depth=1, heads=2),
    )
    c.loss = dict(name="infonce", same_text="negative")
    c.optimizer = dict(name="adamw", lr=1e-5, warmup_steps=0, weight_decay=0.0)
    c.mesh = dict(replica=-1)
    c.train = dict(steps=1, checkpoint_every=1)
    return c
"""
"""Pretraining of one small step, so that the towers are random ones."""


def prepare_and_pretrain(root: Path) -> Path:
    """Write a prepared data set `data`, with one clip of a class that is too rare, and a checkpoint `pretrained`."""
    lines = ["path,caption,split,label"]
    for split, count in {"train": 12, "val": 4, "test": 6}.items():
        for i in range(count):
            for label, colour in COLOURS.items():
                name = f"{split}_{label}_{i}.mp4"
                write_clip(root / name, colour=colour, seed=len(lines))
                lines.append(f"{name},a {label} clip,{split},{label}")
    write_clip(root / "rare.mp4", colour=(128, 128, 128), seed=0)
    lines.append("rare.mp4,one of a kind,train,rare")
    (root / "clips.csv").write_text("\n".join(lines) + "\n")
    prepare(root / "clips.csv", out=root / "data", fps=0, short_side=20, audio=False, workers=1)
    (root / "tiny.py").write_text(CONFIG)
    overrides = [f"data.dir={root / 'data'}"]
    pretrain(load_config(str(root / "tiny.py"), overrides=overrides), workdir=root / "pretrained")
    return root


def flags(folder: Path, workdir: str | Path) -> list[str]:
    """The flags of a short run."""
    names = {"init": folder / "pretrained", "data": folder / "data", "workdir": folder / workdir}
    given = [text for name, value in names.items() for text in (f"--{name}", str(value))]
    return ["--config", "demo_classify", *given, "--config.task.heads=2", *SHORT]


def config_of(folder: Path, *overrides: str, name: str = "demo_classify"):
    """The config of a short run."""
    return load_config(name, overrides=[f"data.dir={folder / 'data'}", *SHORT, *overrides])
