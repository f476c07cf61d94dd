"""The command line of every verb: one argparse parser whose errors name the nearest flag."""

import argparse
import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from .errors import UserError, nearest


class Parser(argparse.ArgumentParser):
    """An argument parser for `twinreel VERB`; its help keeps the layout of the description and shows all defaults."""

    def __init__(self, *, verb: str, description: str):
        super().__init__(
            prog=f"twinreel {verb}",
            description=description,
            formatter_class=_HelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Raise instead of exiting, so that `__main__` prints every user error the same way."""
        raise UserError(f"{message}\n  (`{self.prog} --help` explains the flags)")

    def parse(self, argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
        """Parse `argv`; return the namespace and the overrides as `--config.KEY=VALUE`, in their order.

        On the command line an override may also be `--config.KEY VALUE`, as for every other flag.

        Raises:
          UserError: an unknown flag (the nearest one is named), a missing one, a value of the wrong type, or an
            override without a value.
        """
        argv, overrides = self._split_overrides(argv)
        self._check_flags(argv)  # first: a misspelt flag would otherwise be reported as a missing one
        args, rest = self.parse_known_args(argv)
        if rest:
            self.error(f"unexpected argument {rest[0]!r}{_remedy(rest[0], argv)}")
        return args, overrides

    def _split_overrides(self, argv: Sequence[str]) -> tuple[list[str], list[str]]:
        """Return `argv` without the overrides, and the overrides; a verb without --config has none."""
        if not any("--config" in action.option_strings for action in self._actions):
            return list(argv), []
        others, overrides, tokens = [], [], iter(argv)
        for token in tokens:
            if token == "--":
                others += [token, *tokens]
            elif not token.startswith("--config."):
                others.append(token)
            elif "=" in token:
                overrides.append(token)
            else:
                value = next(tokens, "--")
                if value.startswith("--"):
                    self.error(f"{token} has no value; write {token}=VALUE")
                overrides.append(f"{token}={value}")
        return others, overrides

    def _check_flags(self, argv: list[str]) -> None:
        known = {option: action for action in self._actions for option in action.option_strings}
        until = argv.index("--") if "--" in argv else len(argv)
        for flag, equals, value in (token.partition("=") for token in argv[:until] if token.startswith("--")):
            if flag not in known:
                hint = nearest(flag, known)
                self.error(f"unknown flag {flag}" + (f"; did you mean {hint}?" if hint else ""))
            if equals and known[flag].nargs == 0:
                self.error(f"{flag} takes no value, got {value!r}{_remedy(value, [flag, value])}")

    def add_config(self, *, default: str | None = None) -> None:
        """Add `--config CONFIG` (file or shipped name, with `:ARG`) and the `--config.KEY=VALUE` overrides."""
        from .config import shipped  # needs ml_collections, which a verb without a config does not

        self.add_argument(
            "--config",
            metavar="CONFIG",
            default=default,
            required=default is None,
            help=f"a config file or the name of a shipped config ({', '.join(shipped())}), optionally with an argument "
            "(CONFIG:ARG); --config.KEY=VALUE changes a field, for example --config.data.batch_size=128",
        )

    def add_json(self) -> None:
        """Add `--json`, which means the same in every verb that has it."""
        self.add_argument("--json", action="store_true", help="print one JSON object on standard output, nothing else")

    def add_run(self, *, stage: str = "") -> None:
        """Add the flags of a verb that trains: workdir, data, and how an earlier run in that workdir goes on.

        Args:
          stage: of a run in stages, the one whose checkpoints --resume_step names.
        """
        self.add_argument("--workdir", required=True, help="folder of this run, or an s3:// or gs:// URL")
        self.add_argument("--data", default="", help="prepared data set; short for --config.data.dir=DIR")
        self.add_argument(
            "--overwrite_config", action="store_true", help="continue in a workdir of another config or other data"
        )
        of = f" of the {stage} stage" if stage else ""
        self.add_argument(
            "--resume_step",
            type=int,
            metavar="K",
            help=f"go back to the checkpoint of step K{of} and drop what came after it",
        )

    def add_distributed(self) -> None:
        """Add the flags by which the processes of one run find each other; `Distributed.of` reads them."""
        group = self.add_argument_group("several processes (`twinreel launch` sets these flags)")
        group.add_argument("--distributed", action="store_true", help="join the cluster that the environment describes")
        group.add_argument("--coordinator", default="", help="HOST:PORT of process 0")
        group.add_argument("--num_processes", type=int, help="number of processes in the run")
        group.add_argument("--process_id", type=int, help="index of this process, from 0")
        group.add_argument("--init_timeout", type=float, default=300.0, help="seconds to wait for the other processes")
        group.add_argument("--stopped_status", type=int, default=0, help="exit status if a signal stopped the run")


def _remedy(value: str, argv: Sequence[str]) -> str:
    """Return what to write instead of an unexpected argument, where the flag before it explains the mistake."""
    before = argv[list(argv).index(value) - 1] if value in argv[1:] else ""
    if before == "--json":
        return f"; --json prints on standard output: write `--json > {value}` for a file"
    if before.startswith("--"):
        return f"; {before} takes no value"
    return ""


def folder(text: str, *, flag: str) -> Path:
    """Return the folder that a flag names.

    Raises:
      UserError: it is a URL, which as a path would be a folder of this machine, lost together with the machine.
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
    """The values of the flags of `Parser.add_distributed`; the fields are the arguments of `initialize_distributed`.

    Attributes:
      coordinator: "HOST:PORT" of process 0; None = from the environment.
      num_processes: number of processes; None = from the environment.
      process_id: index of this process, from 0; None = from the environment.
      init_timeout: seconds to wait for the other processes.
    """

    coordinator: str | None
    num_processes: int | None
    process_id: int | None
    init_timeout: float

    @classmethod
    def of(cls, args: argparse.Namespace) -> "Distributed | None":
        """Return the values of the flags, or None for a run of one process.

        Raises:
          UserError: --num_processes or --process_id without --coordinator or --distributed, which would start as many
            separate runs.
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
    """Keeps the line breaks of the description and appends the default to each flag's help."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = action.help or ""
        hidden = (None, "", argparse.SUPPRESS, False, True, [])
        if action.default in hidden or action.required or re.search(r"%\(default\)", text):
            return text
        return text + " (default: %(default)s)"
