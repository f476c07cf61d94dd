"""Files to retrieval table: pretrain, resume, several processes, evaluate, load, encode."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from fake_devices import xla_flags
from files import lines
from flax import nnx

import twinreel
from twinreel.base.config import load_config
from twinreel.base.errors import UserError
from twinreel.data.batches.texts import Lengths
from twinreel.data.options import DataOptions, FeedOptions
from twinreel.engine.keeping import checkpoint
from twinreel.engine.loop.run import Run
from twinreel.pretrain.begin import TOKENIZER, find_tokenizer
from twinreel.pretrain.pretrain import main, pretrain, say_truncated

CLIP = Path(__file__).parents[1] / "golden" / "tokenizers" / "clip_fast"


def parameters(workdir, step=None):
    path = workdir / "checkpoints" / str(step) if step else workdir
    return checkpoint.read_params(checkpoint.resolve(path))


@pytest.fixture(scope="session")
def trained(tmp_path_factory, tiny_overrides):
    """The workdir of an undisturbed run of six steps."""
    workdir = tmp_path_factory.mktemp("trained") / "run"
    result = pretrain(load_config("demo", overrides=tiny_overrides), workdir=workdir)
    assert result.step == 6 and result.reason == "done"
    return workdir


def test_metrics_hold_what_a_person_watches(trained):
    train, evals = lines(trained, "train"), lines(trained, "eval")
    assert [line["step"] for line in train] == [1, 2, 3, 4, 5, 6]
    wanted = {
        "loss",
        "scale",
        "lr",
        "grad_norm",
        "clips_per_s",
        "step_time_s",
        "data_wait",
        "memory_gb",
        "accuracy_t2v",
    }
    assert wanted <= set(train[-1]) and all(np.isfinite(line["loss"]) for line in train)
    assert [line["step"] for line in evals] == [3, 6]
    assert {"val/t2v_R@1", "val/v2t_R@1", "val/twins"} <= set(evals[-1])
    assert list((trained / "tensorboard").glob("events*"))


def test_three_steps_and_three_more_are_bit_equal_to_six(trained, tiny_overrides, tmp_path):
    half = load_config("demo", overrides=tiny_overrides)
    script = f"""
import os, signal, sys
from pathlib import Path
from twinreel.base.config import load_config
from twinreel.engine.loop import run
from twinreel.data.options import DataOptions, FeedOptions
from twinreel.pretrain.pretrain import pretrain
between = run.Run.between_steps
def stop(self, state, *, outputs, step):
    between(self, state, outputs=outputs, step=step)
    if step == 5:
        self._checkpoints.wait()
        os.kill(os.getpid(), signal.SIGKILL)
run.Run.between_steps = stop
pretrain(load_config("demo", overrides={tiny_overrides!r}), workdir=Path({str(tmp_path / "run")!r}))
"""
    killed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment(8))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert sorted(int(p.name) for p in (tmp_path / "run" / "checkpoints").iterdir() if p.name.isdigit()) == [3]
    result = pretrain(half, workdir=tmp_path / "run")
    assert result.step == 6
    whole, resumed = parameters(trained), parameters(tmp_path / "run")
    assert whole.keys() == resumed.keys() and len(whole) > 20
    for name, value in whole.items():
        np.testing.assert_array_equal(value, resumed[name], err_msg=name)
    curves = [[(line["step"], line["loss"]) for line in lines(run, "train")] for run in (trained, tmp_path / "run")]
    assert curves[0] == curves[1]


def environment(devices):
    return os.environ | {"XLA_FLAGS": xla_flags(devices), "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "2"}


def start(workdir, *, overrides, devices, extra=()):
    command = [sys.executable, "-m", "twinreel", "pretrain", "--config", "demo", "--workdir", str(workdir), *extra]
    return subprocess.Popen(
        [*command, *(f"--config.{item}" for item in overrides)],
        env=environment(devices),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=workdir.parent,
    )


@pytest.mark.slow
def test_two_processes_of_two_devices_agree_with_one_of_four(tiny_overrides, tmp_path):
    with socket.socket() as s:
        s.bind(("localhost", 0))
        port = s.getsockname()[1]
    cluster = ["--coordinator", f"localhost:{port}", "--num_processes", "2"]
    runs = [start(tmp_path / "one", overrides=tiny_overrides, devices=4)]
    for i in range(2):
        extra = [*cluster, "--process_id", str(i)]
        runs.append(start(tmp_path / "two", overrides=tiny_overrides, devices=2, extra=extra))
    for process in runs:
        out, _ = process.communicate(timeout=300)
        assert process.returncode == 0, out
    one, two = lines(tmp_path / "one", "train"), lines(tmp_path / "two", "train")
    assert [line["step"] for line in two] == [line["step"] for line in one] == [1, 2, 3, 4, 5, 6]
    np.testing.assert_allclose([a["loss"] for a in two], [a["loss"] for a in one], rtol=2e-5)
    np.testing.assert_allclose([a["grad_norm"] for a in two], [a["grad_norm"] for a in one], rtol=1e-3)


def test_sigterm_saves_and_exits_0(tiny_overrides, tmp_path, monkeypatch, capsys):
    """In this process; the engine's tests send signals to others."""
    between = Run.between_steps

    def told(self, state, *, outputs, step):
        if step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        between(self, state, outputs=outputs, step=step)

    monkeypatch.setattr(Run, "between_steps", told)
    flags = [f"--config.{item}" for item in [*tiny_overrides, "train.steps=100000", "train.eval_every=0"]]
    assert main(["--config", "demo", "--workdir", str(tmp_path / "run"), *flags]) == 0
    saved = int(checkpoint.resolve(tmp_path / "run").name)
    said = capsys.readouterr()
    assert saved in (4, 5) and "terminated" in said.out + said.err and f"step {saved}" in said.out + said.err


