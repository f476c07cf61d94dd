import jax
import jax.numpy as jnp
import numpy as np
import pytest
from engine_toy import ToyObjective
from jax.sharding import PartitionSpec
from parameter_tables import parameter_table

from twinreel.base.errors import UserError
from twinreel.engine.optimizer.optimizer import make_optimizer
from twinreel.engine.sharding.mesh import make_mesh
from twinreel.engine.sharding.placement import Activations, place_optimizer
from twinreel.engine.sharding.rules import make_rules, param_shardings
from twinreel.engine.sharding.table import bytes_by_kind, is_split, placements, sharding_text
from twinreel.engine.step.state import StateBuilder
from twinreel.models.layers.names import named, placing

PARAMS = {
    "video/0/kernel": jax.ShapeDtypeStruct((8, 6), jnp.float32),
    "video/0/bias": jax.ShapeDtypeStruct((6,), jnp.float32),
    "log_scale": jax.ShapeDtypeStruct((), jnp.float32),
}


def test_first_match_wins():
    rules = make_rules(rules=[["/kernel$", ["fsdp", None]], ["^video/", []], [".*", []]])
    placed = param_shardings(PARAMS, mesh=make_mesh(fsdp=4), rules=rules)
    assert placed["video/0/kernel"].spec == PartitionSpec("fsdp", None)
    assert placed["video/0/bias"].spec == placed["log_scale"].spec == PartitionSpec()


def test_default_replicates_everything():
    placed = param_shardings(PARAMS, mesh=make_mesh(fsdp=4))
    assert all(sharding.is_fully_replicated for sharding in placed.values())


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([["text/", []], [".*", []]], "'text/' matches no parameter(.|\n)*video/0/kernel"),
        ([["video/", []]], "no sharding rule matches parameter 'log_scale'"),
        ([["kernel", ["fspd"]], [".*", []]], "did you mean 'fsdp'"),
        ([["kernel", [None, "fsdp"]], [".*", []]], "whose 6 does not divide by the 4 devices of mesh axis 'fsdp'"),
        ([["bias", [None, "fsdp"]], [".*", []]], r"names 2 dimensions, but 'video/0/bias' has shape \(6,\)"),
        ([["(", []]], "not a regular expression"),
        ([["kernel", "fsdp"]], "holds pairs"),
        ([["kernel", "largest:fsdp:many"]], "holds pairs"),
        ([["kernel", ["fsdp", "fsdp"]], [".*", []]], "names a mesh axis twice"),
        ([["kernel", ["...", "..."]]], "has '...' more than once"),
        ([["kernel", "largest:fspd"], [".*", []]], "did you mean 'fsdp'"),
        ("fspd", "config.sharding.rules.*did you mean 'fsdp'"),
    ],
)
def test_mistakes_are_named(rules, message):
    with pytest.raises(UserError, match=message):
        param_shardings(PARAMS, mesh=make_mesh(fsdp=4), rules=make_rules(rules=rules))


def shapes(sizes):
    return {path: jax.ShapeDtypeStruct(size, jnp.float32) for path, size in sizes.items()}


def specs(rules, *, config="base_1b", **mesh):
    placed = param_shardings(parameter_table(config), mesh=make_mesh(**mesh), rules=make_rules(rules=rules))
    return {path: tuple(sharding.spec) for path, sharding in placed.items()}


CONFIGS = ("base_1b", "large_1b", "so400m_1b", "small_26m", "few_clips", "demo")


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize(("rules", "mesh"), [("fsdp", {"fsdp": 8}), ("fsdp_tensor", {"fsdp": 4, "tensor": 2})])
def test_presets_split_what_is_large_and_never_the_depth_or_vectors(config, rules, mesh):
    got = specs(rules, config=config, **mesh)
    for path, value in parameter_table(config).items():
        stacked = "/layers/" in path
        of_layer = value.shape[stacked:]
        assert not stacked or got[path][:1] in ((), (None,)), path
        over_fsdp = "fsdp" in got[path]
        if len(of_layer) < 2 or np.prod(of_layer) < 16_384:
            matrix = rules == "fsdp_tensor" and stacked and len(of_layer) == 2  # such a layer is small as a whole
            assert not over_fsdp or matrix, path
        else:
            assert over_fsdp == any(size % mesh["fsdp"] == 0 for size in of_layer), path


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("tensor", [2, 8])
def test_fsdp_tensor_splits_the_matrices_of_blocks_and_nothing_else_over_tensor(config, tensor):
    got = specs("fsdp_tensor", config=config, tensor=tensor)
    for path, spec in got.items():
        columns = path.endswith(("qkv/kernel", "up/kernel")) and "/layers/" in path
        rows = path.endswith(("out/kernel", "down/kernel")) and "/layers/" in path
        biases = path.endswith(("qkv/bias", "up/bias")) and "/layers/" in path
        wanted = (None, "fsdp", "tensor") if columns else (None, "tensor", "fsdp") if rows else ()
        if columns or rows:
            assert spec == wanted, path
        elif biases:
            assert spec == (None, "tensor"), path
        else:
            assert "tensor" not in spec, path


