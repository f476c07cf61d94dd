"""A process that trains the toy objective or tiny towers; tests kill it, stop it, starve it or run several of it."""

import argparse
import json
import os
import resource
import sys
import time
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--checkpoint_every", type=int, default=3)
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--seconds_per_batch", type=float, default=0.0)
    parser.add_argument("--full_at", type=int, default=-1, help="from this batch on no file may grow beyond 20 kB")
    parser.add_argument("--fsdp", type=int, default=1, help="split a parameter over so many devices")
    parser.add_argument("--contrastive", default="", help="train tiny towers, placed by this preset")
    parser.add_argument("--tensor", type=int, default=1)
    parser.add_argument("--coordinator")
    parser.add_argument("--num_processes", type=int)
    parser.add_argument("--process_id", type=int)
    args = parser.parse_args()
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={args.devices}"
    import contrastive_toy
    import engine_toy
    import jax

    from twinreel.configs.errors import UserError
    from twinreel.engine.mesh import initialize_distributed
    from twinreel.engine.train import train

    if args.coordinator:
        initialize_distributed(
            coordinator=args.coordinator, num_processes=args.num_processes, process_id=args.process_id
        )

    toy = contrastive_toy if args.contrastive else engine_toy
    objective = contrastive_toy.objective() if args.contrastive else engine_toy.ToyObjective(width=args.width)

    def batches(start):
        step = start
        for batch in toy.batches(start, process=jax.process_index(), processes=jax.process_count()):
            if step == args.full_at:
                resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
            time.sleep(args.seconds_per_batch)
            yield batch
            step += 1

    try:
        result = train(
            objective=objective,
            batches=batches,
            workdir=Path(args.workdir),
            config=engine_toy.config(
                train__steps=args.steps,
                train__log_every=1,
                train__checkpoint_every=args.checkpoint_every,
                train__eval_every=5,
                train__best_metric="val/score",
                mesh__fsdp=args.fsdp,
                mesh__tensor=args.tensor,
                sharding={"rules": args.contrastive or (("inner/kernel", (None, "fsdp")), (".*", ()))},
            ),
            meta={"objective": "toy"},
            evaluate=lambda model, step: {"val/score": float(-abs(step - 5))},
        )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps({"step": result.step, "reason": result.reason, "best": result.best}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
