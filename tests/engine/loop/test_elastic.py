"""A checkpoint of one mesh goes on upon any other: fewer devices, other axes, other sharding rules."""

import json

import contrastive_toy
import jax
import numpy as np
import pytest
from engine_toy import ToyObjective, batches, config
from flax import nnx

import twinreel.engine.loop.train as loop
from twinreel.engine.keeping.checkpoint import read_params, restore_model
from twinreel.engine.sharding.mesh import make_mesh

RULES = (("inner/kernel", ("tensor", "fsdp")), ("head/kernel", ("fsdp",)), (".*", ()))


def go(workdir, *, steps, monkeypatch, count=8, mesh, rules=RULES):
    """Train on the first `count` devices; returns {step: loss}."""
    cfg = config(train__steps=steps, train__log_every=1, mesh=mesh, sharding={"rules": rules})
    devices = jax.devices()[:count]
    monkeypatch.setattr(loop, "create_mesh", lambda config: make_mesh(**config.mesh, devices=devices))
    result = loop.train(objective=ToyObjective(), batches=batches, workdir=workdir, config=cfg, meta={})
    on = {device for leaf in jax.tree.leaves(nnx.state(result.model)) for device in leaf.devices()}
    assert on <= set(devices)
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if line["kind"] == "train"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The curve of an undisturbed run on one device, and its parameters."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("whole")
        curve = go(folder, steps=10, monkeypatch=patch, count=1, mesh={"replica": -1}, rules=((".*", ()),))
        return curve, read_params(folder)


@pytest.mark.parametrize(
    ("count", "mesh", "rules"),
    [
        (1, {"replica": -1}, ((".*", ()),)),
        pytest.param(
            2,
            {"replica": 1, "tensor": 2},
            (("inner/kernel", (None, "tensor")), (".*", ())),
            marks=pytest.mark.slow,
        ),
        (4, {"replica": 2, "fsdp": 2}, (("inner/kernel", ("fsdp",)), ("inner/bias", ("fsdp",)), (".*", ()))),
    ],
)
def test_the_curve_goes_on_upon_another_mesh_and_back(tmp_path, whole, monkeypatch, count, mesh, rules):
    eight = {"replica": 2, "fsdp": 2, "tensor": 2}
    go(tmp_path, steps=4, monkeypatch=monkeypatch, mesh=eight)
    go(tmp_path, steps=7, monkeypatch=monkeypatch, count=count, mesh=mesh, rules=rules)
    got = go(tmp_path, steps=10, monkeypatch=monkeypatch, mesh=eight)
    wanted, params = whole
    assert list(got) == list(wanted)
    np.testing.assert_allclose(list(got.values()), list(wanted.values()), rtol=1e-5)
    for path, value in read_params(tmp_path).items():
        np.testing.assert_allclose(value, params[path], rtol=1e-4, atol=1e-6)


def test_a_checkpoint_of_eight_devices_opens_on_one(tmp_path, monkeypatch):
    go(tmp_path, steps=4, monkeypatch=monkeypatch, mesh={"replica": 2, "fsdp": 2, "tensor": 2})
    params = read_params(tmp_path)
    model = ToyObjective().init(nnx.Rngs(1))
    restore_model(tmp_path, model=model)
    assert model.inner.kernel[...].devices() == {jax.devices()[0]}
    np.testing.assert_array_equal(model.inner.kernel[...], params["inner/kernel"])
    x = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)
    hidden = np.tanh(x.astype(np.float64) @ params["inner/kernel"] + params["inner/bias"])
    wanted = (hidden @ params["head/kernel"] + params["head/bias"])[:, 0] * np.exp(params["log_scale"])
    np.testing.assert_allclose(model(x), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_what_only_cuts_up_the_work_may_change_between_two_starts(tmp_path):
    """Remat, loop over layers, microbatch and form of the loss: the same curve, and no other config by name."""

    def go(workdir, *, steps, model, loss):
        sections = {"model": model, "loss": loss, "mesh": {"replica": 2, "tensor": 4}}
        cfg = config(train__steps=steps, train__log_every=1, **sections)
        toy = contrastive_toy.objective(loss=loss, **model)
        loop.train(objective=toy, batches=contrastive_toy.batches, workdir=workdir, config=cfg, meta={})
        lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
        return [line["loss"] for line in lines if line["kind"] == "train"]

    plain = {"model": {"remat": "none", "unroll": 1}, "loss": {"form": "dense", "microbatch": 1}}
    lean = {"model": {"remat": "full", "unroll": 0},
            "loss": {"form": "blockwise", "exchange": "ring", "block": 4, "microbatch": 2}}  # fmt: skip
    wanted = go(tmp_path / "whole", steps=4, **plain)
    go(tmp_path / "changed", steps=2, **plain)
    np.testing.assert_allclose(go(tmp_path / "changed", steps=4, **lean), wanted, rtol=1e-5)
