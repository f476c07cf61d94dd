"""The flags by which clips are drawn, the same in all verbs that draw some."""

import argparse
from pathlib import Path
from typing import Any

from ...base.errors import UserError
from ..flow.solve import SolverOptions

_DEFAULT = SolverOptions()


def add_drawing(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    group = parser.add_argument_group("how clips are drawn")
    group.add_argument("--seed", type=int, default=0, help="of the noise: the same seed draws the same clips")
    group.add_argument("--steps", type=int, default=_DEFAULT.steps, help="steps from noise to clip")
    group.add_argument("--method", default=_DEFAULT.method, help="heun (two evaluations a step) or euler (one)")
    words = "weight of the text: 1 = none beyond training, above 1 follows the text more closely and varies less"
    group.add_argument("--guidance", type=float, default=_DEFAULT.guidance, help=words)
    group.add_argument("--seconds", type=float, default=2.5, help="length of a clip as a film")
    group.add_argument("--batch_size", type=int, default=16, help="clips at a time")


def solver_of(args: argparse.Namespace) -> SolverOptions:
    """Return the solver that the flags describe, and check the others.

    Raises:
      UserError: a value out of its range.
    """
    from ..sample.written import check_seconds

    check_seconds(args.seconds)
    for name, least in (("batch_size", 1), ("seed", 0)):
        if getattr(args, name) < least:
            raise UserError(f"--{name} must be at least {least}, got {getattr(args, name)}")
    return SolverOptions(steps=args.steps, method=args.method, guidance=args.guidance)


def out_folder(args: argparse.Namespace) -> Path:
    """Make the folder of --out, and return it."""
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    return out


def about(args: argparse.Namespace, *, model: Any) -> dict[str, Any]:
    """Return how clips were drawn, for a protocol."""
    return {
        "model": str(model),
        "seed": args.seed,
        "steps": args.steps,
        "method": args.method,
        "guidance": args.guidance,
    }
