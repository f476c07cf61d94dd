"""Several tasks on one tower: from a bundle to reports and predictions, on the generated clips."""

import itertools
import json
import types

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from files import lines
from flax import nnx
from small_encoder import small_encoder
from tower_loops import drawn

import twinreel
from twinreel.base.config import load_config
from twinreel.base.errors import UserError
from twinreel.data.batches.records import Records
from twinreel.engine.keeping.checkpoint import read_params
from twinreel.engine.sharding.mesh import device_dtype
from twinreel.engine.step.state import join
from twinreel.finetune.commands import predict
from twinreel.finetune.commands.finetune import _transferred, finetune, main, open_task
from twinreel.finetune.commands.transfer import run_transfer
from twinreel.finetune.examples.clips import LabelledClips
from twinreel.finetune.figures.multitask import transfer_figures
from twinreel.finetune.inputs.shared import mixed_records
from twinreel.finetune.reports.multitask import write_multitask
from twinreel.models.heads.answers import AnswerModel
from twinreel.models.towers.vivit import VideoTower

SHORT = [
    *("data.batch_size=8", "data.num_frames=4", "train.steps=2", "train.log_every=1", "train.eval_every=2"),
    *("train.checkpoint_every=2", "optimizer.warmup_steps=1", "task.shared_heads=2", "task.tasks.moments.width=16"),
    *("task.tasks.moments.heads=2", "task.tasks.moments.depth=1", "task.tasks.moments.levels=1"),
    *("task.tasks.attributes.heads=2", "task.tasks.first_colour.heads=2", "task.tasks.first_colour.min_count=1"),
]
PAIR = ("task.only=('first_colour','attributes')", "task.tasks.first_colour.head=linear")
PAIR += ("task.tasks.attributes.head=linear",)
NAMES = ("attributes", "first_colour", "moments")


@pytest.fixture(scope="module")
def towers(tmp_path_factory):
    """A bundle of random towers."""
    folder = tmp_path_factory.mktemp("multitask")
    small_encoder().save(folder / "towers")
    return folder / "towers"


@pytest.fixture(scope="module")
def opened(towers, tiny_data):
    """A function (config, overrides) -> task."""

    def opened(name, *overrides):
        config = load_config(name, overrides=[f"data.dir={tiny_data}", *SHORT, *overrides])
        where = {"init": towers, "workdir": towers.parent / "none", "say": lambda what: None}
        return open_task(config.to_dict(), **where)[3]

    return opened


@pytest.fixture(scope="module")
def run(towers, tiny_data):
    """The workdir of a run of two tasks, weighed by GradNorm."""
    overrides = [f"data.dir={tiny_data}", *SHORT, *PAIR, "task.gradnorm_lr=1.0"]
    workdir = towers.parent / "run"
    finetune(load_config("demo_multitask:gradnorm", overrides=overrides), init=towers, workdir=workdir)
    return workdir


def test_each_task_has_its_report_and_all_a_common_one(run, tiny_data):
    whole = json.loads((run / "report" / "multitask.json").read_text())
    rows = Records(tiny_data).rows("test")
    for name in ("attributes", "first_colour"):
        own = json.loads((run / "report" / name / "classification.json").read_text())
        assert own["n"] == len(rows) and (run / "report" / name / "index.html").is_file()
        kind = "accuracy" if name == "first_colour" else "mAP"
        assert whole["tasks"][name]["metric"] == kind
        assert whole["tasks"][name]["value"] == pytest.approx(own[kind])
    page = (run / "report" / "index.html").read_text()
    assert 'href="attributes/index.html"' in page and "http" not in page
    assert whole["transfer"] == [] and len(list((run / "features").iterdir())) == 3, "one set for each split"
    assert whole["compute"]["tower_share"] == pytest.approx(0.5, rel=1e-6)


def test_gradnorm_moves_the_weights_and_keeps_them(run):
    kept, logged = read_params(run), lines(run, "train")
    assert kept["head/balance/weights"].sum() == pytest.approx(2.0, rel=1e-5)
    assert logged[0]["attributes/weight"] == 1.0
    assert np.all(np.abs(kept["head/balance/weights"] - 1) > 1e-4)
    first = [logged[0][f"{name}/loss"] for name in ("attributes", "first_colour")]
    np.testing.assert_allclose(kept["head/balance/first"], first, rtol=1e-5)
    for line in logged:
        total = sum(line[f"{name}/weight"] * line[f"{name}/loss"] for name in ("attributes", "first_colour"))
        assert line["loss"] == pytest.approx(total, rel=1e-4)


