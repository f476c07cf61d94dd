import jax
import jax.numpy as jnp
import numpy as np
import pytest
from engine_toy import BATCH, FEATURES, ToyObjective, batch_of

from twinreel.base.errors import UserError
from twinreel.cost.chips import peak_flops
from twinreel.cost.gpus import GPUS
from twinreel.cost.memory import step_memory
from twinreel.cost.step import matmul_dtype, mfu, step_cost
from twinreel.cost.tpus import TPUS
from twinreel.engine.optimizer.optimizer import make_optimizer
from twinreel.engine.sharding.mesh import batch_sharding, device_dtype, make_mesh
from twinreel.engine.step.state import StateBuilder
from twinreel.engine.step.step import trace_step


def cost_of(function, *shapes):
    traced = jax.jit(function).trace(*[jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes])
    return step_cost(traced.jaxpr, compiled=traced.lower().compile(), devices=1)


def step_of(*, width, fsdp=1):
    objective, optimizer = ToyObjective(width=width), make_optimizer(steps=5, lr=0.1)
    rules = (("inner/kernel", (None, "fsdp")), (".*", ()))
    plan = StateBuilder(
        objective=objective, optimizer=optimizer, mesh=make_mesh(replica=-1, fsdp=fsdp), seed=0, rules=rules
    )
    return plan, trace_step(batch_of(0), builder=plan)


def test_flops_and_memory_of_a_matrix_product():
    cost = cost_of(lambda a, b: a @ b, (64, 32), (32, 16))
    assert cost.flops == 2 * 64 * 32 * 16
    assert cost.recomputed_flops == cost.open_loops == 0
    assert cost.argument_bytes == 4 * (64 * 32 + 32 * 16)
    assert cost.peak_bytes >= cost.argument_bytes + 4 * 64 * 16


def test_cost_of_a_step():
    width = 64
    plan, traced = step_of(width=width)
    cost = step_cost(traced.jaxpr, compiled=traced.lower().compile(), devices=8)
    inner, head = 2 * BATCH * FEATURES * width, 2 * BATCH * width
    # forward; backward to both kernels, and through the head to the hidden layer
    assert cost.flops * 8 == 2 * inner + 3 * head
    state = sum(np.prod(leaf.shape, dtype=int) * 4 for leaf in jax.tree.leaves(plan.abstract))
    assert state < cost.argument_bytes < state + 1000


def test_memory_by_kind_adds_up_to_what_the_compiler_reserves():
    width = 64
    plan, traced = step_of(width=width, fsdp=4)
    compiled = traced.lower().compile()
    rows = batch_sharding(plan.mesh)
    batch = {k: jax.ShapeDtypeStruct(v.shape, device_dtype(v.dtype), sharding=rows) for k, v in batch_of(0).items()}
    memory = step_memory(compiled, state=plan.abstract, batch=batch, kept=100.0)
    parameters = 4 * (FEATURES * width // 4 + width + width + 1 + 1)  # inner kernel in four parts
    assert memory.parameters == parameters
    assert 2 * parameters <= memory.optimizer <= 2 * parameters + 16  # two moments and a counter
    assert memory.batch == 4 * (FEATURES + 1 + 1)  # one row on each device
    sizes = compiled.memory_analysis()
    reserved = sizes.argument_size_in_bytes + sizes.temp_size_in_bytes + sizes.generated_code_size_in_bytes
    reserved += sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    assert memory.total == reserved
    assert memory.activations + memory.temporaries == sizes.temp_size_in_bytes
    assert memory.activations == min(100, sizes.temp_size_in_bytes)


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


@pytest.mark.parametrize(
    ("device", "precision", "wanted"),
    [
        ("NVIDIA H100 80GB HBM3", None, 494.5e12),
        ("NVIDIA H100 80GB HBM3", "high", 494.5e12),
        ("NVIDIA H100 80GB HBM3", "highest", 67e12),
        ("NVIDIA H100 80GB HBM3", "float32", 67e12),
        ("Tesla V100-SXM2-16GB", None, 15.7e12),
    ],
)
def test_float32_is_held_against_what_jax_multiplies_in(device, precision, wanted):
    with jax.default_matmul_precision(precision):
        assert peak_flops(device, dtype=matmul_dtype("float32", device_kind=device)) == wanted
        assert matmul_dtype("bfloat16", device_kind=device) == "bfloat16"


def test_both_tables_of_chips_agree():
    for chip in (TPUS | GPUS).values():
        assert peak_flops(chip.kind) == chip.peak_flops
