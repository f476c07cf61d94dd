"""Plans by the real TPU compiler, where libtpu is installed (`make test-all` installs it); no TPU is needed."""

import pytest

from twinreel.cost.roofline import Assumptions, link_speed
from twinreel.engine.sharding.mesh import make_mesh
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
    ],
)
def test_the_compiler_knows_the_chips(name, kind, slices):
    topology = parse_topology(name, slices=slices if name == "v6e-256" else 1)
    devices = topology_devices(topology)
    assert len(devices) == topology.chips
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


@pytest.mark.parametrize("name", ["v5e-4", "v4-8", "v5p-8", "v6e-8"])
def test_a_plan_for_each_generation(name, small):
    topology = parse_topology(name)
    result = plan(small("data.batch_size=64"), topology=topology)
    assert result["fits"]
    assert 0 < sum(result["memory"].values()) < topology.chip.hbm_bytes
    time = result["time"]
    assert time["least_s"] <= time["step_s"] and 0 < time["mfu"] < 1
    flops = result["flops"]["model_per_chip"] / (Assumptions().matmul * topology.chip.peak_flops)
    assert time["compute_s"] == pytest.approx(flops)
    feed, run = result["input"], result["run"]
    assert feed["clips_per_s"] * feed["hosts"] == pytest.approx(64 / time["step_s"])
    assert run["chip_hours"] == pytest.approx(run["steps"] * time["step_s"] * topology.chips / 3600)
    assert {tuple(one["axes"]) for one in result["collectives"]} == {("replica",)}


def test_gradients_cross_the_network_between_slices_only_once(small):
    topology = parse_topology("v5e-4", slices=2)
    config = small("data.batch_size=64")
    traced = trace(config, devices=topology_devices(topology))
    found = compile_traced(traced, topology=topology, assumptions=Assumptions())
    far = [one for one in found.traffic if one.between_slices]
    assert {one.axes for one in far} == {("replica",)}
    gradients = 4 * sum(x.size for x in traced.state.params.values())
    assert gradients / 8 < sum(one.bytes for one in far) < 2 * gradients
    assert found.estimate.network_s > 0


def test_splash_attention_stores_no_scores_and_compiles_over_a_mesh_with_tensor(small):
    """144 tokens of a frame, padded to 256 in the kernel; heads over `tensor`, rows over the rest."""
    sizes = ("data.batch_size=64", "data.num_frames=2", "model.video.patch=4", "model.video.dtype=bfloat16")
    mesh = ("mesh.tensor=2", "sharding.rules=fsdp_tensor")
    topology = parse_topology("v5e-4")
    found = {}
    for attention in ("xla", "auto"):
        config = small(*sizes, *mesh, f"model.attention={attention}")
        traced = trace(config, devices=topology_devices(topology))
        found[attention] = compile_traced(traced, topology=topology, assumptions=Assumptions()), traced
        kernels = str(traced.stage.jaxpr).count("splash_mha_fwd")
        assert (kernels > 0) == (attention == "auto")
    (plain, before), (splash, after) = found["xla"], found["auto"]
    assert splash.memory.temporaries + splash.memory.activations < plain.memory.temporaries + plain.memory.activations
    assert after.flops.model == pytest.approx(before.flops.model, rel=0.01)
    assert after.flops.recomputed > before.flops.recomputed
