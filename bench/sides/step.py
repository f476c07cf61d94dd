"""The sides of `twinreel bench compare_step` that run on jax: twinreel's train step, and bare matrix products.

They need jax and flax, neither tensorflow nor ml_collections. `torch_step` describes how a side is run.
"""

import collections
import math
import os
import sys
from typing import Any

from ...engine.start.allocator import keep_freed_memory_on_cpus
from .torch_step import (
    ADAMW,
    FRAMES,
    LENGTH,
    PIXELS,
    VOCAB,
    Side,
    SideOptions,
    dense_layers,
    make_batch,
    serve,
    step_flops,
)


def main() -> int:
    """Run one side."""
    options = SideOptions.parse(sys.argv[1:])
    os.environ["JAX_PLATFORMS"] = "cuda" if options.device == "gpu" else "cpu"
    keep_freed_memory_on_cpus()
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.95")  # torch may use nearly all of a GPU, too
    return serve(options, make={"twinreel": twinreel_side, "matmul": matmul_side}[options.library])


def compiled_step(options: SideOptions, *, depth: int | None = None) -> tuple[Any, ...]:
    """Build the towers and compile the step that `pretrain` compiles.

    Args:
      options: of the side.
      depth: blocks of either tower; None = as the model has them.

    Returns:
      The compiled step, the builder of its state, the mesh, the batch on its devices, and the flag that goes on.
    """
    import jax
    import numpy as np

    from ...data.options import InputSpec
    from ...engine.optimizer.optimizer import make_optimizer
    from ...engine.sharding.mesh import make_mesh, put_batch
    from ...engine.step.state import StateBuilder
    from ...engine.step.step import compile_step, stop_flags
    from ...pretrain.objective import Contrastive

    model = options.sizes
    same: dict[str, Any] = {"dtype": options.dtype, "activation": "quick_gelu"}
    same |= {"depth": depth} if depth else {}
    objective = Contrastive(
        model={
            "embed_dim": model.embed,
            "unroll": options.unroll,
            "remat": options.remat,
            "video": model.video | {"image_size": PIXELS, "patch": model.patch, "temporal_depth": 0} | same,
            "text": model.text | same,
        },
        loss={},
        input=InputSpec(num_frames=FRAMES, context_length=LENGTH),
        vocab_size=VOCAB,
    )
    optimizer = make_optimizer(name="adamw", schedule="constant", steps=1000, **ADAMW)
    mesh = make_mesh()
    pixels, text = make_batch(options.batch_size)
    rows = {"video": pixels, "text": text, "text_mask": np.ones(text.shape, bool)}
    with jax.set_mesh(mesh):
        builder = StateBuilder(objective=objective, optimizer=optimizer, mesh=mesh, seed=0)
        batch = put_batch(rows, mesh=mesh)
        return compile_step(batch, builder=builder), builder, mesh, batch, stop_flags(mesh)[False]


def twinreel_side(options: SideOptions) -> Side:
    """Prepare twinreel's train step."""
    import jax

    compiled, builder, mesh, batch, go_on = compiled_step(options)
    with jax.set_mesh(mesh):
        state = builder.init()

    def step() -> float:
        nonlocal state
        state, outputs = compiled(state, batch, go_on)
        return float(outputs["metrics"]["loss"])

    def memory() -> dict[str, int]:
        limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
        needs = compiled.memory_analysis()
        if limit is None or needs is None:
            return {}
        resident = needs.argument_size_in_bytes
        return {"resident_bytes": resident, "peak_bytes": resident + needs.temp_size_in_bytes, "limit_bytes": limit}

    facts = {
        "what": f"twinreel, jax {jax.__version__}",
        "parameters": sum(value.size for value in state.params.values()),
        "flops": step_flops(options.sizes, batch_size=options.batch_size, tokens=options.sizes.patches),
    }
    return Side(step=step, facts=facts, memory=memory)


def matmul_side(options: SideOptions) -> Side:
    """Build bare products on the shapes of the dense layers: x W, dy W^T and x^T dy of each kind, as `jnp` does them.

    Kinds of layers are in the proportions of the towers. Operands are of the dtype; results are of the dtype on a GPU
    and float32 on a CPU, which is the faster way on each.
    """
    import jax
    import jax.numpy as jnp

    model, dtype = options.sizes, options.dtype
    layers = collections.Counter(dense_layers(model, batch_size=options.batch_size, tokens=model.patches))
    least = min(layers.values())
    times = {layer: number // least for layer, number in layers.items()}
    with jax.numpy_dtype_promotion("standard"):
        draws = {
            shape: [
                jax.random.normal(jax.random.key(i), sides, jnp.float32).astype(dtype)
                for i, sides in enumerate((shape[:2], shape[1:], (shape[0], shape[2])))
            ]
            for shape in layers
        }

    def product(contract: tuple[int, int]):
        kind = dtype if options.device == "gpu" else jnp.float32

        def run(a, b):
            return jax.lax.dot_general(a, b, (((contract[0],), (contract[1],)), ((), ())), preferred_element_type=kind)

        return jax.jit(run)

    forward, to_input, to_weight = product((1, 0)), product((1, 1)), product((0, 0))

    def step() -> None:
        last = None
        for shape, (x, w, dy) in draws.items():
            for _ in range(times[shape]):
                last = forward(x, w), to_input(dy, w), to_weight(x, dy)
            if options.device == "cpu":  # a GPU runs them in order; waiting would leave it idle
                jax.block_until_ready(last)
        jax.block_until_ready(last)

    facts = {
        "what": f"jax {jax.__version__}",
        "flops": float(sum(6 * math.prod(shape) * n for shape, n in times.items())),
    }
    return Side(step=step, facts=facts)


if __name__ == "__main__":
    sys.exit(main())
