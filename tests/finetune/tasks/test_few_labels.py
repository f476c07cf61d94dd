"""Classification with few labels: pseudo-labels against a loop, the strong view, and the rows of the batches."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from colour_clips import config_of
from flax import nnx

from twinreel.base.errors import UserError
from twinreel.finetune.commands.finetune import open_task
from twinreel.finetune.inputs.strong import strong_view
from twinreel.finetune.tasks.few_labels import apart
from twinreel.losses.pseudo import pseudo_label_loss

FEW = ["task.labelled=0.3", "task.pseudo_weight=2.0", "task.dropout=0.0", "task.heads=2"]


@pytest.fixture(scope="module")
def opened(colours):
    """A function (overrides) -> task."""

    def opened(*overrides):
        config = config_of(colours, "task.name=few_labels", *overrides, name="demo_classify:linear")
        where = {"init": colours / "pretrained", "workdir": colours / "none", "say": lambda what: None}
        return open_task(config.to_dict(), **where)[3]

    return opened


def test_pseudo_labels_are_those_of_a_loop():
    rng = np.random.default_rng(0)
    weak, strong = 3 * rng.normal(size=(12, 4)), rng.normal(size=(12, 4))
    taken = rng.random(12) < 0.7
    total, sure = 0.0, 0
    for w, s, t in zip(weak, strong, taken, strict=True):
        p = np.exp(w) / np.exp(w).sum()
        if t and p.max() >= 0.8:
            total, sure = total - np.log(np.exp(s) / np.exp(s).sum())[p.argmax()], sure + 1
    assert 0 < sure < taken.sum()
    given = {"weak": jnp.asarray(weak, jnp.float32), "taken": jnp.asarray(taken), "threshold": 0.8}
    loss, metrics = pseudo_label_loss(jnp.asarray(strong, jnp.float32), **given)
    assert float(loss) == pytest.approx(total / taken.sum(), rel=1e-5)
    assert float(metrics["pseudo_share"]) == pytest.approx(sure / taken.sum())
    by_weak = jax.grad(lambda w: pseudo_label_loss(w, **{**given, "weak": w})[0])(given["weak"])
    by_strong = jax.grad(lambda s: pseudo_label_loss(s, **given)[0])(given["weak"])
    np.testing.assert_array_equal(by_weak, by_strong)  # the labelling view has no gradient


def test_the_strong_view_changes_as_much_as_it_is_told():
    rng, key = np.random.default_rng(0), jax.random.key(3)
    video = jnp.asarray(rng.integers(60, 190, (3, 4, 16, 16, 3)), jnp.uint8)
    np.testing.assert_array_equal(strong_view(video, key=key, strength=0.0), video)
    strong = np.asarray(strong_view(video, key=key, strength=1.0), int)
    grey = (strong == 127).all(axis=(1, 4))  # the same box in all frames
    np.testing.assert_allclose(grey.mean(axis=(1, 2)), 0.25, atol=0.1)
    assert len({tuple(row.ravel()) for row in grey}) == 3, "each clip has its own"
    tokens = jnp.asarray(rng.normal(size=(3, 4, 500)), jnp.float32)
    np.testing.assert_array_equal(strong_view(tokens, key=key, strength=0.0), tokens)
    strong = np.asarray(strong_view(tokens, key=key, strength=0.5))
    dropped = (strong == 0).all(axis=1)
    assert dropped.mean() == pytest.approx(0.3, abs=0.05)
    kept = np.broadcast_to(~dropped[:, None], strong.shape)
    noise = strong[kept] * 0.7 - np.asarray(tokens)[kept]
    assert noise.std() == pytest.approx(0.5, rel=0.1) and abs(noise.mean()) < 0.03


def test_batches_have_labels_for_some_and_the_loss_has_both_terms(opened):
    task = opened(*FEW)
    train, batches = task.splits.train, task.batches(0)
    assert train.known.sum() == pytest.approx(0.3 * 37, abs=2) and len(train) == 37, "the clip of a rare class, too"
    seen = [next(batches) for _ in range(12)]
    labelled = np.concatenate([batch["label"] >= 0 for batch in seen])
    assert all(batch["valid"].all() for batch in seen) and labelled.mean() == pytest.approx(1 / 4, abs=0.06)
    for batch in seen:
        right = train.known[batch["clip_index"]]
        np.testing.assert_array_equal(batch["label"] >= 0, right)
    model, batch = (
        task.objective.init(nnx.Rngs(0)),
        {k: jnp.asarray(v) for k, v in seen[0].items() if k != "clip_index"},
    )
    model.head.scores.bias.set_value(jnp.asarray([4.0, 0.0, 0.0]))  # sure of the first class, whatever it sees
    total, found = task.objective.loss(model, batch, rngs=nnx.Rngs(0))
    assert float(found["pseudo_share"]) == 1.0 and float(found["pseudo"]) == pytest.approx(
        np.log(1 + 2 * np.exp(-4)), rel=1e-4
    )
    alone, _ = opened("task.labelled=0.3", "task.dropout=0.0", "task.heads=2").objective.loss(
        model, {**batch, "valid": batch["label"] >= 0}, rngs=nnx.Rngs(0)
    )
    assert float(total) == pytest.approx(float(alone) + 2 * float(found["pseudo"]), rel=1e-5)


def test_clips_without_a_label_are_of_the_share_and_not_of_measured_files(opened):
    task = opened(*FEW, "data.share=0.5")
    assert len(task.splits.train) == round(0.5 * 37) and (task.splits.train.label >= 0).sum() == round(0.5 * 37)
    rows = SimpleNamespace(column={"file": np.array([7, 7, 8, 0, 0]), "group": np.array([0, 3, 3, 0, 0])}.get)
    found = apart(rows, taken=np.array([False, True, False, True, False]))
    np.testing.assert_array_equal(found, [True, True, True, True, False])


@pytest.mark.parametrize(
    ("overrides", "wanted"),
    [
        (["task.labelled=0.0"], r"config\.task\.labelled must be above 0 and at most 1, got 0\.0"),
        (["task.labelled=0.02"], r"labelled=0\.02 leaves no labelled clip of "),
        (["task.pseudo_weight=-1.0"], r"pseudo_weight=-1\.0 must be at least 0"),
        (["task.pseudo_threshold=1.5"], r"pseudo_threshold must be above 0 and at most 1"),
        (["task.pseudo_weight=1.0", "task.mixup=0.2"], r"mixup=0\.2 does not go with few labels"),
        (["task.labelled=0.5", "task.psuedo_weight=1.0"], r"'psuedo_weight'; did you mean 'pseudo_weight'"),
    ],
)
def test_mistakes_are_named(opened, overrides, wanted):
    with pytest.raises(UserError, match=wanted):
        opened("task.heads=2", *overrides)
