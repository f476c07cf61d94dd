"""A process that trains the toy objective or tiny towers; tests kill it, stop it, starve it or run several of it."""

import argparse
import json
import os
import resource
import sys
import threading
import time
from pathlib import Path

from fake_devices import xla_flags


def wait_for_a_batch_that_never_comes() -> None:
    time.sleep(10_000)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--checkpoint_every", type=int, default=3)
    parser.add_argument("--local_every", type=int, default=0)
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--seconds_per_batch", type=float, default=0.0)
    parser.add_argument("--slow", type=int, default=-1, help="the only process that --seconds_per_batch means")
    parser.add_argument("--full_at", type=int, default=-1, help="from this batch on no file may grow beyond 20 kB")
    parser.add_argument("--full", type=int, default=-1, help="the only process that --full_at means; -1 = all")
    parser.add_argument("--other_data", type=int, default=-1, help="the process that reads other data than the rest")
    parser.add_argument("--fsdp", type=int, default=1, help="split a parameter over so many devices")
    parser.add_argument("--contrastive", default="", help="train tiny towers, placed by this preset, small arrays too")
    parser.add_argument("--tensor", type=int, default=1, help="split it over so many devices on its other axis as well")
    parser.add_argument("--starve_at", type=int, default=-1, help="no batch ever comes from this one on")
    parser.add_argument("--starve", type=int, default=0, help="the process that --starve_at means")
    parser.add_argument("--evaluation_s", type=float, default=0.0, help="an evaluation takes so long")
    parser.add_argument("--hang_at", type=int, default=-1, help="this batch never comes")
    parser.add_argument("--poison_at", type=int, default=-1, help="the loss of this batch is nan, and it is skipped")
    parser.add_argument("--stall_timeout", type=float, default=600.0)
    parser.add_argument("--preflight_timeout", type=float, default=300.0)
    parser.add_argument("--sgd_lr", type=float, default=0.0, help="plain gradient steps at this rate, else AdamW")
    parser.add_argument("--coordinator")
    parser.add_argument("--num_processes", type=int)
    parser.add_argument("--process_id", type=int)
    return parser.parse_args()


def batches_from(start, *, toy, args, process, processes, moment):
    """Yield the toy's batches from step `start` on, with what `args` says befalls them."""
    options = {"poison_at": args.poison_at} if args.poison_at >= 0 else {}
    for step, batch in enumerate(toy.batches(start, process=process, processes=processes, **options), start):
        if step == args.full_at and args.full in (-1, process):
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        if step >= args.starve_at >= 0 and process == args.starve:
            moment("starving")
            threading.Event().wait()
        if step == args.hang_at:
            wait_for_a_batch_that_never_comes()
        time.sleep(args.seconds_per_batch if args.slow in (-1, process) else 0.0)
        yield batch


def main() -> int:
    args = arguments()
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = xla_flags(args.devices)
    import contrastive_toy
    import engine_toy
    import jax

    from twinreel.base.errors import UserError
    from twinreel.engine.loop.evaluation import Evaluation
    from twinreel.engine.loop.train import train
    from twinreel.engine.remote.place import workdir_of
    from twinreel.engine.start.join import initialize_distributed
    from twinreel.engine.start.preflight import on_all

    if args.coordinator:
        initialize_distributed(
            coordinator=args.coordinator, num_processes=args.num_processes, process_id=args.process_id
        )

    toy = contrastive_toy if args.contrastive else engine_toy

    workdir = workdir_of(args.workdir, process=jax.process_index())

    def moment(name):
        """Say where this process is, for a test that waits to kill it there."""
        if "://" in args.workdir:
            return
        (Path(args.workdir).parent / f"{Path(args.workdir).name}.{name}").touch()

    class Traced(engine_toy.ToyObjective):
        def loss(self, model, batch, *, rngs):
            moment("compiling")
            return super().loss(model, batch, rngs=rngs)

    def evaluate(model, step):
        moment("evaluating")
        time.sleep(args.evaluation_s)
        return {"score": float(-abs(step - 5))}

    objective = contrastive_toy.objective() if args.contrastive else Traced(width=args.width)

    def batches(start):
        process, processes = jax.process_index(), jax.process_count()
        return batches_from(start, toy=toy, args=args, process=process, processes=processes, moment=moment)

    rules = (("inner/kernel", ("tensor", "fsdp")), (".*", ()))
    if args.contrastive:
        rules = contrastive_toy.sharding_rules(args.contrastive)
    sgd = {"name": "sgd", "lr": args.sgd_lr, "b1": 0.0, "schedule": "constant"}
    content = "others" if args.other_data == jax.process_index() else "the data"
    try:
        on_all("data", lambda: content, timeout_s=args.preflight_timeout, same=str)  # as pretrain does
        result = train(
            objective=objective,
            batches=batches,
            workdir=workdir,
            config=engine_toy.config(
                train__steps=args.steps,
                train__log_every=1,
                train__checkpoint_every=args.checkpoint_every,
                train__local_every=args.local_every,
                train__eval_every=5,
                train__best_metric="val/score",
                train__stall_timeout=args.stall_timeout,
                train__skip_nonfinite=int(args.poison_at >= 0),
                mesh__fsdp=args.fsdp,
                mesh__tensor=args.tensor,
                **({"optimizer": sgd} if args.sgd_lr else {}),
                sharding={"rules": rules},
            ),
            meta={"objective": "toy"},
            evaluations=[Evaluation(name="val", run=evaluate)],
        )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps({"step": result.step, "reason": result.reason, "best": result.best}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
