"""Fine-tuning of few parameters from files to labels: what is trained, resuming, merging, beginning again."""

import json
import re

import numpy as np
import pytest
from colour_clips import COLOURS, config_of, flags
from files import lines

import twinreel
from twinreel.base.errors import UserError
from twinreel.engine.keeping.checkpoint import read_params
from twinreel.finetune.commands.finetune import finetune, main
from twinreel.models.adapters import ADDED
from twinreel.zoo import merge_command
from twinreel.zoo.load import locate
from twinreel.zoo.merge import merged

FEW = ["--config.train.steps=2", "--config.train.eval_every=2", "--config.train.log_every=1"]
FEW += ["--config.train.checkpoint_every=2", "--config.optimizer.warmup_steps=1"]
LORA = [*FEW, "--config.adapt.lora.layers='^video/'", "--config.adapt.lora.rank=2", "--config.adapt.lora.dropout=0.0"]

ADDED_BY_LORA = 2 * ((192 + 16) + (16 + 48) + (16 + 16) + (16 + 64) + (64 + 16))
"""Rank 2: the embedding of patches, qkv, out, up and down of one block of 16 channels."""


@pytest.fixture(scope="module")
def run(colours, capsys_of_module):
    """The workdir of a run with LoRA, and what it said."""
    said = capsys_of_module(lambda: main([*flags(colours, "lora"), *LORA]))
    return colours / "lora", said


@pytest.fixture(scope="module")
def capsys_of_module():
    """A function that calls another one and returns what it wrote to standard error."""
    import contextlib
    import io

    def call(function):
        found = io.StringIO()
        with contextlib.redirect_stderr(found):
            assert function() == 0
        return found.getvalue()

    return call


def test_the_table_counts_what_is_trained_and_frozen(run, colours):
    before = {path: value for path, value in read_params(colours / "pretrained").items() if path.startswith("video/")}
    frozen = sum(value.size for value in before.values())
    assert re.search(rf"video\W+{ADDED_BY_LORA:,}\W+{frozen:,}\W+{ADDED_BY_LORA:,}", run[1])
    assert re.search(r"video/\w+\W+new\W+", run[1])


def test_the_base_stays_and_the_updates_learn(run, colours):
    before, after = read_params(colours / "pretrained"), read_params(run[0])
    video = {path: value for path, value in after.items() if path.startswith("video/")}
    added = {path: value for path, value in video.items() if ADDED.search(path)}
    assert sum(value.size for value in added.values()) == ADDED_BY_LORA
    assert all(np.abs(value).max() > 0 for value in added.values())
    for path in video.keys() - added.keys():
        np.testing.assert_array_equal(video[path], before[path])
    report = json.loads((run[0] / "report" / "classification.json").read_text())
    assert report["protocol"]["trained"] == ["^head/", "^(?:video)/(?:.*/)?lora/"]


def test_the_model_on_disk_labels_files_and_so_does_the_merged_one(run, colours, tmp_path, capsys):
    files = [str(colours / f"test_{colour}_0.mp4") for colour in COLOURS]
    found = twinreel.load(run[0]).predict(files)
    assert merge_command.main([str(run[0]), "--out", str(tmp_path / "plain"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["merged"] == {"video": 5}
    plain = locate(tmp_path / "plain")
    assert "adapters" not in plain.spec.towers["video"] and not any(ADDED.search(path) for path in plain.params())
    for one, other in zip(found, twinreel.load(tmp_path / "plain").predict(files), strict=True):
        assert one["label"] == other["label"]
        for label, value in one["probabilities"].items():
            assert other["probabilities"][label] == pytest.approx(value, abs=1e-5)
    with pytest.raises(UserError, match="has no low-rank updates to merge"):
        merge_command.main([str(tmp_path / "plain"), "--out", str(tmp_path / "again")])


def test_a_run_of_more_steps_goes_on(run, colours):
    was, before = (run[0] / "metrics.jsonl").read_text(), read_params(run[0])["video/embed/out/lora/b"]
    assert main([*flags(colours, "lora"), *LORA, "--config.train.steps=3"]) == 0
    assert (run[0] / "metrics.jsonl").read_text().startswith(was)
    assert [line["step"] for line in lines(run[0], "train")] == [1, 2, 3]
    assert np.abs(read_params(run[0] / "checkpoints" / "3")["video/embed/out/lora/b"] - before).max() > 0


def test_another_run_begins_with_the_merged_weights(run, colours, capsys):
    """DoRA on top of the run with LoRA, at a rate of 0: magnitudes start as the norms of the merged columns."""
    overrides = [
        "task.head=linear",
        "adapt.dora.layers='attention/'",
        "adapt.trainable=('^video/.*norm',)",
        "optimizer.lr=0.0",
    ]
    config = config_of(colours, *FEW, *overrides, "train.steps=1", "train.eval_every=1")
    assert finetune(config, init=run[0], workdir=colours / "dora") is not None
    start, after = merged(locate(run[0])).params(), read_params(colours / "dora")
    for path in after.keys() & start.keys():
        if path.startswith("video/"):
            np.testing.assert_array_equal(after[path], start[path])
    layer = "video/space/layers/attention/qkv"
    norms = np.sqrt(np.square(start[f"{layer}/kernel"].astype(np.float64)).sum(axis=-2))
    np.testing.assert_allclose(after[f"{layer}/lora/magnitude"], norms, rtol=1e-6)
    added = 8 * ((16 + 48) + (16 + 16)) + 48 + 16
    norm = 8 * 16  # two norms of the block, the last one, and that of the stack over time, which has no block
    assert re.search(rf"video\W+{added + norm:,}\W+\S+\W+{added:,}", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("overrides", "wanted"),
    [
        (["adapt.lora.layers=atention"], r"adapt\.lora\.layers='atention' is found in no path(.|\n)*attention/qkv"),
        (["adapt.lora={}", "task.train_towers=True"], r"train_towers=True trains all parameters"),
        (["adapt.lorra={}"], r"field of config\.adapt 'lorra'; did you mean 'lora'"),
        (["adapt.lora.rnak=3"], r"field of config\.adapt\.lora 'rnak'; did you mean 'rank'"),
        (["adapt.lora.rank=two"], r"config\.adapt\.lora\.rank"),
        (["adapt.trainable=('norm',)"], r"adapt\.trainable adds to the parameters of a kind, but there is none"),
        (["adapt.bitfit.layers=zz"], r"'zz' is found in the path of no bias(.|\n)*space/norm/bias"),
        (["adapt.bitfit={}", "adapt.trainable=('zz',)"], r"'zz' is found in the path of no parameter"),
    ],
)  # fmt: skip
def test_mistakes_are_named_before_the_workdir_is_taken(colours, overrides, wanted):
    with pytest.raises(UserError, match=wanted):
        finetune(config_of(colours, *FEW, *overrides), init=colours / "pretrained", workdir=colours / "refused")
    assert not (colours / "refused").exists()
