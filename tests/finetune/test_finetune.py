"""Fine-tuning from files to the report, on clips whose class is their colour."""

import dataclasses
import inspect
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import av
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from dual_towers import build
from flax import nnx

from twinreel.base.config import load_config
from twinreel.base.errors import UserError
from twinreel.data.manifest import read_manifest, write_manifest
from twinreel.data.prepare.prepare import prepare
from twinreel.data.text.pieces import SentencePieceTokenizer
from twinreel.engine.keeping.checkpoint import read_meta, read_params
from twinreel.engine.loop.train import train
from twinreel.finetune import classify
from twinreel.finetune.finetune import finetune, main, starting_point
from twinreel.finetune.labels import Subset

COLOURS = {"blue": (20, 30, 220), "green": (30, 200, 40), "red": (220, 30, 20)}

CHECKPOINT = {
    "seed": 0,
    "data": {
        "batch_size": 8,
        "num_frames": 4,
        "eval_split": "",
        "train_video": "random_crop(16)",
        "eval_video": "center_crop(16)",
        "context_length": 8,
    },
    "model": {
        "embed_dim": 4,
        "video": {"image_size": 16, "patch": 8, "width": 16, "depth": 1, "heads": 2, "temporal_depth": 0},
        "text": {"width": 4, "depth": 0, "heads": 1},
    },
    "optimizer": {"lr": 1e-3},
    "mesh": {},
    "train": {"steps": 1},
}

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


class ScaleOnly:
    """Makes a dual tower with random weights and trains its temperature alone: a checkpoint of pretraining, quickly."""

    trainable = ("^log_scale$",)

    def init(self, rngs):
        sizes = {"num_frames": 4, "context_length": 8, "vocab_size": 300}
        return build(**CHECKPOINT["model"], **sizes, rngs=rngs)

    def loss(self, model, batch, *, rngs):
        del batch, rngs
        return model.log_scale[...] * jnp.float32(0), {}


