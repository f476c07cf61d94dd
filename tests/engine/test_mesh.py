import jax
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from twinreel.configs.errors import UserError
from twinreel.engine.mesh import check_batch_size, initialize_distributed, make_mesh, put_batch


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
    ],
)
def test_sizes_that_do_not_fit(sizes, message):
    with pytest.raises(UserError, match=message):
        make_mesh(**sizes)


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_processes": 2}, "--num_processes needs --coordinator and --process_id"),
        ({"coordinator": "localhost:1"}, "needs --num_processes and --process_id"),
        ({"coordinator": "localhost:1", "num_processes": 2, "process_id": 2}, "--process_id must be from 0 to 1"),
    ],
)
def test_incomplete_flags_of_several_processes(arguments, message):
    with pytest.raises(UserError, match=message):
        initialize_distributed(**arguments)
