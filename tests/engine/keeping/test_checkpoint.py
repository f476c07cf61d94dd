import dataclasses
import functools
import os
import shutil

import jax
import numpy as np
import pytest
from engine_toy import ToyObjective
from flax import nnx

from twinreel.base.errors import UserError
from twinreel.engine.keeping import checkpoint
from twinreel.engine.keeping.checkpoint import read_meta, read_params, resolve, restore_model
from twinreel.engine.keeping.checkpoints import Checkpoints
from twinreel.engine.keeping.snapshot import to_host
from twinreel.engine.optimizer.optimizer import make_optimizer
from twinreel.engine.sharding.mesh import make_mesh
from twinreel.engine.sharding.rules import make_rules
from twinreel.engine.step.state import StateBuilder, split_model

META = {"objective": "toy", "tokenizer": {"kind": "none"}}


def plan(*, width=8, name="adamw", mesh=None, rules=None, trainable=()):
    optimizer = make_optimizer(steps=10, lr=0.1, name=name)
    options = {} if rules is None else {"rules": rules}
    objective = ToyObjective(width=width, trainable=trainable)
    return StateBuilder(objective=objective, optimizer=optimizer, mesh=mesh or make_mesh(), seed=0, **options)


def at(state, step):
    """The state with its step set and its parameters moved by it."""
    moved = {path: value + step for path, value in state.params.items()}
    return dataclasses.replace(state, step=state.step * 0 + step, params=moved)


def save(folder, *, steps, scores=None, builder=None, **options):
    builder = builder or plan()
    state = builder.init()
    with Checkpoints(folder, abstract=builder.abstract, **options) as checkpoints:
        for step in steps:
            score = (scores or {}).get(step)
            checkpoints.save(at(state, step), step=step, meta=META, score=score)
    return builder, state


