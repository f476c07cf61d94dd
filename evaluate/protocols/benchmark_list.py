"""`twinreel evaluate --list [NAME]` and the flags that name a benchmark."""

import argparse
import json
from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from ...base.errors import UserError
from ...base.parser import Parser
from .benchmark_entry import Entry
from .benchmark_table import entries, find_entry
from .benchmarks import BENCHMARKS, Benchmark
from .choice_benchmarks import CHOICE_BENCHMARKS
from .class_benchmarks import CLASS_BENCHMARKS
from .retrieval import prepared_name

_RETRIEVAL = ("benchmark", "prepared from", "split", "videos", "texts", "queries", "frames", "text length", "ids")
_CLASSES = ("zero-shot", "prepared from", "split", "videos", "classes", "templates", "class names", "frames")
_CHOICES = ("multiple choice", "prepared from", "split", "options")
_NUMBERS = ("videos", "texts", "classes", "options")


def add_benchmark_flags(parser: Parser) -> None:
    """Add the flags of benchmarks to the parser of `evaluate`."""
    group = parser.add_argument_group("benchmarks (twinreel evaluate MODEL --benchmark NAME --data DIR --out DIR)")
    group.add_argument("--benchmark", default="", metavar="NAME", help=f"its protocol: {', '.join(entries())}")
    group.add_argument("--list", action="store_true", help="list the protocols, or with NAME explain one, and stop")


def choose_task(args: argparse.Namespace) -> None:
    """Set `--zero_shot` or `--multiple_choice` where the benchmark measures that.

    Raises:
      UserError: no benchmark has that name, it measures something else than the flags ask for, or a file is measured.
    """
    if not args.benchmark:
        return
    task = find_entry(args.benchmark).task
    given = {"zero-shot classification": args.zero_shot, "multiple choice": args.multiple_choice}
    if wrong := [other for other, value in given.items() if value and other != task]:
        raise UserError(
            f"--benchmark {args.benchmark} belongs to {task}, and the flags ask for {wrong[0]}; leave one of them out"
        )
    if file := args.embeddings or args.scores:
        raise UserError(f"--benchmark {args.benchmark} goes with MODEL --data DIR; {file} has its protocol already")
    args.zero_shot, args.multiple_choice = (task == name for name in given)


def explained(argv: list[str]) -> bool:
    """Print what `--list [NAME] [--json]` asks for; return whether `argv` does.

    Raises:
      UserError: the name is unknown, or other flags are given.
    """
    if "--list" not in argv:
        return False
    rest = [word for word in argv if word not in ("--list", "--json")]
    if "--benchmark" in rest:
        rest.remove("--benchmark")
    rest = [word.removeprefix("--benchmark=") for word in rest]
    if len(rest) > 1 or any(word.startswith("-") for word in rest):
        wrong = next((word for word in rest if word.startswith("-")), rest[-1])
        raise UserError(f"--list takes the name of one benchmark and --json, got {wrong!r}; leave it out")
    show(rest[0] if rest else "", as_json="--json" in argv)
    return True


def show(name: str = "", *, as_json: bool = False) -> None:
    """Print the table of all protocols, or one in full; as JSON if asked.

    Raises:
      UserError: no benchmark has that name.
    """
    console = Console(markup=False, highlight=False, soft_wrap=True)
    if as_json:
        made = _json(find_entry(name)) if name else {key: _json(entry) for key, entry in entries().items()}
        print(json.dumps(made, indent=2))
    elif name:
        console.print(describe(find_entry(name)))
    else:
        for table in (_retrieval(), _classes(), _choices()):
            width = Measurement.get(console, console.options.update(width=999), table).maximum
            console.width = max(console.width, width)
            console.print(table)
        console.print(
            "frames, text length: those of CLIP4Clip first, then of other code. ids: SHA-256 of the list of clip ids;\n"
            "- where the list is not public, so that clips are only counted. videos: - where copies differ.\n"
            "twinreel evaluate --list NAME explains one, with the command that prepares its data."
        )


def _json(entry: Entry) -> dict[str, Any]:
    return entry.to_dict() | {"prepare": entry.prepare}


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(name, justify="right" if name in _NUMBERS else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def _first(entry: Entry) -> list[str]:
    return [entry.name, prepared_name(entry.source, entry.options), entry.split]


def _frames(entry: Entry) -> str:
    return ", ".join(map(str, entry.frames.values())) or "-"


def _retrieval() -> Table:
    rows = [
        [
            *_first(entry),
            f"{entry.videos:,}",
            f"{entry.texts:,}",
            _queries(entry),
            _frames(entry),
            ", ".join(f"{length} {_unit(code)}" for code, length in entry.text_length.items()) or "-",
            (entry.ids_sha256 or "-")[:12],
        ]
        for entry in BENCHMARKS.values()
    ]
    return _table(_RETRIEVAL, rows)


def _classes() -> Table:
    rows = [
        [
            *_first(entry),
            "-" if entry.videos is None else f"{entry.videos:,}",
            f"{entry.classes:,}",
            entry.templates,
            entry.class_names,
            _frames(entry),
        ]
        for entry in CLASS_BENCHMARKS.values()
    ]
    return _table(_CLASSES, rows)


def _choices() -> Table:
    return _table(_CHOICES, [[*_first(entry), f"{entry.choices:,}"] for entry in CHOICE_BENCHMARKS.values()])


def _queries(entry: Benchmark) -> str:
    if "paragraph" in entry.text_aggregation:
        return "paragraphs"
    return "one caption" if entry.texts == entry.videos else f"{entry.captions} captions"


def _unit(code: str) -> str:
    return code.rpartition("(")[2].rstrip(")")


def describe(entry: Entry) -> str:
    """Return all that an entry says, as text: its fields, one per line, and the command that prepares its data."""
    lines = [f"{entry.name}: {entry.title}", ""]
    for key, value in entry.to_dict().items():
        if key not in ("name", "title"):
            lines.append(f"  {key:<17} {_shown(key, value)}")
    flags = f"--benchmark {entry.name} --data DIR --out DIR"
    return "\n".join([*lines, "", "prepare its data with", f"  {entry.prepare}", f"  twinreel evaluate MODEL {flags}"])


def _shown(key: str, value: Any) -> str:
    if isinstance(value, dict):
        words = any(isinstance(one, str) and " " in one for one in value.values())
        return ("; " if words else ", ").join(f"{name} {one}" for name, one in value.items()) or "-"
    if isinstance(value, list):
        return ", ".join(value) or "-"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if value is None:
        return "not checked" if key.endswith("_sha256") else "not fixed" if key == "videos" else "-"
    return str(value) or "-"
