"""Plans by the real TPU compiler, where libtpu is installed (`make test-all` installs it); no TPU is needed."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from twinreel.cost.collectives import count_collectives
from twinreel.cost.flops import inner_jaxprs
from twinreel.cost.hlo import parse_program
from twinreel.cost.rates import RATES
from twinreel.cost.roofline import Assumptions, link_speed
from twinreel.engine.sharding.mesh import BATCH_AXES, make_mesh
from twinreel.engine.start.collectives import compiler_options
from twinreel.models.layers.short import short_attention
from twinreel.models.layers.splash import splash_attention
from twinreel.plan.plan import plan
from twinreel.plan.program import compile_traced, trace
from twinreel.plan.topology import parse_topology, topology_devices

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),
]
pytest.importorskip("libtpu", reason="the TPU compiler is not installed: pip install 'twinreel[plan]'")


@pytest.mark.parametrize(
    ("name", "kind", "slices"),
    [
        ("v4-1024", "TPU v4", 1),
        ("v5e-256", "TPU v5 lite", 1),
        ("v5e-512", "TPU v5 lite", 2),
        ("v5p:8x8x8", "TPU v5", 1),
        ("v6e-256", "TPU v6 lite", 1),
        ("v6e-256", "TPU v6 lite", 2),
        ("v5e-1", "TPU v5 lite", 1),
        ("tpu7x-128", "TPU7x", 1),
    ],
)
def test_the_compiler_knows_the_chips(name, kind, slices):
    topology = parse_topology(name, slices=slices if name == "v6e-256" else 1)
    devices = topology_devices(topology)
    assert len(devices) == topology.devices
    assert {device.device_kind for device in devices} == {kind}
    assert len({device.process_index for device in devices}) == topology.hosts
    assert len({getattr(device, "slice_index", None) for device in devices}) == slices
    assert topology.chip.kind == kind


def test_links_of_mesh_axes():
    topology = parse_topology("v5e-256")
    mesh = make_mesh(replica=-1, fsdp=16, devices=topology_devices(topology))
    speed = {axes: link_speed(axes, chip=topology.chip, mesh=mesh, wraps=topology.wraps)
             for axes in (("fsdp",), ("replica", "fsdp"), ("tensor",))}  # fmt: skip
    one = topology.chip.ici_link
    assert speed == {("fsdp",): 2 * one, ("replica", "fsdp"): 4 * one, ("tensor",): one}


@pytest.mark.parametrize("name", ["v5e-4", "v4-8", "v5p-8", "v6e-8", "tpu7x-8"])
def test_a_plan_for_each_generation(name, small):
    topology = parse_topology(name)
    result = plan(small("data.batch_size=64"), topology=topology)
    assert result["fits"]
    assert 0 < sum(result["memory"].values()) < topology.chip.hbm_bytes
    time = result["time"]
    assert time["least_s"] <= time["step_s"] and 0 < time["mfu"] < 1
    flops = result["flops"]["model_per_chip"] + result["flops"]["tile_padding_per_chip"]
    rate = RATES[topology.chip.name]
    assert time["compute_s"] == pytest.approx(flops / (rate.share * topology.chip.peak_flops))
    assert (result["assumptions"]["matmul"], result["matmul_source"]) == rate
    feed, run = result["input"], result["run"]
    assert feed["clips_per_s"] * feed["hosts"] == pytest.approx(64 / time["step_s"])
    assert run["chip_hours"] == pytest.approx(run["steps"] * time["step_s"] * topology.chips / 3600)
    assert {tuple(one["axes"]) for one in result["collectives"]} == {("replica",)}


def test_gradients_cross_the_network_between_slices_only_once(small):
    topology = parse_topology("v5e-4", slices=2)
    config = small("data.batch_size=64")
    traced = trace(config, devices=topology_devices(topology))
    found = compile_traced(traced, topology=topology, assumptions=Assumptions())
    far = [one for one in found.traffic if one.over_network]
    assert {one.axes for one in far} == {("replica",)}
    gradients = 4 * sum(x.size for x in traced.state.params.values())
    assert gradients / 8 < sum(one.bytes for one in far) < 2 * gradients
    assert found.estimate.network_s > 0


def test_attention_by_kernels_stores_no_scores_and_compiles_over_a_mesh_with_tensor(small):
    """144 tokens of a frame; heads over `tensor`, rows over the rest."""
    sizes = ("data.batch_size=64", "data.num_frames=2", "model.video.patch=4", "model.video.dtype=bfloat16")
    mesh = ("mesh.tensor=2", "sharding.rules=fsdp_tensor")
    topology = parse_topology("v5e-4")
    found = {}
    for attention, kernel in (("xla", None), ("auto", "short_attention_bwd"), ("splash", "splash_mha_dkv")):
        config = small(*sizes, *mesh, f"model.attention={attention}")
        traced = trace(config, devices=topology_devices(topology))
        assert kernel is None or kernel in str(traced.stage.jaxpr)
        assert compile_traced(traced, topology=topology, assumptions=Assumptions()).hbm_bytes > 0
        found[attention] = traced.flops, arrays_of(traced.stage.jaxpr.jaxpr, shape=(144, 144))
    assert {attention: scores > 0 for attention, (_, scores) in found.items()} == {
        "xla": True,
        "auto": False,
        "splash": False,
    }
    for attention in ("auto", "splash"):
        assert found[attention][0].model == pytest.approx(found["xla"][0].model, rel=0.01)
        assert found[attention][0].recomputed > found["xla"][0].recomputed


def arrays_of(jaxpr, *, shape):
    """How many results outside kernels have such a shape as their last axes."""
    own = sum(value.aval.shape[-2:] == shape for eqn in jaxpr.eqns for value in eqn.outvars)
    inner = (sub for eqn in jaxpr.eqns if eqn.primitive.name != "pallas_call" for sub in inner_jaxprs(eqn))
    return own + sum(arrays_of(sub, shape=shape) for sub in inner)


@pytest.mark.parametrize("generation", ["v5e-4", "v5p-8"])
@pytest.mark.parametrize(
    ("kernel", "heads", "length", "size", "kind", "dtype"),
    [
        (short_attention, 12, 196, 64, {}, jnp.bfloat16),
        (short_attention, 16, 256, 72, {"causal": True}, jnp.bfloat16),
        (short_attention, 16, 299, 64, {"mask": True}, jnp.bfloat16),  # as long as fits on the chip
        (short_attention, 4, 257, 88, {"mask": True, "cap": 50.0}, jnp.float32),
        (splash_attention, 4, 197, 64, {"causal": True, "mask": True}, jnp.bfloat16),
        (splash_attention, 4, 1568, 88, {"mask": True, "cap": 50.0}, jnp.float32),
    ],
)
def test_kernels_compile_forward_and_backward(generation, kernel, heads, length, size, kind, dtype):
    devices = topology_devices(parse_topology(generation))
    mesh = make_mesh(devices=devices)
    shape = (4, length, heads, size) if kernel is short_attention else (4, heads, length, size)
    rows = NamedSharding(mesh, PartitionSpec(BATCH_AXES))
    q = jax.ShapeDtypeStruct(shape, dtype, sharding=rows)
    mask = jax.ShapeDtypeStruct((4, length), jnp.bool_, sharding=rows)

    def loss(q, k, v, mask):
        y = kernel(q, k, v, **kind | ({"mask": mask} if "mask" in kind else {}))
        return jnp.sum(jnp.square(y.astype(jnp.float32)))

    with jax.set_mesh(mesh):
        program = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(q, q, q, mask).compile()
    assert program.as_text().count("tpu_custom_call") >= 2


def test_options_of_the_platform_send_gradients_while_chips_compute():
    mesh = make_mesh(replica=-1, fsdp=4, devices=topology_devices(parse_topology("v5e-16")))
    layers = NamedSharding(mesh, PartitionSpec(None, "fsdp"))
    weights = jax.ShapeDtypeStruct((4, 2048, 2048), jnp.bfloat16, sharding=layers)
    x = jax.ShapeDtypeStruct((4096, 2048), jnp.bfloat16, sharding=NamedSharding(mesh, PartitionSpec(BATCH_AXES)))

    def loss(weights, x):
        x, _ = jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)
        return jnp.sum(x.astype(jnp.float32) ** 2)

    with jax.set_mesh(mesh):
        lowered = jax.jit(jax.grad(loss), out_shardings=layers).lower(weights, x)

    def beside(options):
        """Of the bytes of each kind of collective, the share that is sent while the chip computes."""
        program = parse_program(lowered.compile(compiler_options=options).as_text())
        traffic = count_collectives(program, mesh=dict(mesh.shape))
        gathered = sum(one.bytes for one in traffic if one.kind == "all-gather")
        assert gathered == 2 * 4 * 2048 * 2048 * 2  # each layer's matrix, forward and backward, in bfloat16
        return {one.kind: one.beside / one.sent for one in traffic}

    ours = compiler_options("tpu", environment={})
    by_table, by_default, without = beside(ours), beside({}), beside(dict.fromkeys(ours, False))
    assert (without["all-gather"], by_default["all-gather"], by_table["all-gather"]) == (0, 0.5, 0.5)
    assert (without["all-reduce"], by_default["all-reduce"], by_table["all-reduce"]) == (0, 0, 1)
