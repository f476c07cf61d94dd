"""A task of the user's own: the example of docs/finetuning.md runs, learns by its own loss, and labels files."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from colour_clips import flags

import twinreel
from twinreel.base.errors import UserError
from twinreel.base.python_file import module_of
from twinreel.finetune.commands.finetune import main
from twinreel.finetune.tasks import make_task

DOCS = Path(__file__).parents[3] / "docs" / "finetuning.md"


@pytest.fixture(scope="module")
def example(tmp_path_factory) -> Path:
    """The file of the documentation."""
    page = DOCS.read_text(encoding="utf-8").partition("## Write your own task")[2]
    (code, *_) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert code.count("\n") <= 60
    path = tmp_path_factory.mktemp("task") / "focal.py"
    path.write_text(code, encoding="utf-8")
    return path


def test_the_example_trains_reports_and_predicts(example, colours, capsys):
    own = [f"--config.task.name={example}", "--config.task.gamma=1.5", "--config.train.steps=6"]
    assert main([*flags(colours, "own"), *own]) == 0
    workdir = colours / "own"
    report = json.loads((workdir / "report" / "classification.json").read_text())
    assert report["n"] == 18 and json.loads((workdir / "config.json").read_text())["task"]["gamma"] == 1.5
    [found] = twinreel.load(workdir).predict([colours / "test_red_0.mp4"], workers=1)
    assert set(found["probabilities"]) == {"blue", "green", "red"}


def test_its_loss_is_the_focal_loss(example):
    logits = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    label, valid = np.array([0, 2, 1, -1, 1]), np.array([True, True, True, True, False])
    objective = object.__new__(module_of(example, kind="task").FocalObjective)
    objective._gamma, objective.frozen = 1.5, True
    model = SimpleNamespace(score=lambda tokens, keys: tokens)
    batch = {"tokens": jnp.asarray(logits), "label": jnp.asarray(label), "valid": jnp.asarray(valid)}
    found, _ = objective.loss(model, batch, rngs=None)
    p = np.exp(logits.astype(np.float64)) / np.exp(logits.astype(np.float64)).sum(axis=1, keepdims=True)
    own = p[[0, 1, 2], label[:3]]
    assert float(found) == pytest.approx(np.mean((1 - own) ** 1.5 * -np.log(own)), rel=1e-5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "is no file"),
        ("x = 1\n", "has no function make"),
        ("def make(:\n", "is not valid Python: .*bad.py:1"),
        ("import nowhere_at_all\n", "failed at .*bad.py:1: `import nowhere_at_all`"),
    ],
)
def test_files_that_are_no_tasks(text, words, tmp_path):
    path = tmp_path / "bad.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=words):
        make_task(SimpleNamespace(config={"task": {"name": str(path)}}))  # pyright: ignore[reportArgumentType]