def test_fsdp_tensor_knows_the_matrices_of_every_kind_of_block():
    """Separate projections, a gated MLP, no biases, and heads of their own for pooling."""
    plain = "{'fused_qkv': False, 'qkv_bias': False, 'out_bias': False, 'mlp_bias': False, 'qk_norm': 'head'}"
    overrides = [f"model.{side}.block={plain}" for side in ("video", "text")]
    overrides += ["model.text.activation=swiglu", "model.text.pool=attention"]
    table = parameter_table("small_26m", *overrides)
    placed = param_shardings(table, mesh=make_mesh(fsdp=2, tensor=2), rules=make_rules(rules="fsdp_tensor"))
    got = {path: tuple(sharding.spec) for path, sharding in placed.items()}
    block = "text/blocks/layers"
    for name in ("attention/query", "attention/key", "attention/value", "up", "gate"):
        assert got[f"{block}/{name}/kernel"] == (None, "fsdp", "tensor"), name
    for name in ("attention/out", "down"):
        assert got[f"{block}/{name}/kernel"] == (None, "tensor", "fsdp"), name
    assert got[f"{block}/attention/query_norm/scale"] == ()
    assert "tensor" not in got["text/pooler/attention/out/kernel"]
    assert not any(path.endswith(("up/bias", "query/bias")) for path in got)  # a preset's rule may match nothing
    with pytest.raises(UserError, match="matches no parameter"):
        param_shardings(table, mesh=make_mesh(), rules=(("/up/bias$", ()), (".*", ())))


def test_the_least_size_worth_splitting_is_part_of_the_table():
    table = {"a": (4, 8), "layers/b": (100, 4, 8), "c": (4, 4)}

    def spread(spec):
        placed = param_shardings(shapes(table), mesh=make_mesh(fsdp=4), rules=make_rules(rules=[[".*", spec]]))
        return {path: tuple(sharding.spec) for path, sharding in placed.items()}

    assert spread("largest:fsdp:32") == {"a": (None, "fsdp"), "layers/b": (None, None, "fsdp"), "c": ()}
    assert spread("largest:fsdp:33") == {"a": (), "layers/b": (), "c": ()}
    assert spread("largest:fsdp") == {"a": (None, "fsdp"), "layers/b": (None, None, "fsdp"), "c": (None, "fsdp")}


def test_tuples_of_axes_and_rules_of_other_kinds():
    rules = [["^activation/", [["replica", "fsdp"]]], ["^optimizer/mu/", []], ["embedding", [None, ["fsdp", "tensor"]]],
             [".*", []]]  # fmt: skip
    got = specs(rules, fsdp=2, tensor=2)
    assert got["text/embedding"] == (None, ("fsdp", "tensor"))
    assert got["text/blocks/layers/norm1/scale"] == ()


MODEL = {path: value.shape for path, value in parameter_table("small_26m").items()}


def moments(optimizer, rules, *, sizes=MODEL, **mesh):
    """{"field path": spec} of an optimizer's state."""
    mesh = make_mesh(**mesh)
    table = make_rules(rules=rules)
    placed = param_shardings(shapes(sizes), mesh=mesh, rules=table)
    trained = {path: jax.ShapeDtypeStruct(size, jnp.float32, sharding=placed[path]) for path, size in sizes.items()}
    state = jax.eval_shape(optimizer.init, trained)
    places = place_optimizer(state, trained=trained, mesh=mesh, rules=table)
    found = {}
    for path, _ in jax.tree_util.tree_leaves_with_path(state):
        field = [key.name for key in path if hasattr(key, "name")][-1:]
        own = [key.key for key in path if getattr(key, "key", None) in sizes]
        found["/".join([*field, *own])] = tuple(places[jax.tree_util.keystr(path)].spec)
    return found


@pytest.mark.parametrize(("name", "fields"), [("adamw", ("mu", "nu")), ("muon", ("mu",)), ("lion", ("mu",))])
def test_moments_follow_their_parameters(name, fields):
    got = moments(make_optimizer(steps=1, lr=1.0, name=name), "fsdp_tensor", fsdp=2, tensor=2)
    for field in fields:
        assert got[f"{field}/text/blocks/layers/attention/qkv/kernel"] == (None, "fsdp", "tensor")
        assert got[f"{field}/text/embedding"] == ("fsdp",)