def test_files_get_the_output_of_each_task(run, tiny_data, capsys):
    clips = Records(tiny_data).rows("test")[:2]
    files = [str(tiny_data.parent / "videos" / clip["file"]) for clip in clips]
    capsys.readouterr()
    assert predict.main([str(run), *files, "--json", "--top_k", "0"]) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    order = [(file, name) for file in files for name in ("attributes", "first_colour")]
    assert [(one["path"], one["task"]) for one in printed] == order
    model = twinreel.load(run)
    alone = model.parts["attributes"].predict(files)  # decodes the files anew, and takes them through the tower
    for one, other in zip(printed[::2], alone, strict=True):
        assert {"task": "attributes", **other}.keys() == one.keys()
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-5)
    assert predict.main([str(run), *files]) == 0 and "first_colour" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"no task of .* takes --text"):
        predict.main([str(run), files[0], "--text", "red"])


def test_a_finished_run_is_reported_again_and_another_config_is_refused(run, towers, tiny_data):
    overrides = [f"data.dir={tiny_data}", *SHORT, *PAIR]
    config = load_config("demo_multitask", overrides=overrides)
    with pytest.raises(UserError, match="belongs to another config"):
        finetune(config, init=towers, workdir=run)


@pytest.fixture(scope="module")
def triple(opened):
    """All three tasks of trained towers."""
    return opened("demo_multitask", "task.train_towers=True")


def test_the_tower_sees_a_batch_of_three_tasks_once(triple, monkeypatch):
    calls, plain = [], VideoTower.features
    model, batch = nnx.eval_shape(lambda: triple.objective.init(nnx.Rngs(0))), next(triple.batches(0))
    monkeypatch.setattr(VideoTower, "features", lambda self, *a, **k: calls.append(1) or plain(self, *a, **k))
    graph, state = nnx.split(model)
    shapes = {key: jax.ShapeDtypeStruct(x.shape, device_dtype(x.dtype)) for key, x in batch.items()}
    loss = triple.objective.loss
    traced = jax.eval_shape(lambda s, b: loss(nnx.merge(graph, s), b, rngs=nnx.Rngs(0)), state, shapes)
    assert len(calls) == 1 and {f"{name}/loss" for name in NAMES} <= traced[1].keys()


@pytest.fixture(scope="module")
def pair(opened):
    """Two tasks of trained towers with two shared layers, their model with drawn parameters, and a batch."""
    task = opened("demo_multitask", *PAIR, "task.train_towers=True", "task.shared_depth=2")
    model = drawn(lambda: task.objective.init(nnx.Rngs(0)))
    batch = {key: jnp.asarray(x) for key, x in next(task.batches(0)).items() if x.dtype != np.int64}
    return task, model, batch


def test_rows_of_a_batch_have_each_tasks_targets(triple, tiny_data):
    task = triple
    rows, batch = Records(tiny_data).rows("train"), next(task.batches(3))
    names = {name: task._tasks[name].splits for name in ("attributes", "first_colour")}
    for i, clip in enumerate(batch["clip_index"].tolist()):
        row = rows[clip]
        assert names["first_colour"].labels[batch["first_colour/label"][i]] == row["labels"][0]
        there = {names["attributes"].names[k] for k in np.flatnonzero(batch["attributes/target"][i])}
        assert there == set(row["meta"]["attributes"]) & set(names["attributes"].names)
        found = (batch["moments/spans"][i, 0] * row["duration_s"]).tolist()
        assert any(found == pytest.approx([span["start_s"], span["end_s"]], abs=1e-4) for span in row["spans"])
    fourth = next(itertools.islice(task.batches(0), 3, None))  # as a run that begins at the start has it
    assert batch.keys() == fourth.keys() and all(np.array_equal(batch[key], fourth[key]) for key in batch)


