"""Fine-tuning from files to the report and to labels of new files, on clips whose class is their colour."""

import fcntl
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from colour_clips import COLOURS, SHORT, config_of, flags
from files import lines
from public_models import source

import twinreel
from twinreel.base.config import load_config
from twinreel.base.errors import UserError
from twinreel.data.manifest import read_manifest, write_manifest
from twinreel.data.prepare.prepare import prepare
from twinreel.encode.commands import encode
from twinreel.engine.keeping.checkpoint import FOLDER, read_params, steps_in
from twinreel.finetune.commands import predict
from twinreel.finetune.commands.finetune import finetune, main
from twinreel.finetune.options.classify import ClassifyOptions
from twinreel.pretrain.pretrain import pretrain
from twinreel.zoo import load
from twinreel.zoo.load import load_model, locate


@pytest.fixture(scope="module")
def folder(colours) -> Path:
    """The data set and the checkpoint."""
    return colours


@pytest.fixture(scope="module")
def tuned(folder) -> Path:
    """The workdir of a finished run."""
    assert main(flags(folder, "tuned")) == 0
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


def test_a_run_is_used_as_its_report_measures_it(tuned, monkeypatch):
    """The best checkpoint, though there is a newer one; a checkpoint that is named is taken as it is."""
    report = json.loads((tuned / "report" / "classification.json").read_text())
    best, newest = report["protocol"]["checkpoint_step"], steps_in(tuned / FOLDER)[-1]
    assert best < newest
    for given in (tuned, tuned / FOLDER):
        assert locate(given).meta["step"] == best
    assert locate(tuned / FOLDER / str(newest)).meta["step"] == newest
    copies = {"s3://b/run": newest, f"s3://b/run/{FOLDER}": newest, f"s3://b/run/{FOLDER}/{best}": best}
    copies = {url: tuned / FOLDER / str(step) for url, step in copies.items()} | {f"s3://b/run/{FOLDER}/7": tuned}
    monkeypatch.setattr(load, "local_copy", lambda path: copies.get(str(path), path))  # one checkpoint at a time
    assert [locate(url).meta["step"] for url in copies] == [best, best, best, newest]


def test_page_opens_from_disk(tuned):
    page = (tuned / "report" / "index.html").read_text()
    for picture in re.findall(r'src="([^"]+)"', page):
        assert (tuned / "report" / picture).is_file()
    assert "http" not in page


def test_checkpoint_holds_a_spec_with_labels_and_the_frozen_towers(tuned, folder):
    located = locate(tuned)
    assert located.meta["objective"] == "classify"
    assert located.spec.heads["classify"]["labels"] == ["blue", "green", "red"]
    assert located.spec.input.num_frames == 4 and located.spec.tokenizer["kind"] == "sentencepiece"
    assert located.spec.origin["init"]["name"] == "pretrained" and located.spec.origin["init"]["step"] == 1
    before, after = read_params(folder / "pretrained"), read_params(tuned)
    for path, value in after.items():
        if path.startswith("video/"):
            np.testing.assert_array_equal(value, before[path])
    assert np.abs(after["head/scores/kernel"]).sum() > 0


def test_the_same_command_resumes(tuned, folder, capsys):
    before = (tuned / "metrics.jsonl").read_text()
    assert main(flags(folder, "tuned")) == 0
    assert (tuned / "metrics.jsonl").read_text() == before
    assert "parameters: checkpoint and new model" not in capsys.readouterr().err


def test_a_moved_project_resumes_and_remembers_where_it_began(tuned, folder, tmp_path):
    """The pretraining has gone on meanwhile: the run began with its step 1."""
    there = tmp_path / "moved"
    for name in ("pretrained", "tuned", "data"):
        shutil.copytree(folder / name, there / name)
    newer = there / "pretrained" / "checkpoints"
    shutil.copytree(newer / "1", newer / "2")
    assert main([*flags(there, "tuned"), "--config.train.steps=44"]) == 0
    report = json.loads((there / "tuned" / "report" / "classification.json").read_text())
    assert report["protocol"]["init"] == "pretrained, step 1" and report["protocol"]["steps"] == 44
    shutil.rmtree(there / "pretrained")
    assert main([*flags(there, "tuned"), "--config.train.steps=48"]) == 0


def test_the_mixture_of_the_pretraining_plays_no_part(folder, tmp_path):
    """Its folder is gone: --data alone decides what is trained on."""
    shutil.copytree(folder / "data", tmp_path / "big")
    pretrain(load_config(f"{folder / 'tiny.py'}:{tmp_path / 'big'}"), workdir=tmp_path / "pre")
    shutil.rmtree(tmp_path / "big")
    config = config_of(folder, "task.heads=2", "train.steps=2", "optimizer.warmup_steps=1")
    report = finetune(config, init=tmp_path / "pre", workdir=tmp_path / "run")
    assert report is not None and report["n"] == 18 and report["protocol"]["dataset"] == "data"


