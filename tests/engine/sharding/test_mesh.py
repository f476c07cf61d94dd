import dataclasses
import types

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from twinreel.base.errors import UserError
from twinreel.engine.sharding.mesh import check_batch_size, make_mesh, put_batch, slices_of


def test_replica_fills_up():
    mesh = make_mesh(fsdp=2)
    assert dict(mesh.shape) == {"replica": len(jax.devices()) // 2, "fsdp": 2, "tensor": 1}
    assert set(mesh.axis_types) == {AxisType.Auto}


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"fsdp": 3}, "makes 6 devices, but there are 8"),
        ({"replica": 16}, "makes 16 devices"),
        ({"fsdp": 0}, "config.mesh.fsdp must be at least 1"),
        ({"replica": 0}, "config.mesh.replica must be at least 1"),
        ({"fsdp": -1}, "only one of config.mesh.replica and config.mesh.fsdp may be -1"),
        ({"tensor": -2}, "config.mesh.tensor must be at least 1, or -1"),
    ],
)
def test_sizes_that_do_not_fit(sizes, message):
    with pytest.raises(UserError, match=message):
        make_mesh(**sizes)


@pytest.mark.parametrize("axis", ["replica", "fsdp", "tensor"])
def test_any_one_axis_takes_the_rest(axis):
    sizes = {"replica": 2, "fsdp": 2, "tensor": 2}
    assert dict(make_mesh(**sizes | {axis: -1}).shape) == sizes


@dataclasses.dataclass(frozen=True)
class Described:
    """A device of a machine that is not here."""

    id: int
    process_index: int
    slice_index: int = 0
    coords: tuple[int, int, int] = (0, 0, 0)
    core_on_chip: int = 0
    platform: str = "cpu"
    device_kind: str = "cpu"


def tpu_slices(*, slices=2, side=4):
    """v5e slices of side x side chips, a process for each 2 x 2 of them, as jax describes them."""
    found = []
    for s in range(slices):
        for y in range(side):
            for x in range(side):
                process = s * (side // 2) ** 2 + (y // 2) * (side // 2) + x // 2
                found.append(
                    Described(
                        id=len(found), process_index=process, slice_index=s, coords=(x, y, 0), platform="tpu",
                        device_kind="TPU v5 lite",
                    )
                )  # fmt: skip
    return found


def test_replica_goes_across_slices():
    mesh = make_mesh(replica=4, fsdp=4, tensor=2, devices=tpu_slices()[::-1])
    slices = np.vectorize(lambda device: device.slice_index)(mesh.devices)
    assert (slices[:2] == 0).all()
    assert (slices[2:] == 1).all()
    assert len(set(mesh.devices.flat)) == 32
    assert slices_of(mesh) == 2


def test_slices_that_take_turns_are_not_told_apart():
    there = np.array(tpu_slices(side=2)).reshape(2, 4).T.reshape(8, 1, 1)
    mesh = types.SimpleNamespace(devices=there)
    assert slices_of(mesh) == 1
    mesh.devices = there[[0, 2, 4, 6, 1, 3, 5, 7]]
    assert slices_of(mesh) == 2


@pytest.mark.parametrize("tensor", [1, 2, 4])
def test_a_row_of_the_batch_stays_in_one_process(tensor):
    mesh = make_mesh(replica=2, fsdp=-1, tensor=tensor, devices=tpu_slices())
    for group in mesh.devices.reshape(-1, tensor):
        assert len({device.process_index for device in group}) == 1


def test_processes_without_slices_follow_one_another_along_replica():
    devices = [Described(id=i, process_index=i % 4) for i in range(16)]
    mesh = make_mesh(fsdp=2, tensor=2, devices=devices)
    assert [{d.process_index for d in copy.flat} for copy in mesh.devices] == [{0}, {1}, {2}, {3}]


def test_axes_that_would_cross_processes_or_slices_are_named():
    with pytest.raises(UserError, match=r"config.mesh.tensor=8 must divide the 4 devices of a process"):
        make_mesh(tensor=8, devices=tpu_slices())
    with pytest.raises(UserError, match=r"config.mesh.replica=1 must be a multiple of the 2 slices"):
        make_mesh(replica=1, fsdp=32, devices=tpu_slices())


def test_batch_size_names_the_field():
    with pytest.raises(UserError, match=r"batch_size=12 must divide by the 8 devices.*set config\.data\.batch_size"):
        check_batch_size(12, mesh=make_mesh())
    check_batch_size(12, mesh=make_mesh(replica=2, tensor=4))


def test_rows_are_spread_over_replica_and_fsdp():
    mesh = make_mesh(replica=2, fsdp=2, tensor=2)
    batch = {
        "video": np.arange(4 * 3, dtype=np.uint8).reshape(4, 3),
        "clip_index": np.arange(4, dtype=np.int64),
        "weight": np.ones(4),
    }
    put = put_batch(batch, mesh=mesh)
    assert put["video"].sharding.spec == PartitionSpec(("replica", "fsdp"))
    assert {shard.data.shape for shard in put["video"].addressable_shards} == {(1, 3)}
    assert put["clip_index"].dtype == np.int32
    assert put["weight"].dtype == np.float32
    for key, value in batch.items():
        np.testing.assert_array_equal(put[key], value)


def test_integers_beyond_32_bits_are_refused():
    with pytest.raises(OverflowError, match=r"batch\['clip_index'\] holds"):
        put_batch({"clip_index": np.full(8, 2**40)}, mesh=make_mesh())