def write_checkpoint(workdir: Path, *, data: Path) -> None:
    """Write a checkpoint as `twinreel pretrain` does."""
    config = ml_collections.ConfigDict(CHECKPOINT)
    config.data.dir = str(data)
    tokenizer = SentencePieceTokenizer.train(["a red clip", "a blue clip", "a green clip"], vocab_size=300)
    prepared = json.loads((data / "prepare.json").read_text())["options"]
    train(
        objective=ScaleOnly(),
        batches=lambda _: itertools.repeat({"valid": np.ones(8, bool)}),
        workdir=workdir,
        config=config,
        meta={"objective": "contrastive", "tokenizer": tokenizer.to_meta(), "data": {"prepare": prepared}},
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A prepared data set `data`, with one clip of a class that is too rare, and the checkpoint `pretrained`."""
    root = tmp_path_factory.mktemp("finetune")
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
    write_checkpoint(root / "pretrained", data=root / "data")
    return root


@pytest.fixture(scope="module")
def tuned(folder) -> Path:
    """The workdir of a finished run."""
    arguments = ["--config", "demo_classify", "--init", str(folder / "pretrained"), "--workdir", str(folder / "tuned")]
    assert main([*arguments, "--config.task.heads=2", *SHORT]) == 0
    return folder / "tuned"


def test_report_beats_chance(tuned):
    report = json.loads((tuned / "report" / "classification.json").read_text())
    assert report["chance"] == pytest.approx(100 / 3)
    assert report["n"] == 18
    assert report["accuracy"] >= 80.0
    assert list(report["per_class"]) == ["blue", "green", "red"]
    assert np.array(report["confusion"]).sum() == 18
    assert report["protocol"]["split"] == "test"
    assert report["protocol"]["trained"] == ["^head/"] and report["protocol"]["views"] == 1


def test_best_checkpoint_is_the_one_reported(tuned):
    report = json.loads((tuned / "report" / "classification.json").read_text())
    lines = [json.loads(line) for line in (tuned / "metrics.jsonl").read_text().splitlines()]
    evaluations = [(line["val/accuracy"], -line["step"]) for line in lines if line["kind"] == "eval"]
    assert report["protocol"]["checkpoint_step"] == -max(evaluations)[1]
    assert "split 'val' (12 clips)" in report["protocol"]["checkpoint_chosen_by"]


def test_page_opens_from_disk(tuned):
    page = (tuned / "report" / "index.html").read_text()
    for source in re.findall(r'src="([^"]+)"', page):
        assert (tuned / "report" / source).is_file()
    assert "http" not in page


def test_checkpoint_holds_labels_and_frozen_towers(tuned, folder):
    meta = read_meta(tuned)
    assert meta["objective"] == "classify"
    assert meta["labels"] == ["blue", "green", "red"]
    assert meta["config"]["data"]["num_frames"] == 4
    assert meta["tokenizer"]["kind"] == "sentencepiece"
    before, after = read_params(folder / "pretrained"), read_params(tuned)
    for path, value in after.items():
        if path.startswith("video/"):
            np.testing.assert_array_equal(value, before[path])
    assert np.abs(after["head/scores/kernel"]).sum() > 0


def test_the_same_command_goes_on(tuned, folder, capsys):
    before = (tuned / "metrics.jsonl").read_text()
    arguments = ["--config", "demo_classify", "--init", str(folder / "pretrained"), "--workdir", str(tuned)]
    assert main([*arguments, "--config.task.heads=2", *SHORT]) == 0
    assert (tuned / "metrics.jsonl").read_text() == before
    assert "parameters: checkpoint and new model" not in capsys.readouterr().err


def test_a_run_remembers_where_it_began(tuned, folder):
    began = starting_point(folder / "pretrained", workdir=folder / "new")
    assert began["checkpoint"] == str(folder / "pretrained" / "checkpoints" / "1")
    assert starting_point(folder / "pretrained", workdir=tuned) == read_meta(tuned)["init"] == began
    with pytest.raises(UserError, match="no checkpoint at"):
        starting_point(folder / "elsewhere", workdir=tuned)


def test_open_towers_other_frames_and_held_out_clips(folder, capsys):
    config = load_config(
        "demo_classify:linear",
        overrides=[
            *SHORT,
            "--config.train.steps=2",
            "--config.train.eval_every=2",
            "--config.optimizer.warmup_steps=1",
            "--config.data.eval_split=none_such",
            "--config.data.num_frames=3",
            "--config.data.eval_clips=2",
            "--config.model.remat=full",
            "--config.task.train_towers=True",
            "--config.task.labels=('red','blue')",
        ],
    )
    report = finetune(config, init=folder / "pretrained" / "checkpoints", workdir=folder / "open")
    said = capsys.readouterr().err
    assert "config.data.num_frames=3, but the checkpoint was pretrained with 4" in said
    assert re.search(r"video/time_position\W+resized\W+1\W+48\W+4 x 16 -> 3 x 16", said)
    assert re.search(r"text/embedding\W+unused", said)
    assert "there is no usable split 'none_such'" in said
    assert "24 of 37 clips carry one of them (12 to 12 a class), 13 are left out" in said
    assert report is not None
    assert report["n"] == 12 and list(report["per_class"]) == ["red", "blue"]
    assert "held out of split 'train'" in report["protocol"]["checkpoint_chosen_by"]
    assert report["protocol"]["views"] == 2
    before, after = read_params(folder / "pretrained"), read_params(folder / "open")
    assert np.abs(before["video/embed/out/kernel"] - after["video/embed/out/kernel"]).max() > 0


@pytest.mark.parametrize(
    ("override", "wanted"),
    [
        ("--config.task.labels=('red','bleu')", "did you mean 'blue'"),
        ("--config.task.test_split=tset", "did you mean 'test'"),
        ("--config.task.head=atentive", "did you mean 'attentive'"),
        ("--config.task.dropout=1.5", "config.task.dropout must be at least 0 and below 1"),
        ("--config.data.batch_size=7", "batch_size=7 must divide"),
        ("--config.data.batch_size=64", "batch_size=64 is larger than the split, which has 36 clips"),
        ("--config.data.train_video=random_crop(99)", "random_crop"),
        ("--config.task.lables=()", "did you mean 'labels'"),
        ("--config.model.remat=ful", r"policy in config\.model\.remat 'ful'; did you mean 'full'"),
        ("--config.model.unrol=0", r"field of config\.model 'unrol'; did you mean 'unroll'"),
    ],
)
def test_mistakes_are_named_before_the_workdir_is_taken(folder, override, wanted):
    with pytest.raises(UserError, match=wanted):
        config = load_config("demo_classify", overrides=[*SHORT, "--config.task.heads=2", override])
        finetune(config, init=folder / "pretrained", workdir=folder / "refused")
    assert not (folder / "refused").exists()


def test_the_model_section_may_hold_what_pretraining_builds_from():
    sizes = {"num_frames", "context_length", "vocab_size", "audio_samples", "rngs"}
    fields = {field.name for field in dataclasses.fields(classify.ModelOptions)}
    assert fields == inspect.signature(build).parameters.keys() - sizes


def test_nothing_to_report_on(folder):
    overrides = [*SHORT, "--config.task.heads=2", "--config.task.test_split=", "--config.task.holdout=0"]
    config = load_config("demo_classify", overrides=[*overrides, "--config.data.eval_split="])
    with pytest.raises(UserError, match=r"no clip to report on: config\.task\.test_split='' has none"):
        finetune(config, init=folder / "pretrained", workdir=folder / "refused")


def test_checkpoint_of_another_architecture(folder, tmp_path):
    file = tmp_path / "wide.py"
    file.write_text(
        "from twinreel.configs.demo_classify import get_config as shipped\n"
        "def get_config():\n    c = shipped()\n    c.model.video.width = 32\n    return c\n"
    )
    with pytest.raises(UserError) as raised:
        finetune(load_config(str(file), overrides=SHORT), init=folder / "pretrained", workdir=folder / "refused")
    lines = str(raised.value).splitlines()
    assert any("video/embed/out/kernel" in line and "192" in line and "16" in line and "32" in line for line in lines)
    assert not (folder / "refused").exists()


@pytest.mark.real
def test_labels_of_the_real_clips(folder, real_dir, tmp_path):
    wanted = {("train", "fight"): 6, ("train", "no fight"): 6, ("test", "fight"): 2, ("test", "no fight"): 2}
    kept = []
    for clip in read_manifest(real_dir / "clips.jsonl"):
        key = (clip.split, clip.labels[0] if clip.labels else "")
        if wanted.get(key, 0):
            wanted[key] -= 1
            kept.append(clip)
    (tmp_path / "clips").symlink_to(real_dir / "clips")
    write_manifest(tmp_path / "some.jsonl", clips=kept)
    prepare(tmp_path / "some.jsonl", out=tmp_path / "data", fps=4, short_side=24, audio=False)
    report = finetune(
        load_config(
            "demo_classify",
            overrides=[
                *SHORT,
                f"--config.data.dir={tmp_path / 'data'}",
                "--config.task.labels=('fight','no fight')",
                "--config.task.heads=2",
                "--config.train.steps=4",
                "--config.optimizer.warmup_steps=1",
            ],
        ),
        init=folder / "pretrained",
        workdir=tmp_path / "run",
    )
    assert report is not None
    assert report["n"] == 4 and report["chance"] == 50.0
    assert {row["support"] for row in report["per_class"].values()} == {2}


def test_probabilities_of_several_views_are_averaged(monkeypatch):
    """Scores are the first pixel's channels; the mean of softmaxes is taken here in float64."""
    video = np.random.default_rng(0).integers(0, 5, (2, 3, 1, 1, 1, 4), dtype=np.uint8)
    batch = {"video": video, "clip_index": np.array([1, 0]), "valid": np.ones(2, bool)}
    monkeypatch.setattr(classify, "_scores", lambda graph, mesh, state, view: view[:, 0, 0, 0].astype(np.float32))
    monkeypatch.setattr("twinreel.data.batches.pipeline.eval_batches", lambda data, **_: [batch])
    setting = SimpleNamespace(data=SimpleNamespace(batch_size=2), tokenizer=None, mesh=None)
    task = SimpleNamespace(_setting=setting, labels="abcd")
    clips = Subset(split="test", label=np.array([2, 3], np.int32))
    model = nnx.Linear(1, 1, rngs=nnx.Rngs(0))
    probability, label, index, views = classify.Classify.predict(task, model, clips=clips)
    exp = np.exp(video[:, :, 0, 0, 0].astype(np.float64))
    want = (exp / exp.sum(axis=-1, keepdims=True)).mean(axis=1)
    np.testing.assert_allclose(probability, want[::-1], rtol=1e-6)
    assert label.tolist() == [2, 3] and index.tolist() == [0, 1] and views == 3


@pytest.mark.slow
def test_two_processes_tune_as_one_does(tuned, folder, tmp_path):
    workdir = tmp_path / "two"
    command = [sys.executable, "-m", "twinreel", "launch", "--backend", "local", "--num_processes", "2"]
    command += ["--platform", "cpu", "--devices_per_process", "4", "--", "finetune", "--config", "demo_classify"]
    command += ["--init", str(folder / "pretrained"), "--workdir", str(workdir), "--config.task.heads=2", *SHORT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    one, two = (json.loads((w / "report" / "classification.json").read_text()) for w in (tuned, workdir))
    assert two["n"] == one["n"] and abs(two["accuracy"] - one["accuracy"]) <= 100 / one["n"]
    a, b = read_params(tuned), read_params(workdir)
    for path, value in a.items():
        np.testing.assert_allclose(b[path], value, rtol=1e-2, atol=1e-3)
