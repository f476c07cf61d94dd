import itertools
import json
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from engine_toy import ToyObjective, batches, config
from files import lines

from twinreel.base.errors import UserError
from twinreel.engine.keeping.checkpoint import read_meta, read_params, resolve, steps_in
from twinreel.engine.loop.evaluation import Evaluation
from twinreel.engine.loop.train import train
from twinreel.engine.loop.workdir import load_config_of
from twinreel.engine.step.state import split_model


def go(workdir, *, objective=None, source=batches, cfg=None, evaluate=None, **options):
    return train(
        objective=objective or ToyObjective(),
        batches=source,
        workdir=workdir,
        config=cfg or config(),
        meta={"objective": "toy", "tokenizer": {"kind": "none"}},
        evaluations=[Evaluation(name="val", run=evaluate)] if evaluate else [],
        **options,
    )


def same(a, b):
    assert set(a) == set(b)
    for path, value in a.items():
        np.testing.assert_array_equal(b[path], value)


def test_a_run_from_start_to_end(tmp_path, capsys):
    result = go(tmp_path, evaluate=lambda model, step: {"size": float(model.log_scale[...])})
    assert (result.step, result.reason, result.best) == (12, "done", None)
    same(split_model(result.model), read_params(tmp_path))
    assert steps_in(tmp_path / "checkpoints") == [8, 12]
    train_lines = lines(tmp_path, "train")
    assert [line["step"] for line in train_lines] == [2, 4, 6, 8, 10, 12]
    names = {"loss", "grad_norm", "lr", "scale", "clips_per_s", "step_time_s", "data_wait", "memory_gb"}
    for line in train_lines:
        assert set(line) == names | {"step", "kind"}
        assert all(np.isfinite(line[name]) for name in names)
        assert 0 <= line["data_wait"] <= 1
        np.testing.assert_allclose(line["clips_per_s"] * line["step_time_s"], 8, rtol=1e-6)
    assert train_lines[-1]["loss"] < train_lines[0]["loss"]
    assert [line["step"] for line in lines(tmp_path, "eval")] == [12]
    meta = read_meta(tmp_path)
    assert meta["config"] == json.loads((tmp_path / "config.json").read_text())
    assert (meta["step"], meta["seed"], meta["tokenizer"]) == (12, 0, {"kind": "none"})
    assert {"jax", "flax", "orbax-checkpoint", "python"} <= set(meta["versions"])
    shown = capsys.readouterr().err
    assert "step 12/12  loss" in shown
    assert "eval at step 12" in shown


class CutError(RuntimeError):
    """What a test's input raises to end a run in the middle."""


def cut_at(step):
    """Batches that end with CutError before batch `step`."""

    def source(start):
        yield from itertools.islice(batches(start), step - start)
        raise CutError

    return source


def test_k_and_k_steps_are_2k_steps(tmp_path):
    go(tmp_path / "whole")
    cfg = config(train__checkpoint_every=6)
    with pytest.raises(CutError):
        go(tmp_path / "halves", source=cut_at(7), cfg=cfg)
    taken = []

    def source(start):
        taken.append(start)
        return batches(start)

    go(tmp_path / "halves", source=source, cfg=cfg)
    assert taken == [6]
    same(read_params(tmp_path / "whole"), read_params(tmp_path / "halves"))
    a, b = lines(tmp_path / "whole", "train"), lines(tmp_path / "halves", "train")
    assert [(x["step"], x["loss"], x["lr"]) for x in a] == [(x["step"], x["loss"], x["lr"]) for x in b]


def test_a_finished_run_does_nothing_more(tmp_path):
    first = go(tmp_path)
    before = (tmp_path / "metrics.jsonl").read_text()

    def untouchable(start):
        raise AssertionError("the input was asked for")

    again = go(tmp_path, source=untouchable)
    assert (again.step, again.reason) == (12, "done")
    same(split_model(first.model), split_model(again.model))
    assert (tmp_path / "metrics.jsonl").read_text() == before


def test_more_steps_go_on_and_say_so(tmp_path, capsys):
    go(tmp_path, cfg=config(train__steps=4))
    capsys.readouterr()
    result = go(tmp_path, cfg=config(train__steps=6))
    assert result.step == 6
    assert "train.steps: 4 -> 6" in capsys.readouterr().err
    assert load_config_of(tmp_path).train.steps == 6


def test_a_workdir_of_another_config(tmp_path):
    go(tmp_path, cfg=config(train__steps=4))
    with pytest.raises(UserError, match=r"belongs to another config(.|\n)*train\.best_mode: '\(absent\)' -> 'min'"):
        go(tmp_path, cfg=config(train__steps=4, train__best_mode="min"))
    result = go(tmp_path, cfg=config(train__steps=6, train__best_mode="min"), overwrite_config=True)
    assert result.step == 6
    assert load_config_of(tmp_path).train.best_mode == "min"


def test_a_start_that_fails_leaves_the_workdir_free(tmp_path):
    with pytest.raises(UserError, match="matches no parameter"):
        go(tmp_path, objective=ToyObjective(trainable=("nothing",)), cfg=config(optimizer__lr=7.0))
    go(tmp_path, cfg=config(train__steps=2))


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    go(tmp_path, cfg=config(train__steps=4))
    with pytest.raises(UserError, match=r"does not fit(.|\n)*params/head/kernel +float32\[8,1\] +float32\[4,1\]"):
        go(tmp_path, objective=ToyObjective(width=4), cfg=config(train__steps=6))