def test_factored_vectors_keep_the_axes_of_the_dimensions_that_they_keep():
    sizes = {"t/layers/up/kernel": (3, 128, 256), "t/layers/down/kernel": (3, 256, 128), "head/kernel": (128, 130)}
    rules = [["/up/", [None, "fsdp", "tensor"]], ["/down/", [None, "tensor", "fsdp"]], [".*", ["fsdp"]]]
    got = moments(make_optimizer(steps=1, lr=1.0, name="adafactor", b1=0.0), rules, sizes=sizes, fsdp=2, tensor=2)
    # v_row is the mean over the larger of a layer's two dimensions, v_col over the smaller
    assert got["v_row/t/layers/up/kernel"] == (None, "fsdp")
    assert got["v_col/t/layers/up/kernel"] == (None, "tensor")
    assert got["v_row/t/layers/down/kernel"] == (None, "fsdp")
    assert got["v_col/t/layers/down/kernel"] == (None, "tensor")
    assert got["v_row/head/kernel"] == ("fsdp",)
    assert got["v_col/head/kernel"] == (None,)


def test_the_optimizer_may_have_rules_of_its_own():
    rules = [["^optimizer/nu/", [None, "fsdp"]], [".*", []]]
    sizes = {"a/kernel": (3, 4)}
    got = moments(make_optimizer(steps=1, lr=1.0), rules, sizes=sizes, fsdp=4)
    assert got["nu/a/kernel"] == (None, "fsdp")
    assert got["mu/a/kernel"] == ()
    with pytest.raises(UserError, match=r"'.optimizer/v_row/' matches no state of the optimizer"):
        moments(make_optimizer(steps=1, lr=1.0), [["^optimizer/v_row/", []], [".*", []]], sizes=sizes)


def activations(rules, *, shape=(8, 4), name="activation/video/tokens", **mesh):
    mesh = make_mesh(**mesh)
    place = Activations(mesh=mesh, rules=make_rules(rules=rules))

    def f(x):
        with placing(place):
            return named(x, name) * 2

    out = jax.jit(f)(jnp.ones(shape))
    np.testing.assert_array_equal(out, np.full(shape, 2.0))
    place.check()
    return place.seen[name][2]


def test_activations_are_placed_by_the_table():
    rules = [["^activation/video/", [["replica", "fsdp"]]], [".*", []]]
    assert activations(rules, fsdp=2) == PartitionSpec(("replica", "fsdp"))
    assert activations("replicated", fsdp=2) is None
    hidden = activations("fsdp_tensor", name="activation/text/hidden", shape=(8, 3, 4), fsdp=2, tensor=2)
    assert hidden == PartitionSpec(("replica", "fsdp"), None, "tensor")
    assert activations("fsdp", shape=(3, 4), fsdp=2) is None  # a preset leaves what does not divide
    with pytest.raises(UserError, match="whose 3 does not divide by the 8 devices of mesh axis 'replica' x 'fsdp'"):
        activations(rules, shape=(3, 4), fsdp=2)
    with pytest.raises(UserError, match=r"'.activation/audio/' matches no activation(.|\n)*activation/video/tokens"):
        activations([["^activation/audio/", []], [".*", []]], fsdp=2)


def test_the_table_counts_bytes_per_device():
    rules = make_rules(rules=[["inner/kernel", [None, "fsdp"]], [".*", []]])
    optimizer = make_optimizer(
        steps=1, lr=1.0, schedule="constant", mu_dtype="bfloat16", frozen=("^head/",), ema_decay=0.9
    )
    plan = StateBuilder(objective=ToyObjective(), optimizer=optimizer, mesh=make_mesh(fsdp=4), seed=0, rules=rules)
    rows = {(row.kind, row.name): row for row in placements(plan.abstract)}
    kernel = rows["parameter", "inner/kernel"]
    assert (kernel.shape, kernel.dtype, kernel.spec, kernel.bytes_per_device) == ((6, 8), "float32", "*, fsdp", 48)
    counters = 4  # of adam
    trained = 48 + 4 * 8 + 4
    assert bytes_by_kind(list(rows.values())) == {
        "parameter": trained,
        "frozen": 4 * 8 + 4,
        "optimizer": trained // 2 + trained + counters,
        "average": trained,
        "total": trained * 3 + trained // 2 + 36 + counters,
    }
    text = sharding_text(plan.abstract, mesh=plan.mesh)
    assert "inner/kernel" in text
    assert is_split(plan.abstract)
    whole = StateBuilder(objective=ToyObjective(), optimizer=optimizer, mesh=make_mesh(fsdp=4), seed=0)
    assert not is_split(whole.abstract)
    rules = make_rules(rules=[["^optimizer/mu/inner/kernel", [None, "fsdp"]], [".*", []]])
    moments = StateBuilder(objective=ToyObjective(), optimizer=optimizer, mesh=make_mesh(fsdp=4), seed=0, rules=rules)
    assert is_split(moments.abstract)