def test_cached_features_change_no_number(folder, tmp_path):
    """Three steps from the records and from the features: the same losses; an interrupted cache is completed."""
    curves, found = {}, {}
    for name, cached in (("features", True), ("clips", False)):
        overrides = ["task.heads=2", "train.steps=3", "train.log_every=1", "train.eval_every=3"]
        config = config_of(folder, *overrides, f"task.cache_features={cached}", "optimizer.warmup_steps=1")
        found[name] = finetune(config, init=folder / "pretrained", workdir=tmp_path / name)
        curves[name] = [line["loss"] for line in lines(tmp_path / name, "train")]
    np.testing.assert_allclose(curves["features"], curves["clips"], rtol=1e-6)
    assert found["features"]["confusion"] == found["clips"]["confusion"]
    sets = sorted((tmp_path / "features" / "features").iterdir())
    assert len(sets) == 3 and not (tmp_path / "clips" / "features").exists()
    for one in sets:
        (one / "features.json").unlink()  # as a start that was killed leaves it
    assert finetune(config_of(folder, *overrides, "train.steps=4", "optimizer.warmup_steps=1"),
                    init=folder / "pretrained", workdir=tmp_path / "features") is not None  # fmt: skip
    assert all((one / "features.json").is_file() for one in sets)


def test_a_head_on_patches_learns_from_their_features(folder, tmp_path):
    """The features are those of patches, kept apart from those of time steps; files are predicted the same way."""
    kept = tmp_path / "kept"
    overrides = ["task.heads=2", "optimizer.warmup_steps=1", f"task.features_dir={kept}"]
    config = config_of(folder, *overrides, "task.patch_grid=2")
    found = finetune(config, init=folder / "pretrained", workdir=tmp_path / "run")
    assert found is not None and found["accuracy"] > 60  # three classes
    [tokens] = {json.loads((one / "features.json").read_text())["shape"][0] for one in kept.iterdir()}
    model = twinreel.load(tmp_path / "run")
    assert model.spec.heads["classify"]["patch_grid"] == 2
    assert [one["label"] for one in model.predict([folder / "test_red_0.mp4"])] == ["red"]
    config = config_of(folder, *overrides, "train.steps=1", "train.eval_every=1")
    finetune(config, init=folder / "pretrained", workdir=tmp_path / "times")
    shapes = {json.loads((one / "features.json").read_text())["shape"][0] for one in kept.iterdir()}
    assert shapes == {tokens, tokens // 4}


def test_a_second_start_writes_no_features(folder, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    with (run / "run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another run is writing to workdir"):
            finetune(config_of(folder, "task.heads=2"), init=folder / "pretrained", workdir=run)
    assert [path.name for path in run.iterdir()] == ["run.lock"]


def test_predict_labels_new_files(tuned, folder, capsys):
    files = [str(folder / f"test_{colour}_0.mp4") for colour in COLOURS]
    assert predict.main([str(tuned), *files, "--json", "--top_k", "2"]) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["path"] for one in printed] == files
    assert [one["label"] for one in printed] == list(COLOURS)
    for one in printed:
        assert next(iter(one["probabilities"])) == one["label"] and len(one["probabilities"]) == 2
    loaded = twinreel.load(tuned).predict(files)
    assert [one["label"] for one in loaded] == list(COLOURS)
    assert all(sum(one["probabilities"].values()) == pytest.approx(1) for one in loaded)
    assert predict.main([str(tuned), files[0]]) == 0 and "blue" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "wanted"),
    [
        (["tuned", "a.mp4", "b.mp4"], "2 of 2 files do not exist: a.mp4, b.mp4"),
        (["pretrained", "test_red_0.mp4"], "is a model without a head.*twinreel finetune"),
        (["tuned", "."], "is a folder; give the files in it"),
        (["tuned", "test_red_0.mp4", "--top_k", "-1"], "--top_k must be at least 0"),
    ],
)
def test_predict_names_what_is_wrong(tuned, folder, monkeypatch, argv, wanted):
    monkeypatch.chdir(folder)
    with pytest.raises(UserError, match=wanted):
        predict.main(argv)


def test_encoding_with_a_fine_tuned_model_says_what_to_do(tuned, folder):
    with pytest.raises(UserError, match="twinreel predict"):
        encode.main([str(tuned), "--video", str(folder / "test_red_0.mp4"), "--text", "red"])


