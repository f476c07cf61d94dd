"""The job to launch: a verb and its flags, run by every process."""

import dataclasses
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from ..base.errors import UserError, unknown
from ..engine.remote.place import url_in, workdir_of

# The verbs that take the flags of `Parser.add_distributed`; a test compares this with the verbs themselves.
DISTRIBUTED_VERBS = ("pretrain", "evaluate", "probe", "finetune", "generate train")
_OURS = ("--distributed", "--coordinator", "--num_processes", "--process_id")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """A verb with its flags, to be run by several processes.

    Attributes:
      verb: one of DISTRIBUTED_VERBS.
      flags: its flags, except those by which the processes find each other.
    """

    verb: str
    flags: tuple[str, ...]

    def command(self, *, python: str, join: Sequence[str]) -> list[str]:
        """Return the command of one process; `join` are the flags by which it finds the others."""
        return [python, "-m", "twinreel", *self.verb.split(), *self.flags, *join]

    def line(self, *, python: str, join: Sequence[str]) -> str:
        """Return `command` as a line for a shell."""
        return shlex.join(self.command(python=python, join=join))

    def value(self, flag: str) -> str | None:
        """Return the value of a flag of the verb, or None if the flag is absent."""
        found = None
        for i, token in enumerate(self.flags):
            if token == flag and i + 1 < len(self.flags):
                found = self.flags[i + 1]
            elif token.startswith(flag + "="):
                found = token.removeprefix(flag + "=")
        return found

    @property
    def logs(self) -> Path:
        """Folder of the logs where no flag names one: in the workdir, or here if that is a URL."""
        workdir = self.value("--workdir") or ""
        return Path("runs/launch" if not workdir or url_in(workdir) else workdir) / "logs"

    @property
    def name(self) -> str:
        """Name for the scheduler: verb and config in lower-case letters, digits and "-", at most 40 characters."""
        config = (self.value("--config") or "").rsplit("/", 1)[-1].removesuffix(".py")
        words = re.sub(r"[^a-z0-9]+", "-", f"{self.verb}-{config}".lower()).strip("-")
        return words[:40].rstrip("-")


def split(argv: Sequence[str]) -> tuple[list[str], Job | None]:
    """Split the command line at "--" into the flags of launch and the job; without "--" there is no job.

    Raises:
      UserError: no verb after "--", a verb that runs in one process only, flags that launch sets itself, or a --workdir
        that is a URL of another kind than s3:// and gs://.
    """
    if "--" not in argv:
        return list(argv), None
    at = list(argv).index("--")
    own, rest = list(argv[:at]), list(argv[at + 1 :])
    if not rest:
        raise UserError("no verb after --; write: twinreel launch --backend local -- pretrain --config demo ...")
    words = 2 if " ".join(rest[:2]) in DISTRIBUTED_VERBS else 1
    verb, flags = " ".join(rest[:words]), rest[words:]
    if verb not in DISTRIBUTED_VERBS:
        known = {"prepare": "; `prepare` itself has --workers, and Apache Beam for many machines"}
        if verb.startswith("-"):
            raise unknown("verb after --", verb, DISTRIBUTED_VERBS)
        others = ", ".join(DISTRIBUTED_VERBS[:-1])
        raise UserError(
            f"`twinreel {verb}` runs in one process; launch starts {others} and {DISTRIBUTED_VERBS[-1]}"
            + known.get(verb, "")
        )
    given = [token for token in flags if token.split("=")[0] in _OURS]
    if given:
        raise UserError(f"`launch` sets {given[0].split('=')[0]} for each process; omit it after --")
    job = Job(verb=verb, flags=tuple(flags))
    workdir_of(job.value("--workdir") or "")
    return own, job
