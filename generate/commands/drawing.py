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


def add_choice(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the choice among several clips for a text."""
    group = parser.add_argument_group("best of several")
    words = "clips to generate for each text, of which the one is kept that --rank_by finds nearest to the text"
    group.add_argument("--best_of", type=int, default=1, metavar="N", help=words)
    words = (
        "a dual tower that ranks: a run, a bundle or public weights; it may be the one that conditions the generator"
    )
    group.add_argument("--rank_by", default="", metavar="MODEL", help=words)


def check_choice(args: argparse.Namespace) -> None:
    """Check the flags of `add_choice`.

    Raises:
      UserError: one of the two without the other.
    """
    if args.best_of < 1:
        raise UserError(f"--best_of must be at least 1, got {args.best_of}")
    if args.best_of > 1 and not args.rank_by:
        raise UserError(f"--best_of {args.best_of} needs a dual tower that ranks the clips; name it with --rank_by")
    if args.rank_by and args.best_of == 1:
        raise UserError(
            f"--rank_by {args.rank_by} has nothing to rank; say of how many clips with --best_of, such as 8"
        )


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
