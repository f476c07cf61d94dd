"""Checkpoints of one process's shards on its own disk."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from twinreel.engine.keeping.checkpoint import UnreadableError, steps_in
from twinreel.engine.keeping.local import read_local, write_local


def state_on(mesh):
    rng = np.random.default_rng(0)
    values = {"split": rng.normal(size=(8, 3)), "whole": rng.normal(size=5), "step": np.int32(7)}
    specs = {"split": PartitionSpec("a"), "whole": PartitionSpec(), "step": PartitionSpec()}
    tree = {name: jnp.asarray(x, jnp.int32 if name == "step" else jnp.bfloat16) for name, x in values.items()}
    return jax.device_put({"params": tree}, {"params": {n: NamedSharding(mesh, s) for n, s in specs.items()}})


def shapes_of(state):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)


def test_shards_come_back_where_they_were(tmp_path):
    devices = np.array(jax.devices())
    state = state_on(Mesh(devices[:4].reshape(2, 2), ("a", "b")))
    for step in (2, 4, 6):
        write_local(tmp_path, step=step, state=state, meta={"step": step})
    assert steps_in(tmp_path) == [4, 6]
    got, meta = read_local(tmp_path, step=6, like=shapes_of(state))
    assert meta == {"step": 6}
    for wanted, found in zip(jax.tree.leaves(state), jax.tree.leaves(got), strict=True):
        assert found.sharding == wanted.sharding and found.dtype == wanted.dtype
        np.testing.assert_array_equal(np.asarray(found), np.asarray(wanted))


def test_another_mesh_and_damage_are_named(tmp_path):
    devices = np.array(jax.devices())
    write_local(tmp_path, step=2, state=state_on(Mesh(devices[:2].reshape(2, 1), ("a", "b"))), meta={})
    with pytest.raises(UnreadableError, match="not usable"):
        read_local(tmp_path, step=2, like=shapes_of(state_on(Mesh(devices[:4].reshape(4, 1), ("a", "b")))))
    file = tmp_path / "2" / "shards.safetensors"
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(UnreadableError, match="not usable"):
        read_local(tmp_path, step=2, like=shapes_of(state_on(Mesh(devices[:2].reshape(2, 1), ("a", "b")))))
