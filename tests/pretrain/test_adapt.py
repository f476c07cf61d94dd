"""Pretraining of few parameters: the state, the step and its memory, layer-wise rates, averages."""

import dataclasses
import functools
import sys

import jax
import numpy as np
import pytest
from contrastive_toy import CONTEXT, FRAMES, MODEL, VOCAB, batch_of, sharding_rules
from flax import nnx
from jax.sharding import PartitionSpec

from twinreel.data.options import InputSpec
from twinreel.engine.keeping.transfer import NEW
from twinreel.engine.optimizer.optimizer import make_optimizer
from twinreel.engine.sharding.mesh import make_mesh, put_batch
from twinreel.engine.sharding.rules import REPLICATED
from twinreel.engine.step.state import StateBuilder, split_model
from twinreel.engine.step.step import compile_step, stop_flags
from twinreel.models.adapters import ADDED
from twinreel.pretrain import pretrain
from twinreel.pretrain.objective import Contrastive
from twinreel.zoo.adapt import NOTHING, AdaptOptions

MESH = make_mesh(devices=jax.devices()[:1])
KINDS = AdaptOptions(lora={"rank": 2}, prompts={"layers": "^text/", "count": 2, "deep": False})


def builder_of(*, adapt=NOTHING, mesh=MESH, rules=REPLICATED, **optimizer):
    objective = Contrastive(
        model=MODEL, loss={}, input=InputSpec(num_frames=FRAMES, context_length=CONTEXT), vocab_size=VOCAB, adapt=adapt
    )
    made = make_optimizer(**{"steps": 10, "lr": 0.1, "weight_decay": 0.1} | optimizer)
    return StateBuilder(objective=objective, optimizer=made, mesh=mesh, seed=0, rules=rules)


@functools.cache
def compiled(adapt):
    """A builder, with averages and layer-wise rates, and its compiled step."""
    with jax.set_mesh(MESH):
        builder = builder_of(adapt=KINDS if adapt else NOTHING, layer_decay=0.5, ema_decay=0.9)
        return builder, compile_step(batch_of(0), builder=builder)


def sizes(paths, shapes):
    return sum(int(np.prod(shapes[path].shape)) for path in paths)


def test_what_is_outside_of_the_towers_and_what_was_added_is_trained():
    builder, _ = compiled(adapt=True)
    added = {path for path in builder.trained if ADDED.search(path)}
    assert set(builder.trained) - added == {"log_scale", "video_projection/kernel", "text_projection/kernel"}
    assert not any(ADDED.search(path) for path in builder.frozen)
    shapes = builder.abstract.params | builder.abstract.others
    qkv_and_out = 2 * ((16 + 48) + (16 + 16))
    assert sizes(added, shapes) == 3 * qkv_and_out + 2 * 16  # a block in space, in time, of text; and two prompts
    assert {row.part: row.added for row in builder.counts}["text"] == qkv_and_out + 2 * 16


def test_frozen_matrices_have_no_moments_and_no_gradients():
    """Arguments of the compiled step: parameters, two moments and an average of those that are trained."""
    (plain, whole), (builder, few) = compiled(adapt=False), compiled(adapt=True)
    state = builder.abstract
    shapes = state.params | state.others
    moments = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(state.opt_state))
    assert moments == 2 * sizes(builder.trained, shapes) + 1
    assert state.ema.keys() == state.params.keys() == set(builder.trained)
    bytes_of = [step.memory_analysis().argument_size_in_bytes for step in (whole, few)]
    trained = [sizes(one.trained, one.abstract.params | one.abstract.others) for one in (plain, builder)]
    frozen = sizes(builder.frozen, shapes)
    assert trained[0] == frozen + sizes([p for p in builder.trained if not ADDED.search(p)], shapes)
    assert bytes_of[0] - bytes_of[1] == 4 * (4 * trained[0] - 4 * trained[1] - frozen)
    temporary = [step.memory_analysis().temp_size_in_bytes for step in (whole, few)]
    assert temporary[1] < temporary[0]  # no gradients of the frozen ones


def test_parameters_that_are_added_need_not_be_in_the_chosen_parts_of_a_checkpoint(monkeypatch):
    begun = {}
    monkeypatch.setattr(pretrain, "pretrain_stages", lambda *_, **given: begun.update(given) or sys.exit())
    with pytest.raises(SystemExit):
        flags = ["--config", "demo", "--workdir", "unused", "--init", "unused", "--init_parts", "^video/.*"]
        pretrain.main(flags)
    plain = split_model(compiled(adapt=False)[0].objective.init(nnx.Rngs(0)))
    start = dataclasses.replace(begun["start"], read=lambda _: plain)
    plan = start.plan(nnx.eval_shape(lambda: compiled(adapt=True)[0].objective.init(nnx.Rngs(0))))
    assert plan.values.keys() == {path for path in plain if path.startswith("video/")}
    assert {path for path in plan.status if ADDED.search(path)} <= {k for k, v in plan.status.items() if v == NEW}


def test_added_parameters_lie_on_a_mesh_like_any_other():
    """Adapters and updates of layers whose kernels are split over both axes."""
    adapt = AdaptOptions(lora={"layers": "/layers/", "rank": 3}, adapters={"width": 3}, prompts={"count": 3})
    builder = builder_of(adapt=adapt, mesh=make_mesh(fsdp=2, tensor=2), rules=sharding_rules("fsdp_tensor"))
    placed = {path: value.sharding.spec for path, value in builder.abstract.params.items()}
    block = "video/space/layers/"
    assert placed[block + "attention/qkv/lora/b"] == PartitionSpec(None, None, "fsdp")
    assert placed[block + "adapters/mlp/expand/kernel"] == PartitionSpec(None, None, "fsdp")
    assert placed[block + "prompts"] == PartitionSpec(None, None, "fsdp")  # never along the depth


def test_a_step_changes_what_is_trained_alone():
    builder, step = compiled(adapt=True)
    state = builder.init()
    before = {path: np.asarray(value) for path, value in (state.params | state.others).items()}
    base = split_model(compiled(adapt=False)[0].objective.init(nnx.Rngs(0)))
    for path, value in base.items():  # the model begins with the draws of the plain one
        np.testing.assert_allclose(before[path], value, rtol=1e-6, atol=1e-7)
    for number in range(2):  # A has no gradient while B is zero
        with jax.set_mesh(MESH):
            state, _ = step(state, put_batch(batch_of(number), mesh=MESH), stop_flags(MESH)[False])
    after = state.params | state.others
    moved = {path for path, value in after.items() if np.abs(value - before[path]).max() > 0}
    assert moved == set(builder.trained)
    model = split_model(builder.averaged(state))
    path = "video/space/layers/attention/qkv/lora/b"
    assert 0 < np.abs(model[path]).max() < np.abs(after[path]).max()  # the average is behind
    np.testing.assert_array_equal(model["video/space/layers/up/kernel"], before["video/space/layers/up/kernel"])


@pytest.mark.parametrize(
    ("path", "below"),
    [
        ("text/blocks/prompts", 2),  # before the only block: like the embeddings
        ("text/blocks/layers/attention/qkv/lora/a", 1),
        ("video/space/layers/attention/out/lora/b", 2),
        ("video/time/layers/attention/qkv/lora/b", 1),
        ("video_projection/kernel", 0),
    ],
)
def test_added_parameters_have_the_rates_of_their_layers(path, below):
    builder, _ = compiled(adapt=True)
    assert path in builder.trained
    assert float(np.max(builder.optimizer.distances.get(path, 0))) == below
