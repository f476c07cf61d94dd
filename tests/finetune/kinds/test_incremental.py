"""Further classes for a fine-tuned classifier: what is kept of its head, what is replayed, and what is reported."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from colour_clips import config_of
from flax import nnx
from tower_loops import drawn

import twinreel
from twinreel.base.errors import UserError
from twinreel.engine.keeping.checkpoint import read_params
from twinreel.engine.step.state import split_model
from twinreel.finetune.commands.finetune import finetune, open_task
from twinreel.finetune.examples.clips import LabelledClips
from twinreel.finetune.kinds.incremental import FILE, extension_figures, kept_divergence, replayed
from twinreel.zoo import bundle
from twinreel.zoo.bundle import write_bundle

FEW = ["train.steps=2", "train.eval_every=2", "train.log_every=1", "train.checkpoint_every=2", "task.heads=2"]
FEW += ["optimizer.warmup_steps=1"]
MORE = [*FEW, "task.extends=True", "task.replay=2", "task.keep_weight=0.5"]


@pytest.fixture(scope="module")
def run(colours):
    """The workdir and the report of a run with a third class, from a classifier of two with drawn parameters."""
    two = config_of(colours, *FEW, "task.labels=('blue','red')", name="demo_classify:linear")
    where = {"init": colours / "pretrained", "workdir": colours / "none", "say": lambda what: None}
    objective = open_task(two.to_dict(), **where)[3].objective
    params = {path: np.asarray(x) for path, x in split_model(drawn(lambda: objective.init(nnx.Rngs(0)))).items()}
    write_bundle(colours / "two", spec=objective.spec, params=params)
    three = config_of(colours, *MORE, "optimizer.lr=0.0", name="demo_classify:linear")
    report = finetune(three, init=colours / "two", workdir=colours / "three")
    return colours / "three", report


def test_the_old_rows_of_the_head_are_kept_and_the_new_start_at_zero(run, colours):
    """At a rate of 0."""
    before, after = bundle.read_params(colours / "two"), read_params(run[0])
    for name in ("kernel", "bias"):
        old, new = before[f"head/scores/{name}"], after[f"head/scores/{name}"]
        assert np.abs(old).max() > 0 and new.shape == (*old.shape[:-1], 3)
        np.testing.assert_array_equal(new[..., :2], old)
        np.testing.assert_array_equal(new[..., 2], 0)
    assert twinreel.load(run[0]).labels == ("blue", "red", "green"), "the classes of the checkpoint come first"


def test_old_new_and_all_are_reported(run):
    report = run[1]["extension"]
    whole = json.loads((run[0] / "report" / "classification.json").read_text())
    right = {kind: [] for kind in ("old", "new", "all")}
    for clip in whole["clips"]:
        hit = clip["label"] == clip["predicted"]
        right["new" if clip["label"] == "green" else "old"].append(hit)
        right["all"].append(hit)
    for kind, hits in right.items():
        assert report[kind] == pytest.approx(100 * np.mean(hits))
    assert report["old_classes"] == 2 and report["old_before"] >= report["old"]
    assert "Further classes" in (run[0] / "report" / "index.html").read_text()


def test_batches_bring_what_the_checkpoint_said(run, colours):
    """And a resumed run, which does not read the checkpoint, has it from its workdir."""
    config = config_of(colours, *MORE, name="demo_classify:linear")
    where = {"init": colours / "two", "workdir": colours / "none", "say": lambda what: None}
    task = open_task(config.to_dict(), **where)[3]
    task.ask_checkpoint(None, file=run[0] / FILE)
    batch = next(task.batches(0))
    rows = task._context.records.rows("train")
    files = [str(colours / rows[int(i)]["file"]) for i in batch["clip_index"]]
    for known, said in zip(batch["known"], twinreel.load(colours / "two").predict(files), strict=True):
        values = [said["probabilities"][name] for name in ("blue", "red")]
        np.testing.assert_allclose(np.exp(known), values, atol=0.02)  # files of H.264 against JPEG in the records
    assert set(batch["label"]) <= {0, 1, 2} and len(task.splits.train) == 2 + 2 + 12


def test_what_was_said_of_other_clips_is_not_taken(run, colours):
    """As a start leaves it that was stopped before its first step; and only files at the top go to other machines."""
    config = config_of(colours, *MORE, "task.replay=1", name="demo_classify:linear")
    where = {"init": colours / "two", "workdir": colours / "none", "say": lambda what: None}
    with pytest.raises(ZeroDivisionError):
        open_task(config.to_dict(), **where)[3].ask_checkpoint(lambda: 1 / 0, file=run[0] / FILE)
    assert "/" not in FILE


def test_the_loss_keeps_scores_as_they_were():
    """Against a loop in float64, and 0 where the scores are the same up to a constant."""
    rng = np.random.default_rng(0)
    logits, old = rng.normal(size=(4, 5)), rng.normal(size=(4, 3))
    valid, t = np.array([True, True, False, True]), 2.0
    total = []
    for row, was, taken in zip(logits, old, valid, strict=True):
        p, q = np.exp(was / t) / np.exp(was / t).sum(), np.exp(row[:3] / t) / np.exp(row[:3] / t).sum()
        total += [t * t * sum(p * np.log(p / q))] * bool(taken)
    given = {"known": jnp.asarray(old, jnp.float32), "valid": jnp.asarray(valid), "temperature": t}
    assert float(kept_divergence(jnp.asarray(logits, jnp.float32), **given)) == pytest.approx(np.mean(total), rel=1e-5)
    same = jnp.asarray(np.concatenate([old + 3.0, logits[:, 3:]], axis=1), jnp.float32)
    assert float(kept_divergence(same, **given)) == pytest.approx(0, abs=1e-6)


def test_few_clips_of_the_old_classes_are_replayed():
    label = np.array([0] * 5 + [1] * 3 + [2] * 4 + [-1] * 2, np.int32)
    clips = LabelledClips(split="train", labels=("a", "b", "c"), label=label)
    for count, wanted in ((-1, [5, 3, 4]), (4, [4, 3, 4]), (0, [0, 0, 4])):
        kept = replayed(clips, old=2, count=count, seed=1).label
        assert [int((kept == number).sum()) for number in range(3)] == wanted
        assert np.array_equal(kept[kept >= 0], label[kept >= 0])
    draws = [replayed(clips, old=2, count=1, seed=seed).indices.tolist() for seed in (1, 1, 2, 3, 4)]
    assert draws[0] == draws[1] and len({tuple(draw) for draw in draws}) > 1


def test_figures_without_clips_of_a_kind():
    found = extension_figures(np.eye(3)[[0, 1]], label=np.array([0, 0]), old=2, before=None)
    assert found == {"old_classes": 2, "old": 50.0, "new": None, "all": 50.0, "old_before": None}


@pytest.mark.parametrize(
    ("overrides", "init", "wanted"),
    [
        (["task.extends=True"], "pretrained", r"takes over the classes of .* --init is with the heads \[\]"),
        (["task.extends=True", "task.head=attentive"], "two", r"has the head 'linear'; set it to that"),
        (["task.extends=True", "task.labels=('red',)"], "two", r"no class besides the 2 of .*\(blue, red\)"),
        (["task.replay=3"], "two", r"replay and keep_weight are for further classes"),
        (["task.extends=True", "task.replay=-2"], "two", r"config\.task\.replay=-2 must be at least -1"),
        (["task.extends=True", "task.kind=multi"], "two", r"is for kind='single'"),
        (["task.extends=True", "task.keep_weight=1.0", "task.mixup=0.2"], "two", r"set mixup and cutmix to 0"),
        (["task.extends=True", "data.num_frames=2"], "two", r"num_frames=2, but the classifier .* takes 4"),
    ],
)  # fmt: skip
def test_mistakes_are_named(run, colours, overrides, init, wanted):
    with pytest.raises(UserError, match=wanted):
        finetune(
            config_of(colours, *FEW, *overrides, name="demo_classify:linear"),
            init=colours / init,
            workdir=colours / "refused",
        )
