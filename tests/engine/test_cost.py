import jax
import jax.numpy as jnp
import numpy as np
import pytest
from engine_toy import BATCH, FEATURES, ToyObjective, batch_of

from twinreel.configs.errors import UserError
from twinreel.engine.cost import mfu, peak_flops, step_cost
from twinreel.engine.mesh import make_mesh
from twinreel.engine.optimizer import make_optimizer
from twinreel.engine.state import Blueprint
from twinreel.engine.step import lower_step


def cost_of(function, *shapes):
    lowered = jax.jit(function).lower(*[jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes])
    return step_cost(lowered, compiled=lowered.compile(), devices=1)


def test_flops_of_a_matrix_product():
    cost = cost_of(lambda a, b: a @ b, (64, 32), (32, 16))
    assert cost.flops == 2 * 64 * 32 * 16
    assert cost.flops_of == "compiled"
    assert not cost.loops
    assert cost.argument_bytes == 4 * (64 * 32 + 32 * 16)
    assert cost.peak_bytes >= cost.argument_bytes + 4 * 64 * 16


def test_a_loop_is_reported_as_a_lower_bound():
    cost = cost_of(lambda a: jax.lax.fori_loop(0, 10, lambda _, x: jnp.tanh(x @ a), a), (32, 32))
    assert cost.loops
    assert cost.flops < 10 * 2 * 32**3


def test_cost_of_a_step():
    width = 64
    objective, optimizer = ToyObjective(width=width), make_optimizer(steps=5, lr=0.1)
    plan = Blueprint(objective=objective, optimizer=optimizer, mesh=make_mesh(), seed=0)
    lowered = lower_step(batch_of(0), objective=objective, optimizer=optimizer, blueprint=plan)
    cost = step_cost(lowered, compiled=lowered.compile(), devices=8)
    forward = 2 * (BATCH // 8) * (FEATURES * width + width)
    assert cost.flops > 2 * forward  # forward, and backward to the parameters
    state = sum(np.prod(leaf.shape, dtype=int) * 4 for leaf in jax.tree.leaves(plan.abstract))
    assert state < cost.argument_bytes < state + 1000


def test_known_peaks_and_mfu():
    assert peak_flops("TPU v5p") == peak_flops("TPU v5") == 459e12
    assert peak_flops("TPU v5e") == peak_flops("TPU v5 lite") == 197e12
    assert peak_flops("TPU v6 lite") == 918e12
    assert peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_flops("NVIDIA H100 PCIe") == 756e12
    assert peak_flops("NVIDIA A100-SXM4-80GB", dtype="float32") == 19.5e12
    assert peak_flops("Tesla T4") == 65e12
    assert peak_flops("NVIDIA L4") == 121e12
    assert peak_flops("NVIDIA L40S") == 362e12
    assert peak_flops("TPU v4", dtype="float32") is None
    assert peak_flops("cpu") is None
    cost = cost_of(lambda a, b: a @ b, (64, 32), (32, 16))
    np.testing.assert_allclose(mfu(cost, seconds=1e-9, device_kind="TPU v4"), 65536 / (1e-9 * 275e12))
    assert mfu(cost, seconds=1.0, device_kind="cpu") is None
    with pytest.raises(UserError, match="did you mean 'float32'"):
        peak_flops("TPU v4", dtype="flot32")