def test_terms_and_gradient_norms_are_those_of_single_tasks(pair, opened, towers, tiny_data):
    """The loss of `classify` by itself, and its gradients by all parameters, of which those of the last layer count."""
    task, model, batch = pair
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    names = ("attributes", "first_colour")

    @jax.jit
    def measured(params):
        def terms(params):
            whole = nnx.merge(graph, params, rest)
            total, found = task.objective.loss(whole, batch, rngs=None)
            return jnp.stack([found[f"{name}/loss"] for name in names]), (
                total,
                whole.share(whole.tokens(batch["video"])),
            )

        return jax.jacrev(terms, has_aux=True)(params), terms(params)[0]

    (grads, (total, shared)), each = measured(params)
    assert float(total) == pytest.approx(float(each.sum()), rel=1e-6)
    own = ("data.batch_size=8", "data.num_frames=4", "task.min_count=1")
    config = load_config("demo_classify:linear", overrides=[f"data.dir={tiny_data}", *own])
    plain = open_task(config.to_dict(), init=towers, workdir=towers.parent / "none", say=lambda what: None)[3]
    classifier = model.view("first_colour", shared=False)
    given = {"tokens": shared, "valid": batch["valid"], "label": batch["first_colour/label"]}
    assert float(plain.objective.loss(classifier, given, rngs=None)[0]) == pytest.approx(float(each[1]), rel=1e-5)

    layer = [x.get_value() for path, x in nnx.to_flat_state(grads) if "shared/blocks/layers" in join(path)]
    wanted = [np.sqrt(sum(np.square(np.asarray(x[k, -1], np.float64)).sum() for x in layer)) for k in range(2)]
    balanced = opened("demo_multitask:gradnorm", *PAIR, "task.train_towers=True", "task.shared_depth=2").objective

    @jax.jit
    def sizes(params):
        whole = nnx.merge(graph, params, rest)
        tokens, pull = jax.vjp(lambda own: balanced._tokens(whole, batch, keys=None, layer=own), balanced._of(whole))
        return balanced._sizes(whole, batch, tokens=tokens, key=None, pull=pull)

    assert min(wanted) > 1e-3
    np.testing.assert_allclose(sizes(params), wanted, rtol=1e-4)


def test_all_tasks_train_the_shared_layers_on_a_frozen_tower(opened):
    task = opened("demo_multitask", *PAIR[1:])
    model = drawn(lambda: task.objective.init(nnx.Rngs(0)))
    batch = {key: jnp.asarray(x) for key, x in next(task.batches(0)).items() if x.dtype != np.int64}
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    @jax.jit
    def gradients(params):
        def terms(params):
            found = task.objective.loss(nnx.merge(graph, params, rest), batch, rngs=None)[1]
            return jnp.stack([found[f"{name}/loss"] for name in NAMES])

        flat = nnx.to_flat_state(jax.jacrev(terms)(params))
        shared = [x.get_value() for path, x in flat if join(path).startswith("head/shared/")]
        return sum(jnp.abs(x).reshape(len(NAMES), -1).sum(axis=1) for x in shared)

    assert np.all(np.asarray(gradients(params)) > 1e-3)
    asked = AnswerModel(video=None, text=None, head=None)
    seen = jax.grad(lambda x: asked.see(tokens=x, frozen=frozenset({"video"})).video.sum())
    assert float(seen(jnp.ones((1, 2, 3))).min()) == 1


def test_clips_are_mixed_by_share():
    """A task of few clips with the same share is seen as often as one of many; clips of both count for both."""

    def clips(*taken):
        return LabelledClips(split="train", labels=(), label=np.where(np.isin(np.arange(12), taken), 0, -1))

    many, few = clips(*range(9)), clips(8, 9, 11)
    times = np.bincount(mixed_records([many, few], shares=[1.0, 1.0]), minlength=12)
    np.testing.assert_array_equal(times, [1] * 8 + [4, 3, 0, 3])
    np.testing.assert_array_equal(mixed_records([many, many], shares=[0.3, 5.0]), np.arange(9))


@pytest.mark.parametrize(
    ("overrides", "wanted"),
    [
        (["task.tasks={}"], r"config\.task\.tasks is empty"),
        (["task.tasks.moments.name=anomaly"], r"tasks\.moments\.name: 'anomaly'"),
        (["task.tasks.first_colour.patch_grid=2"], r"tasks\.first_colour\.patch_grid: the tasks on one tower share"),
        (["task.tasks.moments.train_towers=True"], r"tasks\.moments\.train_towers is of all tasks together"),
        (["task.tasks.moments.weight=0"], r"tasks\.moments\.weight must be a number above 0, got 0"),
        (["task.tasks.moments.share=-1.0"], r"tasks\.moments\.share must be a number above 0"),
        (["task.tasks.moments.nms=1.5"], r"task 'moments' of config\.task\.tasks: config\.task\.nms"),
        (["task.only=('moment',)"], r"config\.task\.only: 'moment'.*did you mean 'moments'"),
        (["task.chosen_by=colour"], r"config\.task\.chosen_by: 'colour'.*did you mean 'first_colour'"),
        (["task.weighting=gradnrom"], r"did you mean 'gradnorm'"),
        (["task.weighting=gradnorm", "task.shared_depth=0", *PAIR], r"none is trained; set config\.task\.shared_"),
        (["task.shared_depth=-1"], r"shared_depth must be at least 0"),
        (["task.shared_dropout=1.0"], r"shared_dropout must be at least 0 and below 1"),
        (["task.tasks.first_colour.extends=True"], r"tasks\.first_colour\.extends=True continues the head"),
    ],
)  # fmt: skip
def test_mistakes_are_named(opened, overrides, wanted):
    with pytest.raises(UserError, match=wanted):
        opened("demo_multitask", *overrides)


