"""What the comparisons with public models share: their flags, and two processes that take turns."""

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...base.errors import UserError, unknown
from ...base.parser import Parser
from .worker import Worker

SIDES = Path(__file__).parents[1] / "sides"
_HINT = "; --torch_python names a Python that has torch and transformers"


@dataclass(frozen=True)
class Pair:
    """Both sides of a comparison, ready: their processes, and what each has said of itself."""

    ours: Worker
    public: Worker
    own: dict[str, Any]
    theirs: dict[str, Any]

    def turns(self, order: str, *, rounds: int) -> list[tuple[tuple[float, ...], tuple[float, ...]]]:
        """Let both carry out an order in turns; returns figures of (ours, public), without a first round to warm up."""
        pairs = [(self.ours.run(order), self.public.run(order)) for _ in range(rounds)]
        return pairs[1:] or pairs


def add_flags(parser: Parser, *, default: Sequence[str]) -> None:
    """Add the flags that every comparison has."""
    parser.add_argument("--cases", default=",".join(default), metavar="A,B", help="models to compare")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each side; the first one is not counted")
    parser.add_argument("--torch_python", default=sys.executable, help="a Python that has torch and transformers")
    parser.add_json()


def checked_cases(args: argparse.Namespace, *, known: Collection[str], counts: Sequence[str]) -> list[str]:
    """Return the cases of `--cases`.

    Args:
      args: parsed flags.
      known: names of all cases.
      counts: flags that must be at least 1.

    Raises:
      UserError: a case that is not known; a count below 1.
    """
    cases = args.cases.split(",")
    for case in cases:
        if case not in known:
            raise unknown("case in --cases", case, known)
    for name in counts:
        if getattr(args, name) < 1:
            raise UserError(f"--{name} must be at least 1, got {getattr(args, name)}")
    return cases


@contextlib.contextmanager
def two_sides(case: str, *, sides: str, flags: Sequence[str], torch_python: str) -> Iterator[Pair]:
    """Start both sides of a comparison.

    The public side writes a folder with its model, which twinreel converts.

    Args:
      case: a name of the public side's `CASES`.
      sides: what is compared: `sides/torch_NAME.py` is the public side, `sides/NAME.py` is twinreel's.
      flags: further flags of the public side.
      torch_python: a Python with torch and transformers.

    Raises:
      UserError: a side that cannot be run.
    """
    with tempfile.TemporaryDirectory(prefix=f"twinreel-{sides}-") as folder, contextlib.ExitStack() as stack:
        command = [torch_python, str(SIDES / f"torch_{sides}.py"), f"--case={case}", f"--folder={folder}", *flags]
        public = stack.enter_context(Worker(command, name=f"the public side of {case}", hint=_HINT))
        theirs = public.facts()  # it has written the folder
        command = [sys.executable, "-m", f"twinreel.bench.sides.{sides}", folder]
        ours = stack.enter_context(Worker(command, name=f"twinreel's side of {case}"))
        yield Pair(ours=ours, public=public, own=ours.facts(), theirs=theirs)
