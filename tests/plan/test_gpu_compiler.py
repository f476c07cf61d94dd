"""Plans by XLA's GPU compiler, where it is installed (`make test-all` installs it); no GPU is needed."""

import importlib.util

import pytest

from twinreel.cost.rates import RATES
from twinreel.engine.sharding.mesh import make_mesh
from twinreel.plan.plan import plan
from twinreel.plan.topology import parse_topology, topology_devices

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(
        importlib.util.find_spec("jax_cuda13_plugin") is None,
        reason="XLA's GPU compiler is not installed: pip install 'twinreel[plan-gpu]'",
    ),
]


@pytest.mark.parametrize("name", ["a100-8", "h100-16", "h200-4", "b200-32"])
def test_the_compiler_takes_the_figures_of_the_data_sheets(name):
    topology = parse_topology(name)
    devices = topology_devices(topology)
    assert len(devices) == topology.chips
    assert {device.device_kind for device in devices} == {topology.chip.kind}


def test_the_devices_of_a_host_are_neighbours_in_the_mesh():
    devices = topology_devices(parse_topology("h100-16"))
    mesh = make_mesh(replica=2, fsdp=8, devices=devices)
    assert [[device.id // 8 for device in row] for row in mesh.devices[:, :, 0]] == [[0] * 8, [1] * 8]


@pytest.mark.parametrize(
    ("changes", "axes"),
    [((), ("replica",)), (("mesh.replica=2", "mesh.fsdp=8", "sharding.rules=fsdp"), ("replica", "fsdp"))],
)
def test_a_plan_for_two_hosts(changes, axes, small):
    topology = parse_topology("h100-16")
    result = plan(small("data.batch_size=64", *changes), topology=topology)
    assert result["fits"]
    assert 0 < sum(result["memory"].values()) < topology.chip.usable_bytes
    compute = result["flops"]["model_per_chip"] / (RATES["h100"].share * topology.chip.peak_flops)
    assert result["time"]["compute_s"] == pytest.approx(compute)
    assert {axis for one in result["collectives"] for axis in one["axes"]} == set(axes)
    inside = [one for one in result["collectives"] if one["axes"] == ("fsdp",)]
    assert not any(one["over_network"] for one in inside)
    assert all(one["over_network"] for one in result["collectives"] if "replica" in one["axes"])
    assert bool(inside) == ("fsdp" in axes)