def test_a_task_without_validation_clips_leaves_the_choice_to_the_others(opened):
    blind = ("task.tasks.first_colour.val_split=", "task.tasks.first_colour.holdout=0.0")
    task = opened("demo_multitask", *PAIR, *blind)
    assert task.metric == "val/mean" and task.validated_on == task._tasks["attributes"].validated_on != ""
    task._tasks["attributes"].evaluate = lambda model, step: {"mAP": 50.0}
    assert task.evaluate(types.SimpleNamespace(view=lambda name: name), 1) == {"attributes/mAP": 50.0, "mean": 50.0}
    assert opened("demo_multitask", *PAIR, *blind, "task.chosen_by=attributes").metric == "val/attributes/mAP"
    assert opened("demo_multitask", *PAIR, *blind, "task.chosen_by=first_colour").metric == ""


def test_transfer_runs_the_subsets_and_is_a_table(tmp_path):
    """With a stand-in for the runs."""
    values = {
        ("a",): [50.0],
        ("b",): [20.0],
        ("c",): [10.0],
        ("a", "b"): [51.5, 19],
        ("a", "c"): [1, 2],
        ("b", "c"): [3, 4],
    }
    task = {"name": "multitask", "tasks": {name: {} for name in "abc"}, "chosen_by": "a"}
    config, done = ml_collections.ConfigDict({"task": task}), []

    def stand_in(config, workdir):
        tasks = config.task.only
        assert config.task.chosen_by in tasks, "there may be no mean of the results of b and c"
        done.append(tasks)
        found = {name: {"value": value} for name, value in zip(tasks, values[tasks], strict=True)}
        (workdir / "report").mkdir(parents=True)
        (workdir / "report" / "multitask.json").write_text(json.dumps({"tasks": found}))
        return {}

    assert run_transfer(config, kind="pairs", workdir=tmp_path, run=stand_in, say=lambda line: None)
    assert done == list(values)
    own = {"a": 49.0, "b": 25.0, "c": 10.0}
    rows = transfer_figures(tmp_path / "transfer", own=own)
    assert [tuple(row["tasks"]) for row in rows] == [*values, ("a", "b", "c")] and rows[-1]["results"] == own
    tasks = {name: {"kind": "classify", "metric": "mAP", "value": value, "weight": 1.0} for name, value in own.items()}
    compute = {key: {"tower": 1e6, "step": 2e6} for key in ("together", "alone")} | {"tower_share": 1.0}
    figures = {"tasks": tasks, "transfer": rows, "compute": compute}
    page = write_multitask(figures, out=tmp_path / "report", protocol={"dataset": "clips"}).read_text()
    for cell in ("51.50 (+1.50)", "19.00 (-1.00)", "25.00 (+5.00)", "10.00 (+0.00)", ">50.00<"):
        assert cell in page
    assert not run_transfer(config, kind="alone", workdir=tmp_path / "x", run=lambda c, w: None, say=lambda line: None)


def test_transfer_holds_the_workdir(tmp_path, monkeypatch):
    """A stage of a URL is emptied by the first start that takes it: not by the run behind these."""
    held = []
    stand_in = lambda config, *, workdir, **_: held.append((workdir / "run.lock").is_file())  # noqa: E731
    monkeypatch.setattr("twinreel.finetune.commands.transfer.run_transfer", stand_in)
    _transferred("alone", config=load_config("demo_multitask"), workdir=tmp_path / "run", how={})
    assert held == [True]


def test_transfer_is_for_several_tasks(towers, tiny_data):
    flags = ["--init", str(towers), "--data", str(tiny_data), "--workdir", str(towers.parent / "no")]
    with pytest.raises(UserError, match=r"--transfer: 'pair'.*did you mean 'pairs'"):
        main(["--config", "demo_multitask", *flags, "--transfer", "pair"])
    with pytest.raises(UserError, match=r"--transfer=pairs compares runs of config\.task\.name='multitask'"):
        main(["--config", "demo_classify", *flags, "--transfer", "pairs"])
