"""One of two processes that go through the preflight again and again, each time with another fault in process 1."""

import argparse
import dataclasses
import json
import os
import sys
import time
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--coordinator", required=True)
    parser.add_argument("--process_id", type=int, required=True)
    args = parser.parse_args()
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=1"
    import engine_toy as toy
    import numpy as np

    from twinreel.configs.errors import UserError
    from twinreel.engine.sharding.mesh import initialize_distributed
    from twinreel.engine.start import preflight

    initialize_distributed(coordinator=args.coordinator, num_processes=2, process_id=args.process_id)
    other = args.process_id == 1
    preflight._SHARED_WAIT_S = 1.0  # the folder of these tests is on a disk, not on a network
    good = preflight.Checks(config=toy.config(), workdir=args.workdir / "run", state=np.zeros(4), readable=lambda: None)

    def fail():
        raise UserError("record 7 of split 'train' is damaged")

    def skewed(ahead):
        clock, time.time = time.time, lambda: clock() + ahead
        try:
            return preflight.preflight(good, timeout_s=60.0)
        finally:
            time.time = clock

    def late(seconds):
        time.sleep(seconds)
        return preflight.preflight(good, timeout_s=2.0)

    def checked(**changes):
        return preflight.preflight(dataclasses.replace(good, **changes) if other else good, timeout_s=60.0)

    scenarios = {
        "good": lambda: checked(),
        "config": lambda: checked(config=toy.config(train__steps=13, optimizer__lr=0.1)),
        "data": lambda: checked(readable=fail),
        "workdir": lambda: checked(workdir=args.workdir),
        "clock": lambda: skewed(120.0 if other else 0.0),
        "program": lambda: preflight.same_program("program b" if other else "program a"),
        "same_program": lambda: preflight.same_program("program a"),
        "late": lambda: late(5.0 if other else 0.0),
    }
    answers = {}
    for name, scenario in scenarios.items():
        try:
            answers[name] = scenario()
        except UserError as error:
            answers[name] = f"error: {error}"
    (args.workdir / f"answers-{args.process_id}.json").write_text(json.dumps(answers))
    return 0


if __name__ == "__main__":
    sys.exit(main())
