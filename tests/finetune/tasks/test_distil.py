"""Classification with a teacher: its terms against a loop in float64, what is trained, and mistakes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from colour_clips import config_of
from flax import nnx
from tower_loops import drawn

import twinreel
from twinreel.base.errors import UserError
from twinreel.finetune.commands.finetune import open_task
from twinreel.zoo.build import build

OPEN = ["task.train_towers=True", "task.heads=2", "task.dropout=0.0"]


@pytest.fixture(scope="module")
def opened(colours):
    """A function (overrides) -> task, whose teacher is the pretrained dual tower."""

    def opened(*overrides):
        config = config_of(
            colours,
            "task.name=distil",
            f"task.teacher={colours / 'pretrained'}",
            *overrides,
            name="demo_classify:linear",
        )
        where = {"init": colours / "pretrained", "workdir": colours / "none", "say": lambda what: None}
        return open_task(config.to_dict(), **where)[3]

    return opened


def test_terms_are_those_of_a_loop_and_batches_have_the_teachers_embeddings(opened, colours):
    task = opened(*OPEN, "task.similarity=0.5", "task.label_weight=0.25", "task.temperature=0.2")
    batch = next(task.batches(0))
    wanted = twinreel.load(colours / "pretrained").encode_video_arrays(batch["video"])
    np.testing.assert_allclose(batch["teacher_video"], wanted, atol=1e-4)
    assert set(task.objective.trained) >= {"teacher/out/kernel", "head/scores/kernel", "video/embed/out/kernel"}
    model = drawn(lambda: task.objective.init(nnx.Rngs(0)))
    given = {key: jnp.asarray(x) for key, x in batch.items() if key != "clip_index"} | {"valid": jnp.arange(8) < 6}
    graph, state = nnx.split(model)

    @jax.jit
    def measured(state):
        whole = nnx.merge(graph, state)
        return whole.tokens(given["video"]), task.objective.loss(whole, given, rngs=None)

    tokens, (total, terms) = measured(state)
    pooled = np.asarray(tokens, np.float64).mean(axis=1)
    teacher = np.asarray(batch["teacher_video"], np.float64)
    kernel, bias = (np.asarray(getattr(model.teacher.out, name)[...], np.float64) for name in ("kernel", "bias"))
    mapped = (pooled @ kernel + bias)[:6]
    unit = mapped / np.linalg.norm(mapped, axis=1, keepdims=True)
    embedding = np.mean([1 - x @ y for x, y in zip(unit, teacher, strict=False)])
    rows = []
    for i in range(6):
        others = [j for j in range(6) if j != i]
        p, q = (np.exp([x[i] @ x[j] / 0.2 for j in others]) for x in (teacher, unit))
        p, q = p / p.sum(), q / q.sum()
        rows.append(np.sum(p * np.log(p / q)))
    assert float(terms["embedding"]) == pytest.approx(embedding, rel=1e-4)
    assert float(terms["similarity"]) == pytest.approx(np.mean(rows), rel=1e-3)
    wanted = 0.25 * float(terms["labels"]) + float(terms["embedding"]) + 0.5 * float(terms["similarity"])
    assert float(total) == pytest.approx(wanted, rel=1e-5)


def test_without_embeddings_nothing_maps_to_the_teachers_space(opened):
    task = opened(*OPEN, "task.embedding=0.0")
    spec = task.objective.spec
    assert "teacher" not in spec.heads["classify"] and not [p for p in task.objective.trained if "teacher" in p]
    assert nnx.eval_shape(lambda: build(spec, rngs=nnx.Rngs(0))).teacher is None
    assert task.settled()["teacher_sha256"] == opened(*OPEN).settled()["teacher_sha256"]


@pytest.mark.parametrize(
    ("overrides", "wanted"),
    [
        (["task.train_towers=False"], r"'distil' teaches the tower, and none of its parameters is trained"),
        (["task.teacher=nowhere"], r"config\.task\.teacher='nowhere': "),
        (["task.teacher=''"], r"config\.task\.teacher must name a dual tower"),
        (["task.mixup=0.3"], r"for kind='single' and whole clips, got .* mixup=0\.3"),
        (["task.distance=cosin"], r"did you mean 'cosine'"),
        (["task.embedding=0.0", "task.similarity=0.0"], r"one of the last two above"),
        (["task.temperature=0.0"], r"temperature above 0; got .* and 0"),
    ],
)
def test_mistakes_are_named(opened, overrides, wanted):
    with pytest.raises(UserError, match=wanted):
        opened(*OPEN, *overrides)