def test_the_checkpoint_alone_encodes_files_and_strings(trained, tiny_data):
    from twinreel.data.batches.pipeline import eval_batches
    from twinreel.data.batches.records import Records
    from twinreel.data.manifest import read_manifest

    encoder = twinreel.load(trained)
    rows = Records(tiny_data).rows("test")
    videos = tiny_data.parent / "videos"
    paths = {clip.clip_id: clip.path for clip in read_manifest(videos / "manifest.jsonl")}
    files = [videos / paths[row["clip_id"]] for row in rows]
    video = encoder.encode_video(files)
    text = encoder.encode_text([row["captions"][0] for row in rows])
    assert video.shape == text.shape == (8, 8) and video.dtype == text.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(video, axis=1), 1, rtol=1e-5)
    # The same clips through records, JPEG and tf.data: the sampling and the pixels must be the same.
    data = DataOptions(input=encoder.input, feed=FeedOptions(batch_size=8, dir=str(tiny_data)))
    batch = next(iter(eval_batches(data, tokenizer=encoder.tokenizer, split="test", batch_size=8)))
    np.testing.assert_allclose(video, encoder.encode_video_arrays(batch["video"]), atol=1e-5)
    np.testing.assert_allclose(text, encoder.encode_text_ids(batch["text"], mask=batch["text_mask"]), atol=1e-5)


