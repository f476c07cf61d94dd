"""twinreel's side of `twinreel bench compare_generate`: a public language model, converted, on the same prompts.

It prints its facts as one line of JSON, then generates for each line of standard input (`greedy`, `beam`) and prints
wall and CPU seconds and the peak of its memory.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ...engine.keeping.transfer import fill
from ...engine.start.allocator import keep_freed_memory_on_cpus
from ...models.generate import GenerateOptions, generate
from ...zoo.build import build
from ...zoo.convert.convert import convert
from .torch_generate import BEAMS


def main() -> int:
    """Run the side: the folder is the only argument."""
    keep_freed_memory_on_cpus()  # before jax starts threads
    folder = Path(sys.argv[1])
    with np.load(folder / "io.npz") as file:
        given = dict(file)
    made = convert(folder)
    model = nnx.eval_shape(lambda: build(made.spec, rngs=nnx.Rngs(0), unroll=0))
    fill(model, values=made.params)
    graph, state = nnx.split(model.decoder)
    state = jax.tree.map(jnp.asarray, state)
    prompt, length = jnp.asarray(given["prompt"]), given["greedy"].shape[1]
    runs, equal, compiling = {}, {}, {}
    for mode in ("greedy", "beam"):
        options = GenerateOptions(method=mode, max_tokens=length, beams=BEAMS)

        def write(state: Any, prompt: jax.Array, options: GenerateOptions = options) -> Any:
            return generate(nnx.merge(graph, state), prompt=prompt, eos_id=-1, pad_id=0, options=options)

        begin = time.perf_counter()
        runs[mode] = jax.jit(write).lower(state, prompt).compile()
        compiling[mode] = time.perf_counter() - begin
        tokens = np.asarray(runs[mode](state, prompt).tokens)[:, 0]
        equal[mode] = float((tokens == given[mode]).mean())
    facts = {"what": f"twinreel, jax {jax.__version__}", "equal": equal, "compile_s": compiling}
    print(json.dumps(facts), flush=True)
    for line in sys.stdin:
        start, start_cpu = time.perf_counter(), time.process_time()
        jax.block_until_ready(runs[line.strip()](state, prompt))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(time.perf_counter() - start, time.process_time() - start_cpu, peak, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
