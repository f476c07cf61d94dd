"""Encoding in parts: any encoder and loss, against the whole batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from twinreel.base.errors import UserError
from twinreel.cost.flops import count_flops
from twinreel.engine.sharding.mesh import make_mesh
from twinreel.engine.step.grad_cache import in_parts, join, split

RNG = np.random.default_rng(0)
X, W = RNG.normal(size=(12, 4)).astype(np.float32), RNG.normal(size=(4, 3)).astype(np.float32)


def loss(w, x, *, parts, again=True):
    """A loss in which every row meets every other, of an encoder with noise of its own for each row."""

    def encode(rows):
        noise = jax.vmap(lambda key: jax.random.normal(key, (3,)))(rows["keys"])
        return {"e": jnp.tanh(rows["x"] @ w) + 0.1 * noise, "norm": jnp.sum(rows["x"] ** 2, axis=1)}

    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(jax.random.key(1), jnp.arange(len(x)))
    encoded = in_parts(encode, rows={"x": x, "keys": keys}, parts=parts, again=again)
    return jnp.mean(jnp.square(encoded["e"] @ encoded["e"].T)) + jnp.mean(encoded["norm"])


@pytest.mark.parametrize(("parts", "again"), [(2, True), (3, True), (3, False)])
def test_value_and_gradients_are_those_of_the_whole_batch(parts, again):
    wanted = jax.value_and_grad(lambda w: loss(w, X, parts=1))(jnp.asarray(W))
    step = jax.jit(jax.value_and_grad(lambda w: loss(w, X, parts=parts, again=again)))
    got = step(jnp.asarray(W))
    assert (count_flops(step.trace(jnp.asarray(W)).jaxpr).recomputed > 0) == again
    np.testing.assert_allclose(got[0], wanted[0], rtol=1e-6)
    np.testing.assert_allclose(got[1], wanted[1], rtol=1e-5, atol=1e-6)


def test_parts_on_a_mesh_equal_one_device():
    mesh = make_mesh(replica=2, fsdp=2, devices=jax.devices()[:4])
    wanted = jax.grad(lambda w: loss(w, X, parts=1))(jnp.asarray(W))
    with jax.set_mesh(mesh):
        x = jax.device_put(X, NamedSharding(mesh, PartitionSpec(("replica", "fsdp"))))
        got = jax.jit(jax.grad(lambda w, x: loss(w, x, parts=3)))(jnp.asarray(W), x)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


def test_the_message_names_the_field_that_the_caller_has():
    with pytest.raises(UserError, match=r"config\.loss\.microbatch=5 must divide the 12 rows"):
        loss(W, X, parts=5)
    with pytest.raises(UserError, match=r"config\.task\.parts=5 must divide the 12 rows"):
        in_parts(lambda rows: rows, rows={"x": X}, parts=5, field="config.task.parts")


def test_a_part_takes_rows_of_every_device_and_nothing_moves():
    mesh = make_mesh(replica=2, fsdp=2, devices=jax.devices()[:4])
    rows = NamedSharding(mesh, PartitionSpec(("replica", "fsdp")))
    x = jax.device_put(np.arange(16.0, dtype=np.float32).reshape(16, 1), rows)
    with jax.set_mesh(mesh):
        apart = jax.jit(lambda x: split(x, parts=2, devices=4))
        together = jax.jit(lambda x: join(x, devices=4))
        np.testing.assert_array_equal(np.asarray(apart(x))[0, :, 0], [0, 1, 4, 5, 8, 9, 12, 13])
        np.testing.assert_array_equal(together(apart(x)), x)
        programs = apart.lower(x).compile().as_text(), together.lower(apart(x)).compile().as_text()
    for collective in ("all-gather", "all-to-all", "collective-permute", "all-reduce"):
        assert not any(collective in program for program in programs)
