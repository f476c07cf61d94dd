"""`twinreel prepare NAME --annotations DIR --videos DIR`: a benchmark by its own files, with its coverage."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import rich.markup
from rich.console import Console

from ...base.errors import UserError, unknown
from ...base.parser import Parser
from ..manifest import Clip, ids_sha256, write_jsonl
from ..paths import PathLike
from ..sources.registry import SOURCES, get_source
from ..sources.source import Annotations, Option, Source
from ..sources.videos import Located, locate
from .found import Found
from .prepare import prepare

MISSING = "video missing"  # the reason in rejects.jsonl


def prepare_benchmark(
    name: str,
    *,
    annotations: Path | str,
    videos: Path | str = "",
    out: PathLike,
    min_coverage: float = 0.0,
    options: dict[str, Any] | None = None,
    splits: Sequence[str] = (),
    console: Console | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Prepare a benchmark from its own annotation files and a folder of its videos.

    A clip whose video is not there is listed in rejects.jsonl as `video missing` and counted in the coverage; it does
    not count as a bad clip.

    Args:
      name: of the benchmark; see `prepare --list`.
      annotations: the folder of its annotation files.
      videos: the folder of its videos; they may lie in subfolders. "" = that of the annotation files.
      out: the folder to make.
      min_coverage: least share, 0 to 1, of each split's clips whose video must be there.
      options: the benchmark's own options by name, such as `variant`.
      splits: the splits to prepare; () = all.
      console: where the tables go; None = standard output.
      **settings: of `prepare`.

    Returns:
      What is written to `out/prepare.json`: that of `prepare`, and `benchmark` and `coverage`.

    Raises:
      UserError: as `prepare`; a fault in the annotation files; a coverage below `min_coverage`; no video at all.
    """
    if not 0 <= min_coverage <= 1:
        raise UserError(f"--min_coverage is {min_coverage}, wanted a share from 0 to 1")
    source, console = get_source(name), console or Console()
    chosen = source.settings(options or {})
    with Console(stderr=True).status(f"reading the annotation files of {name}"):
        found = source.read(Path(annotations), **chosen)
    clips = _choose(found, splits)
    folder = Path(videos or annotations)
    located = _locate(source, clips, folder=folder)
    coverage = {
        split: {"expected": len(ids), "present": sum(clip.split == split for clip in located.present)}
        for split, ids in _ids(clips).items()
    }
    about = {"name": name, "options": chosen, "notes": dict(found.notes), "deviations": found.deviations()}
    _print_read(console, source, chosen, found, located, coverage)
    _check_coverage(coverage, located, source=source, folder=folder, least=min_coverage)

    def finish(built: Path, report: dict[str, Any]) -> dict[str, Any]:
        return _with_coverage(built, report, about=about, coverage=coverage, clips=clips, missing=located.missing)

    given = Found(root=folder, clips=located.present, missing=located.missing, finish=finish)
    report = prepare(name, out=out, found=given, console=console, **settings)
    parts = report.get("parts", [report])  # with `append`, those of the whole
    own = next(part for part in reversed(parts) if part.get("benchmark", {}).get("name") == name)
    for split, count in own["coverage"].items():
        console.print(
            f"{split}: {count['prepared']:,} of {count['expected']:,} clips are in {out}; "
            f"subset id {count['prepared_ids_sha256'][:16]}",
            highlight=False,
        )
    return report


def _choose(found: Annotations, splits: Sequence[str]) -> list[Clip]:
    known = {clip.split for clip in found.clips}
    for split in splits:
        if split not in known:
            error = unknown("split (--splits)", split, known)
            raise UserError("; ".join([str(error), *(note for note in found.notes if note.startswith("split "))]))
    return [clip for clip in found.clips if clip.split in splits] if splits else found.clips


def _ids(clips: Iterable[Clip]) -> dict[str, list[str]]:
    ids: dict[str, list[str]] = {}
    for clip in clips:
        ids.setdefault(clip.split, []).append(clip.clip_id)
    return ids


def _locate(source: Source, clips: list[Clip], *, folder: Path) -> Located:
    console = Console(stderr=True)
    with console.status(f"looking for {len(clips):,} videos in {rich.markup.escape(str(folder))}") as status:
        return locate(
            clips,
            folder=folder,
            alternatives=source.alternatives,
            tick=lambda files: status.update(f"looking for {len(clips):,} videos; {files:,} files seen"),
        )


