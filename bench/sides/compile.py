"""One measurement of `twinreel bench compile`, in a process of its own: its peak of memory is that of one program."""

import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

from ...base.config import load_config
from ...pretrain.begin import with_sources
from ...pretrain.step_parts import make_parts


def main() -> int:
    """Compile the step of the config that the arguments name; print a line of JSON."""
    name, *overrides = sys.argv[1:]
    config, _ = with_sources(load_config(name, overrides=overrides))
    parts, made = timed(lambda: make_parts(config))
    lowered, traced = timed(lambda: parts.trace().lower())
    compiled, built = timed(lowered.compile)
    needs = compiled.memory_analysis()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    stages = {"prepare": made, "trace": traced, "compile": built}
    seconds = {
        f"{stage}_{clock}_s": value for stage, pair in stages.items() for clock, value in zip(CLOCKS, pair, strict=True)
    }
    sizes = {"lowered_bytes": len(lowered.as_text()), "temporary_bytes": needs.temp_size_in_bytes}
    print(json.dumps(seconds | {"peak_bytes": peak} | sizes), flush=True)
    return 0


CLOCKS = ("wall", "cpu")


def timed(make: Callable[[], Any]) -> tuple[Any, tuple[float, float]]:
    """Return what `make` returns, and its seconds of wall and CPU time."""
    wall, cpu = time.perf_counter(), time.process_time()
    made = make()
    return made, (time.perf_counter() - wall, time.process_time() - cpu)


if __name__ == "__main__":
    sys.exit(main())
