import jax
import pytest

from twinreel.base.errors import UserError
from twinreel.launch.topologies import tpu_slice
from twinreel.plan.topology import parse_topology, topology_devices


@pytest.mark.parametrize(
    ("name", "shape", "chips", "hosts"),
    [
        ("v5e-256", (16, 16), 256, 64),
        ("v5e-8", (2, 4), 8, 2),
        ("v5e-1", (1, 1), 1, 1),
        ("v6e-64", (8, 8), 64, 16),
        ("v4-128", (4, 4, 4), 64, 16),
        ("v5p-256", (4, 4, 8), 128, 32),
        ("v5p-512", (4, 8, 8), 256, 64),
        ("v5p:8x8x8", (8, 8, 8), 512, 128),
        ("tpu7x-128", (4, 4, 4), 64, 16),
        ("cpu-8", (8,), 8, 1),
        ("fake-3", (3,), 3, 1),
        ("h100-4", (4,), 4, 1),
        ("b200-8", (8,), 8, 1),
    ],
)
def test_names_as_google_cloud_counts_them(name, shape, chips, hosts):
    found = parse_topology(name)
    assert (found.shape, found.chips, found.hosts, found.slices) == (shape, chips, hosts, 1)
    assert str(chips) in str(found)


def test_slices():
    assert parse_topology("v5e-1024").slices == 4
    twice = parse_topology("v5p:4x4x4", slices=2)
    assert (twice.chips, twice.hosts) == (128, 32)
    assert "2 slices of 4x4x4" in str(twice)


def test_gpus_lie_in_hosts_of_eight():
    found = parse_topology("h200-64")
    assert (found.shape, found.slices, found.chips, found.hosts, found.shards) == ((8,), 8, 64, 8, 64)
    assert str(found) == "NVIDIA H200, 64 GPUs (8 hosts of 8)"
    assert parse_topology("v5e-512").shards == 256  # fsdp stays inside a slice
    assert parse_topology("tpu7x-128").shards == 128  # a chip is two devices


@pytest.mark.parametrize(("share", "usable"), [(None, 0.75), ("0.9", 0.9), ("nearly all", None), ("1.5", None)])
def test_memory_of_a_gpu_is_what_the_allocator_takes(monkeypatch, share, usable):
    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
    if share is not None:
        monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", share)
    chip = parse_topology("h100-8").chip
    if usable is None:
        with pytest.raises(UserError, match="must be a share"):
            print(chip.usable_bytes)
    else:
        assert chip.usable_bytes == int(usable * chip.hbm_bytes)


def test_which_axes_are_rings():
    flat, cube = parse_topology("v5e-128"), parse_topology("v5p:2x4x4")
    assert [flat.wraps(axis) for axis in (0, 1)] == [False, True]  # 8 x 16
    assert [cube.wraps(axis) for axis in (0, 1, 2)] == [False, True, True]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v5e-257", "no size of v5e .*v5e-256"),
        ("v5p-255", "counts TensorCores"),
        ("v5p-6", "v5p:4x4x4"),
        ("v5e:4x4x4", "2 axes"),
        ("v5e:32x16", "at most 256 chips.*--slices"),
        ("v5p:2x4x8", "2x4x8 is no slice of v5p.*2x4x4"),
        ("v5p:8x4x4", "do not fall"),
        ("v5e:3x3", "3x3 is no slice of v5e.*4x4"),
        ("v5p:4x4x0", "no slice"),
        ("v7x-8", "unknown generation"),
        ("v5x-8", "did you mean"),
        ("cpu:8", "no shape"),
        ("h100-12", "hosts have 8 GPUs.*multiple of 8"),
        ("h100:8x8", "number of all GPUs, as h100-64"),
        ("h10-8", "did you mean 'h100'"),
        ("pod", "must have a form such as v5e-256"),
    ],
)
def test_other_names_are_refused(name, message):
    with pytest.raises(UserError, match=message):
        parse_topology(name)


@pytest.mark.parametrize(
    "shape", ["1x1", "2x4", "16x16", "3x3", "4x4x4", "2x4x4", "2x4x8", "8x4x4", "4x12x12", "0x4x4"]
)
@pytest.mark.parametrize("tpu", ["v4", "v5e", "v5p", "v6e", "tpu7x"])
def test_plan_and_launch_know_the_same_slices(tpu, shape):
    try:
        planned = parse_topology(f"{tpu}:{shape}")
    except UserError:
        with pytest.raises(UserError, match="--topology"):
            tpu_slice(tpu=tpu, topology=shape)
        return
    launched = tpu_slice(tpu=tpu, topology=shape)
    assert (launched.hosts, launched.chips) == (planned.hosts, planned.chips)


def test_fake_devices_are_those_that_jax_started_with():
    assert topology_devices(parse_topology("cpu-4")) == jax.devices()[:4]
    with pytest.raises(UserError, match=r"jax has started with 8 CPU devices.*count=16"):
        topology_devices(parse_topology("cpu-16"))


def test_without_the_compiler_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"twinreel\[plan\]"):
        topology_devices(parse_topology("v5e-4"))
    with pytest.raises(UserError, match=r"twinreel\[plan-gpu\]"):
        topology_devices(parse_topology("h100-8"))