def _check_coverage(
    coverage: dict[str, dict[str, int]], located: Located, *, source: Source, folder: Path, least: float
) -> None:
    if not located.present:
        there = f"it has {located.files:,} files, such as {located.example!r}" if located.files else "it is empty"
        raise UserError(
            f"no video of {source.name!r} is under --videos {str(folder)!r}: {there}; the first looked for is "
            f"{located.missing[0].path!r}. Videos are found by name: {source.videos}"
        )
    for split, count in coverage.items():
        if count["present"] < least * count["expected"]:
            first = ", ".join(clip.clip_id for clip in located.missing if clip.split == split)[:200]
            raise UserError(
                f"{_share(split, count)}, less than min_coverage={least:g} asks for (missing: {first} ...); "
                "add the videos, or lower --min_coverage"
            )


def _with_coverage(
    out: Path,
    report: dict[str, Any],
    *,
    about: dict[str, Any],
    coverage: dict[str, dict[str, int]],
    clips: list[Clip],
    missing: list[Clip],
) -> dict[str, Any]:
    """Put the missing videos into rejects.jsonl; return the content of prepare.json with them and the coverage."""
    with (out / "rejects.jsonl").open(encoding="utf-8") as lines:
        rejects = [json.loads(line) for line in lines]
    rejects += [
        {"clip_id": clip.clip_id, "path": clip.path, "split": clip.split, "reason": MISSING} for clip in missing
    ]
    prepared: dict[str, list[str]] = {}
    with (out / "clips.jsonl").open(encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            prepared.setdefault(row["split"], []).append(row["clip_id"])
    whole = {
        split: coverage[split]
        | {
            "prepared": len(prepared.get(split, [])),
            "expected_ids_sha256": ids_sha256(ids),
            "prepared_ids_sha256": ids_sha256(prepared.get(split, [])),
        }
        for split, ids in _ids(clips).items()
    }
    counts = {
        split: {"clips": count["prepared"], "rejected": count["expected"] - count["prepared"]}
        for split, count in whole.items()
    }
    reasons = report["rejected"] | ({MISSING: len(missing)} if missing else {})
    write_jsonl(out / "rejects.jsonl", lines=rejects)
    return report | {"benchmark": about, "coverage": whole, "counts": counts, "rejected": reasons}


def _print_read(
    console: Console,
    source: Source,
    chosen: dict[str, Any],
    found: Annotations,
    located: Located,
    coverage: dict[str, dict[str, int]],
) -> None:
    """Print what was read and found before the long work begins."""
    flags = "".join(f", {name}={value}" for name, value in chosen.items())
    console.print(f"{source.name}{flags}: {len(found.clips):,} clips", highlight=False)
    for split, count in coverage.items():
        console.print(_share(split, count), highlight=False)
    for note, count in found.notes.items():
        console.print(rich.markup.escape(note) + (f": {count:,}" if count > 1 else ""), highlight=False)
    if located.several:
        console.print(f"videos of which several files have the name, the first taken: {located.several:,}")
    for sentence in found.deviations():
        console.print(f"not as the protocol counts: {sentence}", style="yellow", highlight=False)


def _share(split: str, count: dict[str, int]) -> str:
    share = 100 * count["present"] / count["expected"]
    return f"{split}: coverage {count['present']:,} of {count['expected']:,} ({share:.1f} %)"


# --- the command line ---


def explained(argv: list[str]) -> bool:
    """Print what `--list`, `--list NAME` or `NAME --help` ask for; return whether they do."""
    first = next((word for word in argv[:1] if not word.startswith("-")), "")
    if "--list" in argv:
        after = argv[argv.index("--list") + 1 :][:1]
        show(first or next((word for word in after if not word.startswith("-")), ""))
    elif first in SOURCES and {"-h", "--help"} & set(argv):
        show(first)
    else:
        return False
    return True


def add_flags(parser: Parser) -> None:
    """Add the flags of benchmarks to the parser of `prepare`."""
    group = parser.add_argument_group("benchmarks (twinreel prepare NAME --annotations DIR --videos DIR --out DIR)")
    group.add_argument("--list", action="store_true", help="list the benchmarks, or with NAME explain one, and stop")
    group.add_argument("--annotations", metavar="DIR", help="folder of the benchmark's own annotation files")
    group.add_argument("--videos", metavar="DIR", help="folder of its videos, in subfolders or not")
    group.add_argument(
        "--min_coverage", type=float, metavar="SHARE", help="least share, 0 to 1, of each split's videos; else none"
    )
    for name, options in _options().items():
        values = sorted({str(choice) for option in options for choice in option.choices})
        owners = ", ".join(source.name for source in SOURCES.values() if any(o.name == name for o in source.options))
        shown = f"{' | '.join(values)} " if values else ""
        group.add_argument(f"--{name}", type=type(options[0].default), help=f"{shown}(of {owners})")


def _options() -> dict[str, list[Option]]:
    """The options of all sources, by name."""
    options: dict[str, list[Option]] = {}
    for source in SOURCES.values():
        for option in source.options:
            options.setdefault(option.name, []).append(option)
    return options


def take_flags(fields: dict[str, Any]) -> dict[str, Any] | None:
    """Take the flags of benchmarks out of the parsed ones.

    Args:
      fields: all parsed flags of `prepare`; those of benchmarks are removed.

    Returns:
      The arguments for `prepare_benchmark` that they make; None where `source` is a file or folder.

    Raises:
      UserError: a benchmark without its two folders, or flags of benchmarks beside a file or folder.
    """
    del fields["list"]  # `explained` has seen to it
    own = {name: fields.pop(name) for name in ("annotations", "videos", "min_coverage")}
    options = {name: value for name in _options() if (value := fields.pop(name)) is not None}
    source, given = fields["source"], {name: value for name, value in own.items() if value is not None}
    if source not in SOURCES or (not given and not options and Path(source).exists()):
        if given or options:
            if not Path(source).exists():
                raise unknown("benchmark", source, SOURCES)
            name = next(iter(given | options))
            raise UserError(f"--{name} goes with a benchmark, and {source!r} is a file or folder; leave the flag out")
        return None
    needed = ("annotations", "videos") if SOURCES[source].videos else ("annotations",)
    for name in needed:
        if not given.get(name):
            raise UserError(
                f"benchmark {source!r} needs {' and '.join(f'--{flag} DIR' for flag in needed)}; --{name} is missing "
                f"(`twinreel prepare --list {source}` says what the folders hold)"
            )
    return given | {"options": options}


def show(name: str = "", *, console: Console | None = None) -> None:
    """Print all benchmarks, or one of them in full.

    Raises:
      UserError: no benchmark has that name.
    """
    console = console or Console()
    if name:
        console.print(describe(get_source(name)), markup=False, highlight=False, soft_wrap=True)
        return
    width = max(map(len, SOURCES)) + 2
    for source in SOURCES.values():
        flags = "  ".join(f"--{o.name} {'|'.join(map(str, o.choices)) or o.default}" for o in source.options)
        lines = [source.title, *(f"  {line}" for line in source.layout.splitlines())]
        lines += [*([f"flags: {flags}"] if flags else []), f"from:  {source.published_at}"]
        console.print(f"[bold]{source.name:<{width}}[/bold]", end="", highlight=False)
        shown = f"\n{'':<{width}}".join(lines)
        console.print(shown, markup=False, highlight=False, soft_wrap=True)
    console.print(
        "twinreel prepare --list NAME says all about one, with the names of its videos.\n"
        "twinreel prepare NAME --annotations DIR --videos DIR --out DIR prepares it.\n"
        "Without annotation files: a manifest, a CSV, a folder, or WebDataset archives (twinreel prepare --help).",
        highlight=False,
    )


def describe(source: Source) -> str:
    """Return all that the registry says about a benchmark, as text."""
    parts = [f"{source.name}: {source.title}", f"--annotations DIR holds\n{_indented(source.layout)}"]
    if source.videos:
        parts.append(f"--videos DIR holds (in subfolders or not, any video suffix)\n{_indented(source.videos)}")
    for option in source.options:
        choices = " | ".join(map(str, option.choices)) or option.default
        parts.append(f"--{option.name} {choices}\n{_indented(f'{option.help} (default: {option.default})')}")
    for title, text in (("published at", source.published_at), ("licence", source.licence), ("note", source.notes)):
        if text:
            parts.append(f"{title}\n{_indented(text)}")
    parts.append(f"twinreel prepare {source.name} --annotations DIR --videos DIR --out DIR")
    return "\n\n".join(parts)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
