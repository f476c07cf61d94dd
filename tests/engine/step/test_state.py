import jax
import jax.numpy as jnp
import numpy as np
import pytest
from engine_toy import ToyObjective
from flax import nnx
from jax.sharding import PartitionSpec

from twinreel.base.errors import UserError
from twinreel.engine.optimizer.optimizer import make_optimizer
from twinreel.engine.sharding.mesh import make_mesh
from twinreel.engine.sharding.rules import make_rules
from twinreel.engine.step.state import StateBuilder, split_model, trained_paths

OPTIMIZER = make_optimizer(steps=10, lr=0.1, weight_decay=0.1, clip_norm=1.0)
PATHS = {"inner/kernel", "inner/bias", "head/kernel", "head/bias", "log_scale"}


def builder(objective=None, **options) -> StateBuilder:
    options = {"optimizer": OPTIMIZER, "mesh": make_mesh(fsdp=4), "seed": 3} | options
    return StateBuilder(objective=objective or ToyObjective(), **options)


def test_state_becomes_the_model_that_init_makes():
    plan = builder()
    state = plan.init()
    assert set(state.params) == PATHS
    assert state.others == {}
    assert (int(state.step), int(state.halted)) == (0, -1)
    wanted = split_model(ToyObjective().init(nnx.Rngs(3)))
    for path, value in split_model(plan.model(state)).items():
        np.testing.assert_allclose(value, wanted[path], rtol=1e-6)


def test_only_trained_parameters_have_moments():
    plan = builder(ToyObjective(trainable=("^head/", "log_scale")))
    state = plan.init()
    assert set(state.params) == {"head/kernel", "head/bias", "log_scale"}
    assert set(state.others) == {"inner/kernel", "inner/bias"}
    trained = sum(np.size(value) for value in state.params.values())
    counts = 1  # of adam
    assert sum(np.size(leaf) for leaf in jax.tree.leaves(state.opt_state)) == 2 * trained + counts


def test_a_regex_that_matches_nothing_lists_the_parameters():
    with pytest.raises(UserError, match=r"trainable regex '\^haed/' matches no parameter(.|\n)*inner/kernel"):
        trained_paths(("^haed/",), dict.fromkeys(PATHS))


def test_moments_lie_beside_their_parameters():
    rules = make_rules(rules=[["inner/kernel", [None, "fsdp"]], [".*", []]])
    plan = builder(rules=rules)
    state = plan.init()
    assert state.params["inner/kernel"].sharding.spec == PartitionSpec(None, "fsdp")
    assert state.params["inner/kernel"].addressable_shards[0].data.shape == (6, 2)
    moments = [
        leaf.sharding.spec
        for path, leaf in jax.tree_util.tree_leaves_with_path(state.opt_state)
        if "inner/kernel" in jax.tree_util.keystr(path)
    ]
    assert moments == [PartitionSpec(None, "fsdp")] * 2
    whole = builder().init()
    for path in PATHS:  # placement does not change the draw
        np.testing.assert_array_equal(state.params[path], whole.params[path])


def test_initialize_fills_parameters_and_keeps_placements():
    def fill(model):
        model.head.bias.set_value(np.full(1, 5.0, np.float32))

    plan = builder()
    state = plan.init(initialize=fill)
    np.testing.assert_array_equal(state.params["head/bias"], [5.0])
    assert state.params["head/bias"].sharding == plan.abstract.params["head/bias"].sharding
    np.testing.assert_array_equal(state.params["head/kernel"], plan.init().params["head/kernel"])


@pytest.mark.parametrize(
    ("frozen", "message"),
    [
        (("^haed/",), r"'\^haed/' matches no parameter; correct config.optimizer.frozen(.|\n)*inner/kernel"),
        ((".*",), "config.optimizer.frozen=.* leaves no parameter to train"),
    ],
)
def test_freezing_that_cannot_be_meant(frozen, message):
    with pytest.raises(UserError, match=message):
        builder(optimizer=make_optimizer(steps=10, lr=0.1, frozen=frozen))


class Streams(nnx.Module):
    """Holds random streams and batch statistics of its own."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.layers = nnx.List([nnx.Linear(4, 4, rngs=rngs) for _ in range(2)])


class StreamsObjective:
    trainable = ()

    def init(self, rngs):
        return Streams(rngs=rngs)


def test_random_streams_are_not_state_and_follow_the_key():
    plan = builder(StreamsObjective())
    state = plan.init()
    assert set(state.others) == {"norm/mean", "norm/var"}
    assert {"layers/0/kernel", "layers/1/kernel"} < set(state.params)
    x = jnp.ones((64,))
    draws = [plan.model(state, key=plan.step_key(jnp.int32(step))).dropout(x) for step in (1, 1, 2)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])
    other = builder(StreamsObjective(), seed=4)
    assert not np.array_equal(draws[0], other.model(state, key=other.step_key(jnp.int32(1))).dropout(x))