def test_batches_that_teach_nothing_are_worth_a_warning(tmp_path, capsys):
    class Constant(ToyObjective):
        """A loss that no parameter changes, as of a contrastive loss without two rows to compare."""

        def loss(self, model, batch, *, rngs):
            return 0.0 * super().loss(model, batch, rngs=rngs)[0], {}

    go(tmp_path / "constant", objective=Constant())
    assert capsys.readouterr().err.count("warning: the gradient of step 2 is exactly 0") == 1
    go(tmp_path / "plain")
    assert "exactly 0" not in capsys.readouterr().err


def test_best_is_kept_and_patience_stops(tmp_path):
    scores = {2: 0.1, 4: 0.9, 6: 0.5, 8: 0.4, 10: 1.0}
    cfg = config(
        train__eval_every=2,
        train__best_metric="val/score",
        train__patience=2,
        train__keep_last=1,
        train__checkpoint_every=3,
    )
    seen = {}

    def evaluate(model, step):
        seen[step] = split_model(model)["head/kernel"] + 0
        return {"score": scores[step]}

    result = go(tmp_path, cfg=cfg, evaluate=evaluate)
    assert (result.reason, result.step) == ("patience", 8)
    assert steps_in(tmp_path / "checkpoints") == [4, 8]
    path = str(tmp_path / "checkpoints" / "4")
    assert result.best == {"metric": "val/score", "value": 0.9, "step": 4, "checkpoint": path}
    np.testing.assert_array_equal(read_params(path)["head/kernel"], seen[4])
    again = go(tmp_path, cfg=cfg, evaluate=evaluate)
    assert (again.reason, again.step, again.best) == ("patience", 8, result.best)
    assert [line["step"] for line in lines(tmp_path, "eval")] == [2, 4, 6, 8]


def test_initialize_is_for_fresh_runs_only(tmp_path):
    calls = []

    def fill(model):
        calls.append(1)
        model.head.bias.set_value(np.full(1, 5.0, np.float32))

    objective = ToyObjective(trainable=("inner",))
    go(tmp_path, objective=objective, cfg=config(train__steps=2), initialize=fill)
    result = go(tmp_path, objective=objective, cfg=config(train__steps=4), initialize=fill)
    assert calls == [1]
    np.testing.assert_array_equal(result.model.head.bias[...], [5.0])


def test_errors_of_the_input_keep_their_type_and_leave_a_checkpoint(tmp_path):
    with pytest.raises(CutError):
        go(tmp_path, source=cut_at(6))
    assert resolve(tmp_path).name == "4"
    assert "twinreel-prefetch" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train__log_evry": 3}, "log_evry'; did you mean 'log_every'"),
        ({"optimizer__weight_dcay": 3}, "did you mean 'weight_decay'"),
        ({"mesh__fsdpp": 3}, "did you mean 'fsdp'"),
        ({"data": {"batch_size": 12}}, "batch_size=12 must divide by the 8 devices"),
        ({"train__best_metric": "val/x"}, r"config.train.best_metric\) 'val/x'.*known: val/score"),
    ],
)
def test_mistakes_in_the_config_are_named(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        go(tmp_path, cfg=config(**changes), evaluate=lambda model, step: {"score": 1.0})


def test_times_of_a_run_that_waits_for_its_input(tmp_path):
    def slow(start):
        for batch in batches(start):
            time.sleep(0.05)
            yield batch

    cfg = config(train__steps=12, train__log_every=4, train__checkpoint_every=100)
    go(tmp_path, source=slow, cfg=cfg)
    for line in lines(tmp_path, "train")[1:]:
        assert (
            line["step_time_s"] > 0.02
        )  # four batches: two or three were there after the save, the others came slowly
        assert line["data_wait"] > 0.2


def test_profile_writes_a_trace(tmp_path):
    go(tmp_path, cfg=config(train__steps=4, train__profile_steps="1:3"))
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))


def test_no_tensorflow_is_imported():
    code = "import sys, twinreel.engine.loop.train, twinreel.cost.step; print('tensorflow' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_averages_are_evaluated_returned_saved_and_resumed(tmp_path):
    cfg = config(train__checkpoint_every=6, optimizer__ema_decay=0.5)
    seen = {}

    def evaluate(model, step):
        seen[step] = split_model(model)
        return {"size": 0.0}

    result = go(tmp_path / "whole", cfg=cfg, evaluate=evaluate)
    averaged = split_model(result.model)
    same(averaged, seen[12])
    same(averaged, read_params(tmp_path / "whole"))
    same(averaged, read_params(tmp_path / "whole" / "checkpoints" / "12"))
    plain = split_model(go(tmp_path / "plain", cfg=config(train__checkpoint_every=6)).model)
    assert not np.array_equal(plain["inner/kernel"], averaged["inner/kernel"])  # and it trains as without

    def cut(start):
        for i, batch in enumerate(batches(start)):
            if i + start == 8:
                raise RuntimeError("power cut")
            yield batch

    with pytest.raises(RuntimeError, match="power cut"):
        go(tmp_path / "broken", cfg=cfg, source=cut)
    same(averaged, split_model(go(tmp_path / "broken", cfg=cfg).model))


def test_the_plan_of_memory_is_printed_where_parameters_are_split(tmp_path, capsys):
    rules = (("inner/kernel", (None, "fsdp")), (".*", ()))
    go(tmp_path, cfg=config(train__steps=2, mesh__fsdp=4, sharding={"rules": rules}))
    shown = capsys.readouterr().err
    assert "parameters on the mesh replica=2 x fsdp=4 x tensor=1" in shown
    assert "inner/kernel" in shown