def damage(step_folder, *, how):
    files = sorted(path for path in (step_folder / "state").rglob("*") if path.is_file() and "/d/" in str(path))
    if how == "no meta":
        shutil.rmtree(step_folder / "meta")
    elif how == "no state":
        shutil.rmtree(step_folder / "state")
    elif how == "empty meta":
        (step_folder / "meta" / "metadata").write_text("")
    elif how == "data gone":
        for path in files:
            path.unlink()
    elif how == "truncated":
        for path in files:
            os.truncate(path, path.stat().st_size // 2)
    elif how == "flipped":
        for path in files:
            path.write_bytes(bytes(byte ^ 0xFF for byte in path.read_bytes()))


DAMAGES = ["no meta", "no state", "empty meta", "data gone", "truncated", "flipped"]


def test_round_trip(tmp_path):
    builder, state = save(tmp_path / "checkpoints", steps=[3])
    with Checkpoints(tmp_path / "checkpoints", abstract=builder.abstract) as checkpoints:
        restored, meta = checkpoints.restore()
    assert meta["objective"] == "toy"
    assert meta["step"] == int(restored.step) == 3
    wanted = at(state, 3)
    for got, want in zip(jax.tree.leaves(restored), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_array_equal(got, want)
        assert got.sharding.is_equivalent_to(want.sharding, got.ndim)


def test_nothing_to_restore(tmp_path):
    with Checkpoints(tmp_path / "checkpoints", abstract=plan().abstract) as checkpoints:
        assert checkpoints.restore() is None


def test_restore_on_another_mesh(tmp_path):
    _, state = save(tmp_path / "c", steps=[1])
    other = plan(
        mesh=make_mesh(replica=2, fsdp=4), rules=make_rules(rules=[["inner/kernel", [None, "fsdp"]], [".*", []]])
    )
    with Checkpoints(tmp_path / "c", abstract=other.abstract) as checkpoints:
        restored, _ = checkpoints.restore()
    assert restored.params["inner/kernel"].addressable_shards[0].data.shape == (6, 2)
    np.testing.assert_array_equal(restored.params["inner/kernel"], at(state, 1).params["inner/kernel"])


def test_newest_and_best_stay(tmp_path):
    scores = {1: 0.1, 2: 0.9, 3: 0.3, 4: 0.2}
    save(tmp_path / "max", steps=[1, 2, 3, 4, 5, 6], scores=scores, keep_last=2, keep_best=1)
    assert checkpoint.steps_in(tmp_path / "max") == [2, 5, 6]
    save(tmp_path / "min", steps=[1, 2, 3, 4, 5, 6], scores=scores, keep_last=1, keep_best=2, best_mode="min")
    assert checkpoint.steps_in(tmp_path / "min") == [1, 4, 6]


def test_the_best_is_remembered_over_a_restart(tmp_path):
    builder, state = save(tmp_path, steps=[1, 2, 3], scores={1: 0.9, 3: 0.5}, keep_last=1)
    with Checkpoints(tmp_path, abstract=builder.abstract, keep_last=1) as checkpoints:
        checkpoints.restore()
        checkpoints.save(at(state, 4), step=4, meta=META, score=0.7)
    assert checkpoint.steps_in(tmp_path) == [1, 4]
    with Checkpoints(tmp_path, abstract=builder.abstract, keep_last=1, best_metric="another") as checkpoints:
        checkpoints.restore()
        checkpoints.save(at(state, 5), step=5, meta=META, score=0.1)
        checkpoints.save(at(state, 6), step=6, meta=META)
    assert checkpoint.steps_in(tmp_path) == [5, 6]


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_used(tmp_path, how, caplog):
    builder, state = save(tmp_path / "checkpoints", steps=[1, 2])
    damage(tmp_path / "checkpoints" / "2", how=how)
    assert resolve(tmp_path).name == "1"
    assert f"{tmp_path}/checkpoints/2 is unreadable" in caplog.text
    warnings = []
    with Checkpoints(tmp_path / "checkpoints", abstract=builder.abstract, warn=warnings.append) as checkpoints:
        restored, _ = checkpoints.restore()
        assert int(restored.step) == 1
        checkpoints.save(at(state, 2), step=2, meta=META)  # its number can be used again
    assert f"{tmp_path}/checkpoints/2 is unreadable" in warnings[0]
    assert "unreadable-2" in warnings[1]
    assert resolve(tmp_path).name == "2"
    assert (tmp_path / "checkpoints" / "unreadable-2").is_dir()


def test_none_readable(tmp_path):
    builder, _ = save(tmp_path, steps=[1, 2])
    for step in ("1", "2"):
        damage(tmp_path / step, how="truncated")
    with (
        Checkpoints(tmp_path, abstract=builder.abstract, warn=lambda text: None) as checkpoints,
        pytest.raises(UserError, match=r"none of the 2 checkpoints .* is readable; to start again from step 0"),
    ):
        checkpoints.restore()
    with pytest.raises(UserError, match="no readable checkpoint in"):
        resolve(tmp_path)
    with pytest.raises(UserError, match="/2 is unreadable"):
        read_params(tmp_path / "2")


def test_a_half_written_one_is_named_and_removed(tmp_path):
    builder, _ = save(tmp_path, steps=[1])
    shutil.copytree(tmp_path / "1", tmp_path / "2.orbax-checkpoint-tmp")
    assert resolve(tmp_path).name == "1"
    warnings = []
    with Checkpoints(tmp_path, abstract=builder.abstract, warn=warnings.append) as checkpoints:
        restored, _ = checkpoints.restore()
    assert int(restored.step) == 1
    assert "2.orbax-checkpoint-tmp is half-written" in warnings[0]
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_resolve_takes_a_workdir_a_folder_and_a_step(tmp_path):
    save(tmp_path / "7" / "checkpoints", steps=[5, 10])  # a workdir may be called by a number
    wanted = tmp_path / "7" / "checkpoints" / "10"
    assert resolve(tmp_path / "7") == resolve(tmp_path / "7" / "checkpoints") == resolve(wanted) == wanted
    assert read_meta(tmp_path / "7")["step"] == 10
    assert read_meta(wanted.parent / "5")["step"] == 5
    with pytest.raises(UserError, match="no such folder"):
        resolve(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no readable checkpoint in"):
        resolve(tmp_path / "empty")


def test_a_checkpoint_is_known_by_what_it_holds_and_not_by_its_name(tmp_path):
    save(tmp_path / "run" / "checkpoints", steps=[5, 6])
    wanted = read_params(tmp_path / "run" / "checkpoints" / "6")
    models = tmp_path / "models.v2"
    for name in ("my best", "step-6.final", "checkpoints"):
        place = models / name
        shutil.copytree(tmp_path / "run" / "checkpoints" / "6", place)
        assert resolve(place) == place
        assert read_meta(place)["step"] == 6
        np.testing.assert_array_equal(read_params(place)["inner/kernel"], wanted["inner/kernel"])
        assert resolve(models) == place  # the only one there
        model = ToyObjective().init(nnx.Rngs(99))
        restore_model(place, model=model)
        np.testing.assert_array_equal(model.inner.kernel[...], wanted["inner/kernel"])
        shutil.rmtree(place)
    for name in ("a", "b"):
        shutil.copytree(tmp_path / "run" / "checkpoints" / "6", models / name)
    with pytest.raises(UserError, match=r"models\.v2 holds several checkpoints \(a, b\); give the one"):
        resolve(models)
    damage(models / "a", how="truncated")
    with pytest.raises(UserError, match="/a is unreadable"):
        read_params(models / "a")


def test_a_run_does_not_begin_anew_beside_checkpoints_that_were_renamed(tmp_path):
    builder, _ = save(tmp_path, steps=[6])
    (tmp_path / "6").rename(tmp_path / "good")
    with (
        Checkpoints(tmp_path, abstract=builder.abstract) as checkpoints,
        pytest.raises(UserError, match=r"no numbered checkpoint, but good; .*\(good -> 6\)"),
    ):
        checkpoints.restore()


def test_going_back_to_an_older_step_sets_the_later_ones_aside(tmp_path):
    builder, state = save(tmp_path, steps=[1, 2, 3], scores={1: 0.1, 3: 0.9}, keep_last=3)
    said = []
    with Checkpoints(tmp_path, abstract=builder.abstract, keep_last=3, warn=said.append) as checkpoints:
        with pytest.raises(UserError, match=r"--resume_step 4: .* no checkpoint of that step; it has 1, 2, 3"):
            checkpoints.restore(step=4)
        restored, meta = checkpoints.restore(step=2)
        assert int(restored.step) == meta["step"] == 2
        np.testing.assert_array_equal(restored.params["inner/kernel"], at(state, 2).params["inner/kernel"])
        assert checkpoint.steps_in(tmp_path) == [1, 2]
        assert said == [f"{tmp_path}/3 was renamed to dropped-3"]
        checkpoints.save(at(state, 3), step=3, meta=META)
    assert read_meta(tmp_path)["scores"]["values"] == {"1": 0.1}  # that of the dropped one counts no longer
    assert read_meta(tmp_path / "dropped-3")["step"] == 3
    assert resolve(tmp_path).name == "3"
    damage(tmp_path / "1", how="truncated")
    with (
        Checkpoints(tmp_path, abstract=builder.abstract, warn=said.append) as checkpoints,
        pytest.raises(UserError, match=r"--resume_step 1: that checkpoint in .* is not readable"),
    ):
        checkpoints.restore(step=1)
    assert checkpoint.steps_in(tmp_path) == [1, 2, 3]


def test_restore_model_and_read_params(tmp_path):
    builder = plan(trainable=("^head/",))
    _, state = save(tmp_path, steps=[1], builder=builder)
    wanted = at(state, 1).params | state.others
    model = ToyObjective().init(nnx.Rngs(99))
    restore_model(tmp_path, model=model)
    got = split_model(model)
    params = read_params(tmp_path)
    assert set(params) == set(wanted) == set(got)
    for path, value in wanted.items():
        np.testing.assert_array_equal(got[path], value)
        np.testing.assert_array_equal(params[path], value)
        assert isinstance(params[path], np.ndarray)


def test_another_architecture_gives_a_table(tmp_path):
    save(tmp_path, steps=[1])
    with pytest.raises(UserError) as caught:
        restore_model(tmp_path, model=ToyObjective(width=4).init(nnx.Rngs(0)))
    lines = [" ".join(line.split()) for line in str(caught.value).splitlines()]
    assert "parameter in checkpoint in model" in lines
    assert "inner/kernel float32[6,8] float32[6,4]" in lines
    assert "head/bias" not in str(caught.value)

    class Deeper(ToyObjective):
        def init(self, rngs):
            model = super().init(rngs)
            model.extra = nnx.Linear(2, 2, rngs=rngs)
            del model.log_scale
            return model

    with pytest.raises(UserError) as caught:
        restore_model(tmp_path, model=Deeper().init(nnx.Rngs(0)))
    lines = [" ".join(line.split()) for line in str(caught.value).splitlines()]
    assert "extra/bias (absent) float32[2]" in lines
    assert "log_scale float32[] (absent)" in lines


@pytest.mark.parametrize(("other", "row"), [({"width": 4}, "params/inner/bias"), ({"name": "sgd"}, "opt_state/")])
def test_resuming_another_model_or_optimizer_is_refused(tmp_path, other, row):
    save(tmp_path, steps=[1, 2])
    with (
        Checkpoints(tmp_path, abstract=plan(**other).abstract) as checkpoints,
        pytest.raises(UserError, match=f"does not fit(.|\n)*{row}"),
    ):
        checkpoints.restore()


def test_a_full_disk_is_seen_before_writing(tmp_path, monkeypatch):
    builder, state = save(tmp_path, steps=[1])
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
    with (
        Checkpoints(tmp_path, abstract=builder.abstract) as checkpoints,
        pytest.raises(UserError, match=r"No space left.*\n.*newest whole checkpoint is .*/1"),
    ):
        checkpoints.save(at(state, 2), step=2, meta=META)
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_donating_a_state_while_it_is_saved(tmp_path):
    """What is saved is the state at the call, whatever becomes of its buffers afterwards."""
    builder = plan(width=20_000)
    spoil = jax.jit(lambda state: jax.tree.map(lambda x: x * 0 - 1, state), donate_argnums=0)
    state = at(builder.init(), 1)
    wanted = jax.tree.map(np.array, state.params)
    with Checkpoints(tmp_path, abstract=builder.abstract) as checkpoints:
        checkpoints.save(state, step=1, meta=META)
        for _ in range(3):
            state = spoil(state)
    for path, value in read_params(tmp_path).items():
        np.testing.assert_array_equal(value, wanted[path])


@pytest.mark.parametrize("spread", [False, True])
def test_a_copy_in_host_memory_is_that_of_the_moment(spread):
    """Donate what is being copied, while the device is still busy making it."""
    builder = plan(
        mesh=make_mesh(replica=2, fsdp=4), rules=make_rules(rules=[["inner/kernel", [None, "fsdp"]], [".*", []]])
    )
    work = jax.random.normal(jax.random.key(0), (400, 400))

    @functools.partial(jax.jit, donate_argnums=0, out_shardings=builder.shardings.params)
    def busy(params, by):
        waste = jax.lax.fori_loop(0, 30, lambda _, y: jax.numpy.tanh(y @ work), work).mean() * 0.0
        return jax.tree.map(lambda x: x + by + waste, params)

    params = builder.init().params
    wanted = {path: np.asarray(value) + np.float32(1) for path, value in params.items()}
    params = busy(params, np.float32(1))
    copy = to_host(params, spread=spread)
    busy(params, np.float32(100))
    for path, value in copy.items():
        assert value.sharding.memory_kind == "pinned_host"
        np.testing.assert_array_equal(value, wanted[path])
    parts = copy["inner/kernel"].addressable_shards[0].data.shape
    assert parts == ((3, 2) if spread else (6, 2))  # 6 x 8: the columns over fsdp, and then the rows over replica


def test_a_frozen_state_is_not_saved(tmp_path):
    builder = plan()
    with Checkpoints(tmp_path / "c", abstract=builder.abstract) as checkpoints:
        checkpoints.save(at(builder.init(), 3), step=4, meta=META)
        checkpoints.wait()
        assert checkpoints.steps() == []
        checkpoints.save(at(builder.init(), 3), step=3, meta=META)
    assert checkpoint.steps_in(tmp_path / "c") == [3]


def test_meta_may_be_amended(tmp_path):
    builder, _ = save(tmp_path / "c", steps=[2])
    with Checkpoints(tmp_path / "c", abstract=builder.abstract, best_metric="x") as checkpoints:
        checkpoints.amend(step=2, meta=META | {"evaluations": 1}, score=0.5)
    meta = read_meta(tmp_path / "c")
    assert (meta["evaluations"], meta["step"], meta["scores"]) == (1, 2, {"metric": "x", "values": {"2": 0.5}})
