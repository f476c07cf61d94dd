"""What is to be started: a verb and its flags, once per process."""

import dataclasses
import re
import shlex
from collections.abc import Sequence

from ..base.errors import UserError, unknown
from ..base.parser import folder

# The verbs that take the flags of `Parser.add_distributed`; a test compares this with the verbs themselves.
TOGETHER = ("pretrain", "finetune")
_OURS = ("--distributed", "--coordinator", "--num_processes", "--process_id")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """A verb with its flags, for several processes.

    Attributes:
      verb: one of TOGETHER.
      flags: its flags, without those by which the processes find each other.
    """

    verb: str
    flags: tuple[str, ...]

    def command(self, *, python: str, join: Sequence[str]) -> list[str]:
        """Return the command of one process; `join` are the flags by which it finds the others."""
        return [python, "-m", "twinreel", self.verb, *self.flags, *join]

    def line(self, *, python: str, join: Sequence[str]) -> str:
        """Return the same as a line for a shell."""
        return shlex.join(self.command(python=python, join=join))

    def value(self, flag: str) -> str | None:
        """Return the value of a flag of the verb, or None if it is not given."""
        found = None
        for i, token in enumerate(self.flags):
            if token == flag and i + 1 < len(self.flags):
                found = self.flags[i + 1]
            elif token.startswith(flag + "="):
                found = token.removeprefix(flag + "=")
        return found

    @property
    def name(self) -> str:
        """A name for the queue: the verb and the config, of lower-case letters, digits and "-", at most 40."""
        config = (self.value("--config") or "").rsplit("/", 1)[-1].removesuffix(".py")
        words = re.sub(r"[^a-z0-9]+", "-", f"{self.verb}-{config}".lower()).strip("-")
        return words[:40].rstrip("-")


def split(argv: Sequence[str]) -> tuple[list[str], Job | None]:
    """Split the command line at "--" into launch's own flags and the job; without "--" there is no job.

    Raises:
      UserError: no verb after "--", one that several processes cannot run together, flags that launch gives itself, or
        a --workdir that is a URL.
    """
    if "--" not in argv:
        return list(argv), None
    at = list(argv).index("--")
    own, rest = list(argv[:at]), list(argv[at + 1 :])
    if not rest:
        raise UserError("nothing stands after --; write: twinreel launch --backend local -- pretrain --config demo ...")
    verb, flags = rest[0], rest[1:]
    if verb not in TOGETHER:
        known = {"prepare": "; `prepare` has --workers and Apache Beam for a fleet"}
        if verb.startswith("-"):
            raise unknown("verb after --", verb, TOGETHER)
        raise UserError(
            f"`twinreel {verb}` is not made for several processes; launch starts {' and '.join(TOGETHER)}"
            + known.get(verb, "")
        )
    given = [token for token in flags if token.split("=")[0] in _OURS]
    if given:
        raise UserError(f"launch gives {given[0].split('=')[0]} to each process itself; leave it away after --")
    job = Job(verb=verb, flags=tuple(flags))
    folder(job.value("--workdir") or "", flag="--workdir")
    return own, job
