"""`pretrain --init`: a new run that begins with parts of another checkpoint."""

import json

import numpy as np
import pytest
from flax import nnx

from twinreel.base.config import load_config
from twinreel.base.errors import UserError
from twinreel.data.options import DataOptions
from twinreel.engine.keeping.checkpoint import read_meta, read_params
from twinreel.engine.keeping.init_from import InitFrom
from twinreel.pretrain.objective import make_objective
from twinreel.pretrain.pretrain import main, pretrain


def command(tiny_overrides, *extra, workdir):
    flags = [f"--config.{item}" for item in tiny_overrides]
    return ["--config", "demo", "--workdir", str(workdir), *flags, "--config.train.eval_every=0", *extra]


@pytest.mark.slow
def test_lit_keeps_the_video_tower_of_the_checkpoint(tiny_overrides, tmp_path, capsys):
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(command(tiny_overrides, "--config.train.steps=2", workdir=first)) == 0
    (first / "tokenizer.meta.json").rename(first / "moved")  # the tokenizer comes with the checkpoint's meta
    init = ["--init", str(first), "--init_parts", "^video/.*", "text/embedding",
            "--config.train.steps=3", '--config.optimizer.frozen=("^video/",)']  # fmt: skip
    capsys.readouterr()
    assert main(command(tiny_overrides, *init, workdir=second)) == 0
    shown = capsys.readouterr().err
    assert "parameters: checkpoint and new model" in shown
    table = shown[shown.index("parameters: checkpoint and new model") :].splitlines()[1:]
    assert any("loaded" in line for line in table) and any("new" in line for line in table)
    assert not any("unused" in line for line in table)  # the model is the same: what was not chosen is new
    before, after = read_params(first), read_params(second)
    video = {path for path in before if path.startswith("video/")}
    for path in video:
        np.testing.assert_array_equal(after[path], before[path])
    assert not np.array_equal(after["text/embedding"], before["text/embedding"])
    meta = read_meta(second)
    assert meta["init"] == {"checkpoint": str(first), "parts": ["^video/.*", "text/embedding"]}
    assert meta["spec"]["tokenizer"] == json.loads((first / "moved").read_text())
    # a resume does not look at the checkpoint again
    again = ["--init", str(tmp_path / "nowhere"), *init[2:5], "--config.train.steps=4", init[-1]]
    assert main(command(tiny_overrides, *again, workdir=second)) == 0
    for path in video:
        np.testing.assert_array_equal(read_params(second)[path], before[path])
    config = load_config("demo", overrides=[*tiny_overrides, "loss.name=sigmoid"])
    data = DataOptions.of(config.data)
    vocab_size = len(before["text/embedding"])
    model = make_objective(config, data=data, vocab_size=vocab_size).init(nnx.Rngs(5))
    bias = np.asarray(model.bias[...])
    capsys.readouterr()
    InitFrom(checkpoint=first).fill(model)  # a parameter that only the new loss has begins anew
    assert "bias" in capsys.readouterr().err
    np.testing.assert_array_equal(model.log_scale[...], before["log_scale"])
    np.testing.assert_array_equal(model.bias[...], bias)
    with pytest.raises(UserError, match=r"bias +\(absent\)(.|\n)*leave these out of --init_parts"):
        InitFrom(checkpoint=first, parts=(".*",)).fill(model)
    start = InitFrom(checkpoint=first, parts=("^audio/.*",))
    with pytest.raises(UserError, match=r"--init_parts: '\^audio/\.\*' matches no whole path"):
        pretrain(load_config("demo", overrides=tiny_overrides), workdir=tmp_path / "third", start=start)
