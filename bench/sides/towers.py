"""twinreel's side of `twinreel bench compare_towers`: a public folder, converted, and its towers on the same inputs.

It prints its facts as one line of JSON, then runs a tower for each line of standard input (`video forward`, `text
train`) and prints wall and CPU seconds and the peak of its memory.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ...engine.keeping.transfer import fill
from ...engine.start.allocator import keep_freed_memory_on_cpus
from ...zoo.build import build
from ...zoo.convert.convert import convert

Inputs = dict[str, np.ndarray]
AS_PUBLIC = {"videoprism": {"text_positions": "stored"}}
"""Model type -> the options of `convert` with which it does what the public library does."""
OTHER = {"video": "text", "text": "video"}


def main() -> int:
    """Run the side: the folder is the only argument."""
    keep_freed_memory_on_cpus()  # as `pretrain` does; before jax starts threads
    folder = Path(sys.argv[1])
    with np.load(folder / "io.npz") as file:
        given = {key: file[key] for key in file.files}
    begin = time.perf_counter()
    kind = json.loads((folder / "config.json").read_text()).get("model_type", "")
    made = convert(folder, options=AS_PUBLIC.get(kind))
    model = build(made.spec, rngs=nnx.Rngs(0), unroll=0)
    fill(model, values=made.params)
    towers = [side for side in ("video", "text") if f"{side}_out" in given]
    seconds, runs, errors, compiling = time.perf_counter() - begin, {}, {}, {}
    for side in towers:
        begin = time.perf_counter()
        runs[side] = programs(model, side=side, given=given)
        compiling[side] = time.perf_counter() - begin
        errors[side] = error(np.asarray(runs[side]["forward"]()), wanted=given[f"{side}_out"])
    parameters = sum(value.size for value in made.params.values())
    facts = {"what": f"twinreel, jax {jax.__version__}", "parameters": parameters, "family": made.family}
    print(json.dumps(facts | {"errors": errors, "convert_s": seconds, "compile_s": compiling}), flush=True)
    for line in sys.stdin:
        side, mode = line.split()
        start, start_cpu = time.perf_counter(), time.process_time()
        jax.block_until_ready(runs[side][mode]())
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(time.perf_counter() - start, time.process_time() - start_cpu, peak, flush=True)
    return 0


def programs(model: Any, *, side: str, given: Inputs) -> dict[str, Callable[[], Any]]:
    """Compile the forward pass of a tower, and its forward and backward pass with the gradient of its parameters.

    The parameters of the other tower get no gradient, as in PyTorch; here it would be arrays of zeros.
    """
    graph, params, rest = nnx.split(model, nnx.All(nnx.Param, nnx.Not(partial(belongs, OTHER[side]))), ...)
    inputs = {"video": [given["video"]]} if side == "video" else {"text": [given["text"].astype(np.int32)]}
    arrays = [jnp.asarray(x) for x in inputs[side]]

    def forward(params: Any, *arrays: Any) -> Any:
        return encode(nnx.merge(graph, params, rest), side, *arrays)

    def loss(params: Any, *arrays: Any) -> Any:
        return jnp.sum(jnp.square(forward(params, *arrays)))

    run = jax.jit(forward).lower(params, *arrays).compile()
    train = jax.jit(jax.grad(loss)).lower(params, *arrays).compile()
    return {"forward": lambda: run(params, *arrays), "train": lambda: train(params, *arrays)}


def belongs(side: str, path: tuple[Any, ...], _: Any) -> bool:
    """Tell whether a variable of a dual tower is of this side's tower or of its projection."""
    return str(path[0]) in (side, f"{side}_projection")


def encode(model: Any, side: str, x: Any) -> Any:
    """Embed the inputs of a tower: of a dual tower in the joint space, else the tower's own vector."""
    dual = hasattr(model, "log_scale")
    if side == "video":
        return model.encode_video(x) if dual else model.video(x)
    mask = jnp.ones(x.shape, bool)
    return model.encode_text(x, mask=mask) if dual else model.text(x, mask=mask)


def error(found: np.ndarray, *, wanted: np.ndarray) -> float:
    """Return the largest difference of rows of unit length."""
    rows = [x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True) for x in (found, wanted)]
    return float(np.abs(rows[0] - rows[1]).max())


if __name__ == "__main__":
    sys.exit(main())