@pytest.mark.parametrize("name", ["clip/quick", "vit"])
def test_public_weights_are_tuned_and_label_files(name, folder, tmp_path):
    """A dual tower, and an image encoder without text and tokenizer."""
    init = source(name, tmp_path / "public")
    spec = locate(init).spec
    config = config_of(folder, "task.head=linear", "train.steps=20", "data.num_frames=2")
    assert finetune(config, init=init, workdir=tmp_path / "run")["accuracy"] > 0.5  # chance: a third
    tuned = locate(tmp_path / "run").spec
    assert (tuned.input.pixel_mean, tuned.input.eval_video) == (spec.input.pixel_mean, spec.input.eval_video)
    files = [folder / f"test_{label}_0.mp4" for label in COLOURS]
    assert len(twinreel.load(tmp_path / "run").predict(files)) == len(files)


def test_open_towers_other_frames_and_held_out_clips(folder, capsys):
    config = config_of(
        folder,
        "train.steps=2",
        "train.eval_every=2",
        "optimizer.warmup_steps=1",
        "task.val_split=none_such",
        "data.num_frames=3",
        "data.eval_clips=2",
        "model.remat=full",
        "task.train_towers=True",
        "task.labels=('red','blue')",
        name="demo_classify:linear",
    )
    report = finetune(config, init=folder / "pretrained" / "checkpoints", workdir=folder / "open")
    said = capsys.readouterr().err
    assert "config.data.num_frames=3, but the checkpoint was pretrained with 4" in said
    assert re.search(r"video/time_position\W+resized\W+1\W+48\W+4 x 16 -> 3 x 16", said)
    assert re.search(r"text/\w+\W+unused", said)
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
        ("--config.task.patch_grid=-1", "config.task.patch_grid must be at least 0, got -1"),
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
        config = config_of(folder, "task.heads=2", override)
        finetune(config, init=folder / "pretrained", workdir=folder / "refused")
    assert not (folder / "refused").exists()


def test_statistics_over_time_are_not_of_patches():
    with pytest.raises(UserError, match="head='statistics' takes one token for each time step"):
        ClassifyOptions(head="statistics", patch_grid=2)


def test_nothing_to_report_on(folder):
    overrides = ["task.heads=2", "task.test_split=", "task.holdout=0", "task.val_split="]
    config = config_of(folder, *overrides)
    with pytest.raises(UserError, match=r"no clip to report on: config\.task\.test_split='' has none"):
        finetune(config, init=folder / "pretrained", workdir=folder / "refused")


def test_checkpoint_of_another_architecture(folder, tmp_path):
    file = tmp_path / "wide.py"
    file.write_text(
        "from twinreel.configs.demo_classify import get_config as shipped\n"
        "def get_config():\n    c = shipped()\n    c.model.video.width = 32\n    return c\n"
    )
    with pytest.raises(UserError) as raised:
        finetune(config_of(folder, name=str(file)), init=folder / "pretrained", workdir=folder / "refused")
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


def test_probabilities_of_several_views_are_averaged(tuned):
    """The mean of softmaxes is taken here in float64."""
    predictor = twinreel.load(tuned)
    video = np.random.default_rng(0).integers(0, 256, (3, 2, 4, 16, 16, 3), dtype=np.uint8)
    each = [predictor.predict_arrays(video[:, v]) for v in range(2)]
    np.testing.assert_allclose(predictor.predict_arrays(video), np.mean(each, axis=0), atol=1e-6)
    model = load_model(locate(tuned))
    logits = np.asarray(model(video[:, 0]), np.float64)
    wanted = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(each[0], wanted, atol=1e-5)


def test_the_protocol_says_when_no_best_checkpoint_was_kept(folder, tmp_path):
    overrides = ["task.heads=2", "train.keep_best=0", "train.steps=4", "train.eval_every=2", "optimizer.warmup_steps=1"]
    report = finetune(config_of(folder, *overrides, "optimizer.lr=0.0"), init=folder / "pretrained", workdir=tmp_path)
    assert report is not None
    chosen = report["protocol"]["checkpoint_chosen_by"]
    assert report["protocol"]["checkpoint_step"] == 4
    assert chosen.startswith("last step (config.train.keep_best=0 kept no checkpoint of step 2")


def test_two_processes_tune_as_one_does(tuned, folder, tmp_path):
    workdir = tmp_path / "two"
    command = [sys.executable, "-m", "twinreel", "launch", "--backend", "local", "--num_processes", "2"]
    command += ["--platform", "cpu", "--devices_per_process", "4", "--", "finetune", *flags(folder, workdir)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    one, two = (json.loads((w / "report" / "classification.json").read_text()) for w in (tuned, workdir))
    assert two["n"] == one["n"] and abs(two["accuracy"] - one["accuracy"]) <= 100 / one["n"]
    a, b = read_params(tuned), read_params(workdir)
    for path, value in a.items():
        np.testing.assert_allclose(b[path], value, rtol=1e-2, atol=1e-3)
