"""The command line of every verb: one argparse parser whose errors name the nearest flag."""

import argparse
import dataclasses
import re
from pathlib import Path
from typing import Any, NoReturn

from .errors import UserError, nearest


class Parser(argparse.ArgumentParser):
    """An argument parser for `twinreel VERB`; its help shows the description as written and all defaults."""

    def __init__(self, *, verb: str, description: str):
        super().__init__(
            prog=f"twinreel {verb}",
            description=description,
            formatter_class=_HelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Raise instead of exiting, so that `__main__` prints every user error the same way."""
        raise UserError(f"{message}\n  ({self.prog} --help explains the flags)")

    def parse(self, argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
        """Parse `argv`; return the namespace and the `--config.KEY=VALUE` overrides in their order.

        Raises:
          UserError: an unknown flag (names the nearest one), a missing one, or a value of the wrong type.
        """
        takes_config = any("--config" in action.option_strings for action in self._actions)
        overrides = [a for a in argv if a.startswith("--config.")] if takes_config else []
        argv = [a for a in argv if a not in overrides]
        self._check_flags(argv)  # first: a misspelt flag would otherwise be reported as a missing one
        args, rest = self.parse_known_args(argv)
        if rest:
            self.error(f"unexpected argument {rest[0]!r}")
        return args, overrides

    def _check_flags(self, argv: list[str]) -> None:
        known = [option for action in self._actions for option in action.option_strings]
        for flag in (token.split("=")[0] for token in argv if token.startswith("--") and token != "--"):
            if flag not in known:
                hint = nearest(flag, known)
                self.error(f"unknown flag {flag}" + (f"; did you mean {hint}?" if hint else ""))

    def add_config(self, *, default: str | None = None) -> None:
        """Add `--config CONFIG` (file or shipped name, with `:args`) and the `--config.KEY=VALUE` overrides."""
        from .config import shipped  # needs ml_collections, which a verb without a config does not

        self.add_argument(
            "--config",
            metavar="CONFIG",
            default=default,
            required=default is None,
            help=f"a config file or the name of one that ships ({', '.join(shipped())}), with optional `:args`; "
            "change any field with --config.KEY=VALUE, for example --config.data.batch_size=128",
        )

    def add_distributed(self) -> None:
        """Add the flags by which a process of several finds the others; `Distributed.of` reads them."""
        group = self.add_argument_group("several processes (`twinreel launch` gives these flags itself)")
        group.add_argument("--distributed", action="store_true", help="join the cluster that the environment describes")
        group.add_argument("--coordinator", default="", help="HOST:PORT of process 0")
        group.add_argument("--num_processes", type=int, help="how many processes train together")
        group.add_argument("--process_id", type=int, help="which of them this is, from 0")
        group.add_argument("--init_timeout", type=float, default=300.0, help="seconds to wait for the other processes")
        group.add_argument("--stopped_status", type=int, default=0, help="exit status if a signal stopped the run")


def folder(text: str, *, flag: str) -> Path:
    """Return the folder that a flag names.

    Raises:
      UserError: it is a URL. As a path it would mean a folder of this machine, which is lost with it.
    """
    if "://" in text:
        raise UserError(
            f"{flag} must be a folder in the file system, got the URL {text!r}; mount a file system that all hosts "
            "share (`twinreel launch --backend gke` mounts with --claim CLAIM=/PATH or --bucket BUCKET=/PATH) and give "
            "the path in it"
        )
    return Path(text)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distributed:
    """What the flags of `Parser.add_distributed` say; the fields are the arguments of engine's initialize_distributed.

    Attributes:
      coordinator: "HOST:PORT" of process 0; None = the environment says it.
      num_processes: how many there are; None = the environment says it.
      process_id: which one this is, from 0; None = the environment says it.
      init_timeout: seconds to wait for the others.
    """

    coordinator: str | None
    num_processes: int | None
    process_id: int | None
    init_timeout: float

    @classmethod
    def of(cls, args: argparse.Namespace) -> "Distributed | None":
        """Return what was asked for, or None for one process alone.

        Raises:
          UserError: --num_processes or --process_id without --coordinator or --distributed, which would start as many
            runs of one process each.
        """
        lonely = [name for name in ("num_processes", "process_id") if getattr(args, name) is not None]
        if not (args.distributed or args.coordinator):
            if lonely:
                raise UserError(f"--{lonely[0]} needs --coordinator HOST:PORT of process 0")
            return None
        return cls(
            coordinator=args.coordinator or None,
            num_processes=args.num_processes,
            process_id=args.process_id,
            init_timeout=args.init_timeout,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as keyword arguments."""
        return dataclasses.asdict(self)


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of the description; appends the default to each flag's help."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = action.help or ""
        hidden = (None, "", argparse.SUPPRESS, False, True)
        if action.default in hidden or action.required or re.search(r"%\(default\)", text):
            return text
        return text + " (default: %(default)s)"
