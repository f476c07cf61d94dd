"""Compare prepared data and settings with a benchmark's protocol: refuse, count as missing, or name as deviation."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ...base.errors import UserError
from ...data.manifest import ids_sha256
from .benchmark_entry import Entry
from .benchmark_table import find_entry
from .benchmarks import Benchmark, get_benchmark
from .choice_benchmarks import ChoiceBenchmark, choice_deviations
from .class_benchmarks import ClassBenchmark, class_deviations
from .marks import coverage_differences
from .retrieval import prepared_name, split_coverage

if TYPE_CHECKING:
    from ...data.batches.records import Records

_FEW = 0.05  # share of clips with too few frames that is worth a warning
_DEFAULTS = {"split": "test", "captions": "all"}


def settle(benchmark: str, *, split: str, captions: str) -> dict[str, str]:
    """Return the split and the captions rule to use.

    Args:
      benchmark: name of a benchmark; "" = none.
      split: as given; "" = not given.
      captions: as given; "" = not given.

    Returns:
      `split` and `captions`: those of the benchmark; without one as given, else "test" and "all".

    Raises:
      UserError: an unknown benchmark, or a given value that is not the benchmark's.
    """
    given = {"split": split, "captions": captions}
    if not benchmark:
        return {name: value or _DEFAULTS[name] for name, value in given.items()}
    entry = get_benchmark(benchmark)
    for name, value in given.items():
        wanted = getattr(entry, name)
        # With one caption per video "first" and "all" are the same texts.
        same = name == "captions" and entry.texts == entry.videos and value in ("all", "first")
        if value and value != wanted and name not in entry.variations and not same:
            raise UserError(
                f"--{name} {value} contradicts --benchmark {benchmark}, whose protocol has --{name} {wanted}; leave "
                f"out --{name}, or leave out --benchmark for figures that are not the benchmark's"
            )
    return {name: value or getattr(entry, name) for name, value in given.items()}


def settle_split(benchmark: str, *, split: str) -> str:
    """Return the split to use: that of the benchmark, or without one ("") as given, else "test".

    Raises:
      UserError: an unknown benchmark, or a given split that is not the benchmark's.
    """
    if not benchmark:
        return split or _DEFAULTS["split"]
    entry = find_entry(benchmark)
    if split not in ("", entry.split):
        raise UserError(
            f"--split {split} contradicts --benchmark {benchmark}, whose protocol has --split {entry.split}; leave out "
            "--split, or leave out --benchmark for figures that are not the benchmark's"
        )
    return entry.split


def check_prepared(entry: Entry, *, prepared: Mapping[str, Any], folder: object) -> None:
    """Refuse data that was prepared for anything else than a benchmark's test set.

    Args:
      entry: the benchmark.
      prepared: the content of `prepare.json`.
      folder: for messages.

    Raises:
      UserError: another data set, another variant, or no benchmark's split; names both and the command to prepare it.
    """
    about = prepared.get("benchmark")
    remedy = f"prepare it with `{entry.prepare}`"
    if not about:
        raise UserError(
            f"--benchmark {entry.name} needs data of {entry.source!r}, but {folder} was prepared from "
            f"{prepared.get('source', 'a source')!r}, not by a benchmark's name; {remedy}"
        )
    wanted = dict(entry.options)
    got = {name: about["options"].get(name) for name in wanted}
    if about["name"] != entry.source or got != wanted:
        names = (prepared_name(about["name"], about["options"]), prepared_name(entry.source, wanted))
        raise UserError(
            f"{folder} was prepared for {names[0]!r}, --benchmark {entry.name} needs {names[1]!r}; {remedy}"
        )
    splits = prepared["counts"]
    if entry.split not in splits:
        raise UserError(
            f"{folder} has no split {entry.split!r}, on which --benchmark {entry.name} is measured (it has: "
            f"{', '.join(sorted(splits))}); {remedy}"
        )


def benchmark_coverage(
    entry: Entry,
    *,
    coverage: dict[str, Any],
    prepared: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    allow_missing: bool,
) -> dict[str, Any]:
    """Compare the clips and texts with the benchmark's list; refuse a difference unless it is allowed.

    Args:
      entry: the benchmark.
      coverage: of the split, see `retrieval.coverage_of`.
      prepared: the content of `prepare.json`.
      rows: the clips measured (lines of `clips.jsonl`).
      allow_missing: measure nevertheless.

    Returns:
      `coverage` counted against the benchmark's list, with `ids_match`: whether the clips are those of the list, of
      which videos may be missing; null where twinreel does not know the list. Of retrieval with `texts_expected` and
      `texts_found`, of classification with `classes_expected` and `classes_found`.

    Raises:
      UserError: videos, texts or ids differ and `allow_missing` is False.
    """
    listed = prepared.get("coverage", {}).get(entry.split, {}).get("expected_ids_sha256")
    match = None
    if entry.ids_sha256:
        match = entry.ids_sha256 in (listed, ids_sha256(str(row["clip_id"]) for row in rows))
    counted = coverage | {"ids_match": match} | _list_counts(entry, rows=rows)
    differences = coverage_differences(counted)
    if differences and not allow_missing:
        known = coverage["missing_clips"] or []
        first = f" (first missing: {known[0]['clip_id']}: {known[0]['reason']})" if known else ""
        raise UserError(
            f"--benchmark {entry.name}, split {entry.split!r}: coverage {100 * float(counted['fraction'] or 0):.2f} %: "
            f"{'; '.join(differences)}{first}. Complete the data and prepare it again, or give --allow_missing to "
            "measure on the clips that are there: every figure is then marked"
        )
    return counted


def _list_counts(entry: Entry, *, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the counts of the list beside those of the rows; nothing of what the protocol does not fix."""
    found: dict[str, Any] = {}
    if entry.videos is not None:
        found |= {"expected": entry.videos, "missing": max(0, entry.videos - len(rows))}
        found |= {"fraction": min(1.0, len(rows) / entry.videos)}
    if isinstance(entry, Benchmark):
        found |= {"texts_expected": entry.texts, "texts_found": sum(len(row["captions"]) for row in rows)}
    if isinstance(entry, ClassBenchmark):
        names = {label for row in rows for label in row.get("labels") or []}
        found |= {"classes_expected": entry.classes, "classes_found": len(names)}
    return found


