"""The main tables of a report as rows, for the page and for `tables.md`, `tables.tex` and `tables.csv`."""

from collections.abc import Mapping
from typing import Any

from ...pages.tables import Row
from ...pages.text_tables import Table
from ..measures.ranks import RECALL_AT
from ..protocols.comparison import COMPARED
from ..protocols.groups import GROUPS
from ..protocols.marks import legend, mark_of
from ..protocols.repeated import ROWS
from ..protocols.retrieval import DIRECTIONS, INTERVALS
from ..protocols.scored import RERANKED

RECALLS = tuple(f"R@{k}" for k in RECALL_AT)
KEYS = (*RECALLS, "MdR", "MnR")
HEAD = (*(f"{key}, %" for key in RECALLS), "median rank", "mean rank")
GROUP_HEAD = (*(f"{key}, %" for key in RECALLS), "queries", "clips")


def main_tables(results: dict[str, Any]) -> list[Table]:
    """Return the tables of a report (the content of `retrieval.json`); each note has the protocol in a line."""
    note = protocol_line(results)
    tested = f"95 % bootstrap intervals over clips, p of a permutation test. {note}"
    pairs = ("accuracy, %", "95 % interval", "pairs")
    made = {
        "retrieval": ("Zero-shot retrieval", (*HEAD, "queries"), retrieval_rows(results), note),
        "compared": ("Differences from other models, percentage points", RECALLS, compared_rows(results), tested),
        "reranked": ("Re-ranked scores", HEAD, reranked_rows(results), note),
        "minimal pairs": ("Minimal pairs", pairs, minimal_pair_rows(results), f"Chance is 50 %. {note}"),
    }
    tables = [
        Table(name=name, title=title, head=head, rows=rows, note=below)
        for name, (title, head, rows, below) in made.items()
    ]
    return [*tables, *group_tables(results)]


def protocol_line(results: Mapping[str, Any]) -> str:
    """Return the protocol in a line, and what the mark means if figures bear one."""
    protocol = results["protocol"]
    parts = [
        f"{protocol.get('benchmark') or protocol.get('dataset') or 'embeddings'} / {protocol.get('split') or 'all'}",
        f"{protocol['texts']:,} texts, {protocol['videos']:,} videos",
        *_given(protocol, "frames", "{:,} frames"),
        *_given(protocol, "windows", "windows {:,}"),
        *_given(protocol, "captions", "captions: {}"),
        "raw cosines, ties in expectation",
        *_given(protocol, "checkpoint", "checkpoint {}"),
        *_given(protocol, "step", "step {:,}"),
        *([f"weights {protocol['weights_sha256'][:12]}"] if protocol.get("weights_sha256") else []),
        *([f"subset {protocol['subset_id'][:12]}"] if protocol.get("subset_id") else []),
        f"twinreel {protocol['twinreel']}",
    ]
    return " ".join([f"Protocol: {'; '.join(parts)}.", legend(results)]).rstrip()


def _given(protocol: Mapping[str, Any], key: str, form: str) -> list[str]:
    return [form.format(protocol[key])] if protocol.get(key) is not None else []


def retrieval_rows(results: dict[str, Any]) -> list[Row]:
    """Return all rows of retrieval: intervals, and best and worst cases where there are ties."""
    rows, sign = [], mark_of(results)
    for key in ROWS:
        if block := results.get(key):
            rows.append(_row(row_name(key), block, n=f"{block['n']:,}", mark="main", sign=sign))
            if drawn := results.get(INTERVALS, {}).get(key):
                ends = [
                    f"{drawn[k]['low']:.1f}{sign} – {drawn[k]['high']:.1f}{sign}" if k in drawn else "" for k in KEYS
                ]
                rows.append(Row(name="95 % interval", cells=[*ends, ""], mark="bound"))
            if block["optimistic"] != block["pessimistic"]:
                rows.append(_row("best case", block["optimistic"], mark="bound", sign=sign))
                rows.append(_row("worst case", block["pessimistic"], mark="bound", sign=sign))
    return rows


