"""One of two processes that go through the preflight again and again, each time with another fault in process 1."""

import argparse
import dataclasses
import json
import os
import sys
import time
from pathlib import Path

from fake_devices import xla_flags


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--coordinator", required=True)
    parser.add_argument("--process_id", type=int, required=True)
    args = parser.parse_args()
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = xla_flags(1)
    import engine_toy as toy
    import numpy as np

    from twinreel.base.errors import UserError
    from twinreel.engine.start import preflight
    from twinreel.engine.start.join import initialize_distributed

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

    def lost_between(seconds):
        """A process that passes the first check and does not come to the second in time."""
        look = preflight._shared_faults
        preflight._shared_faults = lambda *args, **options: time.sleep(seconds) or look(*args, **options)
        try:
            return preflight.preflight(good, timeout_s=2.0)
        finally:
            preflight._shared_faults = look

    def without_answer(seconds):
        time.sleep(seconds)
        return preflight.agree("probe", facts={}, judge=lambda _: [], timeout_s=1.0)

    def checked(**changes):
        return preflight.preflight(dataclasses.replace(good, **changes) if other else good, timeout_s=60.0)

    scenarios = {
        "good": lambda: checked(),
        "config": lambda: checked(config=toy.config(train__steps=13, optimizer__lr=0.1)),
        "data": lambda: checked(readable=fail),
        "workdir": lambda: checked(workdir=args.workdir),
        "clock": lambda: skewed(120.0 if other else 0.0),
        "program": lambda: preflight.same_programs(["x", "b" if other else "a"], timeout_s=60.0),
        "same_program": lambda: preflight.same_programs(["program a"], timeout_s=60.0),
        "on_all": lambda: preflight.on_all("data", fail if other else list, timeout_s=60.0),
        "on_all_same": lambda: preflight.on_all("data", lambda: "b" if other else "a", timeout_s=60.0, same=str),
        "on_all_good": lambda: preflight.on_all("data", lambda: "b" if other else "a", timeout_s=60.0),
        "late": lambda: late(5.0 if other else 0.0),
        "lost_between": lambda: lost_between(4.0 if other else 0.0),
        "without_answer": lambda: without_answer(0.0 if other else 5.0),
    }
    answers = {}
    for name, scenario in scenarios.items():
        preflight.agree("scenario", facts={}, judge=lambda _: [], timeout_s=60.0)  # one may be late from the last
        try:
            answers[name] = scenario()
        except UserError as error:
            answers[name] = f"error: {error}"
    (args.workdir / f"answers-{args.process_id}.json").write_text(json.dumps(answers))
    return 0


if __name__ == "__main__":
    sys.exit(main())
