"""`twinreel evaluate --list [NAME]` and the flags that name a benchmark."""

import json
from typing import Any

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from ...base.errors import UserError
from ...base.parser import Parser
from .benchmarks import BENCHMARKS, Benchmark, get_benchmark
from .retrieval import prepared_name

_COLUMNS = ("benchmark", "prepared from", "split", "videos", "texts", "queries", "frames", "text length", "ids")


def add_benchmark_flags(parser: Parser) -> None:
    """Add the flags of benchmarks to the parser of `evaluate`."""
    group = parser.add_argument_group("benchmarks (twinreel evaluate MODEL --benchmark NAME --data DIR --out DIR)")
    group.add_argument("--benchmark", default="", metavar="NAME", help=f"its protocol: {', '.join(BENCHMARKS)}")
    group.add_argument("--list", action="store_true", help="list the protocols, or with NAME explain one, and stop")
    words = "accepted for clarity: the any-match rows, which share duplicates, are there wherever texts repeat"
    group.add_argument("--share_duplicates", action="store_true", help=words)


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
        print(
            json.dumps(_json(get_benchmark(name)) if name else {n: _json(b) for n, b in BENCHMARKS.items()}, indent=2)
        )
    elif name:
        console.print(describe(get_benchmark(name)))
    else:
        table = _table()
        console.width = max(console.width, Measurement.get(console, console.options.update(width=999), table).maximum)
        console.print(table)
        console.print(
            "frames, text length: those of CLIP4Clip first, then of other code. ids: SHA-256 of the list of clip ids;\n"
            "- where the list is not public, so that clips are only counted.\n"
            "twinreel evaluate --list NAME explains one, with the command that prepares its data."
        )


def _json(entry: Benchmark) -> dict[str, Any]:
    return entry.to_dict() | {"prepare": entry.prepare}


def _table() -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in _COLUMNS:
        table.add_column(name, justify="right" if name in ("videos", "texts") else "left", no_wrap=True)
    for entry in BENCHMARKS.values():
        table.add_row(
            entry.name,
            prepared_name(entry.source, entry.options),
            entry.split,
            f"{entry.videos:,}",
            f"{entry.texts:,}",
            _queries(entry),
            ", ".join(map(str, entry.frames.values())) or "-",
            ", ".join(f"{length} {_unit(code)}" for code, length in entry.text_length.items()) or "-",
            (entry.ids_sha256 or "-")[:12],
        )
    return table


def _queries(entry: Benchmark) -> str:
    if "paragraph" in entry.text_aggregation:
        return "paragraphs"
    return "one caption" if entry.texts == entry.videos else f"{entry.captions} captions"


def _unit(code: str) -> str:
    return code.rpartition("(")[2].rstrip(")")


def describe(entry: Benchmark) -> str:
    """Return all that an entry says, as text: its fields, one per line, and the command that prepares its data."""
    lines = [f"{entry.name}: {entry.title}", ""]
    for key, value in entry.to_dict().items():
        if key not in ("name", "title"):
            lines.append(f"  {key:<17} {_shown(key, value)}")
    flags = f"--benchmark {entry.name} --data DIR --out DIR"
    return "\n".join([*lines, "", "prepare its data with", f"  {entry.prepare}", f"  twinreel evaluate MODEL {flags}"])


def _shown(key: str, value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {one}" for name, one in value.items()) or "-"
    if isinstance(value, list):
        return ", ".join(value) or "-"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if value is None:
        return "not checked" if key == "ids_sha256" else "-"
    return str(value) or "-"