class _Options(Protocol):
    """What is needed of `evaluate.EvaluateOptions`."""

    @property
    def split(self) -> str: ...
    @property
    def benchmark(self) -> str: ...
    @property
    def allow_missing(self) -> bool: ...


def measured_coverage(records: "Records", *, options: _Options) -> dict[str, Any]:
    """Return the coverage of a split, counted against a benchmark's list if one is named.

    Args:
      records: the opened folder.
      options: the split, the benchmark's name ("" = none), and whether clips may be missing.

    Raises:
      UserError: as `retrieval.split_coverage`, `check_prepared` and `benchmark_coverage`.
    """
    folder, split, allow = records.folder, options.split, options.allow_missing
    rows = records.rows(split) if split in records.splits else []
    if not options.benchmark:
        return split_coverage(folder, split=split, rows=rows, allow_missing=allow)
    entry, prepared = find_entry(options.benchmark), json.loads((folder / "prepare.json").read_text())
    check_prepared(entry, prepared=prepared, folder=folder)
    coverage = split_coverage(folder, split=split, rows=rows, allow_missing=True)
    return benchmark_coverage(entry, coverage=coverage, prepared=prepared, rows=rows, allow_missing=allow)


def describe_benchmark(
    benchmark: str, *, protocol: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], coverage: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what the protocol says about a benchmark; differences that preparing the data again removes are printed.

    Args:
      benchmark: its name; "" = none.
      protocol: of the embeddings, with its `warnings`.
      rows: the clips measured.
      coverage: of `measured_coverage`.

    Returns:
      `benchmark_protocol` (the entry; {} without one), `deviations` and `warnings`.
    """
    warnings = list(protocol.get("warnings") or [])
    if not benchmark:
        return {"benchmark_protocol": {}, "deviations": [], "warnings": warnings}
    entry = find_entry(benchmark)
    found, prepared = deviations(entry, protocol=protocol, rows=rows, coverage=coverage)
    for warning in prepared:
        print(f"warning: {warning}", file=sys.stderr)
    return {"benchmark_protocol": entry.to_dict(), "deviations": found, "warnings": warnings + prepared}


def deviations(
    entry: Entry, *, protocol: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], coverage: Mapping[str, Any]
) -> tuple[list[str], list[str]]:
    """Say in what an evaluation differs from the benchmark's protocol.

    Args:
      entry: the benchmark.
      protocol: of the embeddings, see `retrieval.protocol_of`.
      rows: the clips measured (lines of `clips.jsonl`).
      coverage: of `benchmark_coverage`.

    Returns:
      All differences, a sentence each, and those of them that another `twinreel prepare` command removes.
    """
    found = list(coverage_differences(coverage))
    for name in ("windows", "clip_side"):
        if protocol.get(name) not in (None, getattr(entry, name)):
            found.append(f"{name} is {protocol[name]!r}, the protocol has {getattr(entry, name)!r}")
    if seconds := protocol.get("window_seconds"):
        found.append(f"window_seconds is {seconds:g}, the protocol takes the whole clip")
    frames, length = protocol.get("frames"), protocol.get("context_length")
    if entry.frames and frames not in (None, *entry.frames.values()):
        found.append(f"{frames} frames per clip, papers use {_by_code(entry.frames)}")
    lengths = entry.text_length if isinstance(entry, Benchmark) else {}
    kept = min(lengths.values(), default=0)
    if (cut := protocol.get("texts_truncated")) and length is not None and length < kept:
        found.append(f"{cut:,} texts are cut at {length} tokens, papers keep {_by_code(lengths)}")
    if isinstance(entry, Benchmark) and protocol.get("prompt") not in (None, entry.prompt):
        found.append(f"the prompt is {protocol['prompt']!r}, the protocol has {entry.prompt!r}")
    if isinstance(entry, ClassBenchmark):
        found += class_deviations(entry, protocol=protocol)
    if isinstance(entry, ChoiceBenchmark):
        found += choice_deviations(entry, rows=rows)
    prepared = _of_records(entry, protocol=protocol, rows=rows)
    return found + prepared, prepared


def _of_records(entry: Entry, *, protocol: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the prepared frames lack."""
    fps, found = protocol.get("fps"), []
    if fps and fps < entry.min_fps:
        found.append(
            f"the records hold {fps:g} frames/s, the protocol of {entry.name} draws from at least {entry.min_fps:g} "
            "(`twinreel prepare --fps`)"
        )
    needed = min(entry.frames.values(), default=0)
    few = sum(row.get("num_frames", needed) < needed for row in rows)
    if rows and few > _FEW * len(rows):
        found.append(
            f"{few:,} of {len(rows):,} clips have fewer than the {needed} frames that the protocol of {entry.name} "
            "takes (prepare them with a higher --fps)"
        )
    return found


def _by_code(values: Mapping[str, int]) -> str:
    return ", ".join(f"{value} ({code})" for code, value in values.items())