def test_evaluate_writes_the_report_and_embeddings_give_the_same_json(trained, tiny_data, tmp_path, capsys):
    from twinreel.evaluate.evaluate import main

    out = tmp_path / "report"
    assert main([str(trained), "--data", str(tiny_data), "--split", "test", "--out", str(out)]) == 0
    report = json.loads((out / "retrieval.json").read_text())
    assert report["text_to_video"]["n"] >= 8 and report["protocol"]["split"] == "test"
    assert report["protocol"]["step"] == 6, "the report names the step of its checkpoint"
    assert report["coverage"]["fraction"] == 1.0 and report["order_twins"]["n"] > 0
    assert (out / "index.html").is_file()
    capsys.readouterr()
    assert main(["--embeddings", str(out / "embeddings.npz"), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["text_to_video"] == report["text_to_video"] and again["video_to_text"] == report["video_to_text"]


def test_a_long_an_empty_and_a_chinese_caption_are_encoded(trained):
    rows = twinreel.load(trained).encode_text(["word " * 10_000, "", "一个红色的方块向左滑动"])
    assert rows.shape == (3, 8) and np.all(np.isfinite(rows))
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)


def test_another_config_is_refused_with_the_difference(trained, tiny_overrides):
    with pytest.raises(UserError, match=r"optimizer\.lr"):
        pretrain(load_config("demo", overrides=[*tiny_overrides, "optimizer.lr=0.5"]), workdir=trained)


def test_a_checkpoint_of_another_architecture_is_refused_with_a_table(trained):
    encoder = twinreel.load(trained)
    from dual_towers import build

    wrong = encoder.meta["config"]["model"] | {"embed_dim": 12}
    sizes = {"num_frames": 8, "context_length": 24, "vocab_size": encoder.tokenizer.vocab_size}
    model = build(**wrong, **sizes, rngs=nnx.Rngs(0))
    with pytest.raises(UserError, match=r"video_projection/kernel.*16.*8"):
        checkpoint.restore_model(checkpoint.resolve(trained), model=model)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.dir=/nowhere/at/all", "does not exist"),
        ("data.batch_size=12", r"config\.data\.batch_size"),
        ("data.batch_size=64", "batch_size"),
        ("data.train_video=random_crop(40)", r"image_size"),
        ("model.video.patch=11", r"image_size=48 must be a multiple of patch=11"),
    ],
)
def test_bad_configs_are_refused_before_training(tiny_overrides, tmp_path, override, message):
    with pytest.raises(UserError, match=message):
        pretrain(load_config("demo", overrides=[*tiny_overrides, override]), workdir=tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists() or not any((tmp_path / "run" / "checkpoints").iterdir())


def test_bench_step_measures_without_tensorflow(tiny_overrides):
    code = (
        "import sys, json; from twinreel.bench.commands.step import main;"
        f"main(['--config', 'demo', '--steps', '2', '--json'] + ['--config.' + o for o in {tiny_overrides!r}]);"
        "assert 'tensorflow' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(1))
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["clips_per_s"] == pytest.approx(8 / result["step_time_s"])
    assert result["flops_per_device"] > 1e6 and result["peak_bytes"] > 0 and result["mfu"] is None
    assert jax.devices()[0].platform == "cpu"


def test_a_run_keeps_its_tokenizer_when_the_files_are_gone(tmp_path):
    files = shutil.copytree(CLIP, tmp_path / "files")
    data = DataOptions.of({"dir": "none", "batch_size": 8, "tokenizer": str(files)})
    texts = ["a man runs across the street", ""]
    run = tmp_path / "run"
    made = find_tokenizer(data, workdir=run)
    assert not run.exists()
    run.mkdir()
    (run / TOKENIZER).write_text(json.dumps(made.to_meta()))
    shutil.rmtree(files)
    with pytest.raises(UserError):  # it was left by a start that failed, of another config perhaps
        find_tokenizer(data, workdir=run)
    (run / "config.json").write_text("{}")
    assert sorted(path.name for path in run.iterdir()) == ["config.json", "tokenizer.meta.json"]
    first, again = (t.encode(texts, context_length=20) for t in (made, find_tokenizer(data, workdir=run)))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])


def test_a_workdir_that_cannot_be_written_is_said_before_anything_is_done(tiny_overrides, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    workdir = tmp_path / "file" / "run"
    with pytest.raises(UserError, match=rf"the workdir {workdir} cannot be written to \(Not a directory\)"):
        main(["--config", "demo", "--workdir", str(workdir), *(f"--config.{item}" for item in tiny_overrides)])


def test_truncated_texts_are_told_with_share_and_longest(capsys):
    say_truncated(SimpleNamespace(lengths=Lengths(truncated=0, total=9, longest=5)), context_length=8)
    assert capsys.readouterr().err == ""
    say_truncated(SimpleNamespace(lengths=Lengths(truncated=3, total=12, longest=99)), context_length=8)
    said = capsys.readouterr().err
    assert "3 of 12 texts (25.0 %)" in said and "longest has 99" in said and "config.data.context_length" in said


@pytest.mark.slow
def test_a_checkpoint_with_a_clip_tokenizer_encodes_without_the_files(tmp_path, tiny_overrides):
    files = shutil.copytree(CLIP, tmp_path / "files")
    config = load_config("demo", overrides=[*tiny_overrides, "train.steps=2", "train.eval_every=0"])
    with config.unlocked():
        config.data.tokenizer = str(files)
    result = pretrain(config, workdir=tmp_path / "run")
    assert result.step == 2
    shutil.rmtree(files)
    encoder = twinreel.load(tmp_path / "run")
    same, other = encoder.encode_text(["A red square", "a  red square"]), encoder.encode_text(["blue disc"])
    np.testing.assert_allclose(same[0], same[1], atol=1e-6)
    assert np.isfinite(other).all() and not np.allclose(same[0], other[0], atol=1e-4)