def _row(name: str, figures: dict[str, float], *, mark: str, sign: str, n: str = "") -> Row:
    return Row(name=name, cells=[*(f"{figures[key]:.2f}{sign}" for key in KEYS), n], mark=mark)


def reranked_rows(results: dict[str, Any]) -> list[Row]:
    """Return the figures of re-ranked scores, each method under its name and parameters."""
    mark = mark_of(results)
    return [
        Row(name=f"{row_name(key)}, {method}", cells=[f"{block[key][k]:.2f}{mark}" for k in KEYS], mark="main")
        for method, block in results.get(RERANKED, {}).items()
        for key in DIRECTIONS
        if key in block
    ]


def compared_rows(results: dict[str, Any]) -> list[Row]:
    """Return the differences of recalls from other models'."""
    return [
        Row(
            name=f"{row_name(key)}, less {name}",
            cells=[difference(figures[k], mark=mark_of(results)) for k in RECALLS],
            mark="main",
        )
        for name, block in results.get(COMPARED, {}).items()
        for key, figures in block.items()
        if key in DIRECTIONS
    ]


def difference(one: Mapping[str, Any], *, mark: str = "") -> str:
    """Return a difference with its interval and p.

    >>> difference({"difference": 1.25, "low": -0.5, "high": 3.0, "p": 0.0421})
    '+1.2 (-0.5 to 3.0, p 0.042)'
    """
    return f"{one['difference']:+.1f}{mark} ({one['low']:.1f}{mark} to {one['high']:.1f}{mark}, p {one['p']:.2g})"


def minimal_pair_rows(results: dict[str, Any]) -> list[Row]:
    """Return the accuracy on the minimal pairs of each kind of change, best first."""
    sign = mark_of(results)
    pairs = {name: one for name, one in results.get("minimal_pairs", {}).items() if isinstance(one, dict)}
    return [
        Row(
            name=name,
            cells=[
                f"{one['accuracy']:.1f}{sign}",
                f"{one['low']:.1f}{sign} to {one['high']:.1f}{sign}",
                f"{one['n']:,}",
            ],
        )
        for name, one in sorted(pairs.items(), key=lambda item: -item[1]["accuracy"])
    ]


def group_tables(results: dict[str, Any]) -> list[Table]:
    """Return a table of recalls per group for each field, the groups of both directions below each other."""
    return [
        Table(
            name=f"groups {name}",
            title=f"Recalls by {field['title']}",
            head=GROUP_HEAD,
            rows=[row for key in DIRECTIONS if key in field for row in group_rows(results, name, direction=key)],
            note=protocol_line(results),
        )
        for name, field in results.get(GROUPS, {}).items()
    ]


def group_rows(results: dict[str, Any], name: str, *, direction: str) -> list[Row]:
    """Return the recalls of each group of a field with their intervals."""
    mark, groups = mark_of(results), results[GROUPS][name][direction]["groups"]
    return [
        Row(
            name=f"{row_name(direction)}: {group}",
            cells=[*(interval(one[key], mark=mark) for key in RECALLS), f"{one['n']:,}", f"{one['clips']:,}"],
        )
        for group, one in groups.items()
    ]


def interval(one: Mapping[str, float | None], *, mark: str = "") -> str:
    """Return a figure with its interval, if it has one.

    >>> interval({"value": 50.0, "low": 40.25, "high": 60.0}), interval({"value": 50.0, "low": None, "high": None})
    ('50.0 (40.2 – 60.0)', '50.0')
    """
    ends = "" if one["low"] is None else f" ({one['low']:.1f}{mark} – {one['high']:.1f}{mark})"
    return f"{one['value']:.1f}{mark}{ends}"


def row_name(key: str) -> str:
    """Return what a block of `retrieval.json` measures, as the page calls it.

    >>> row_name("text_to_video_any_match")
    'Text → video, any match'
    """
    return ROWS[key].capitalize().replace(" to ", " → ")
