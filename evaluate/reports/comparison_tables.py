"""The tables of a comparison of models (the content of `comparison.json`) as rows."""

from typing import Any

from ...pages.tables import Row
from ...pages.text_tables import Table
from ..protocols.marks import legend, mark_of
from ..protocols.repeated import ROWS
from ..protocols.retrieval import DIRECTIONS, INTERVALS
from .main_tables import HEAD, KEYS, RECALLS, difference, row_name

_GROUP_HEAD = ("R@1, %", "95 % interval", "less the first", "95 % interval", "queries", "clips")


def comparison_tables(compared: dict[str, Any]) -> list[Table]:
    """Return the main tables with the protocol as their note."""
    protocol, first = compared["protocol"], next(iter(compared["models"]))
    seeds = any(len(model["runs"]) > 1 for model in compared["models"].values())
    note = " ".join(
        [
            f"Protocol: {protocol.get('benchmark') or protocol['dataset'] or 'embeddings'} / "
            f"{protocol['split'] or 'all'}; {protocol['texts']:,} texts, {protocol['videos']:,} videos; raw cosines, "
            "ties in expectation.",
            *(["Several seeds: mean ± standard deviation (n − 1)."] if seeds else []),
            legend(compared),
        ]
    ).rstrip()
    tested = f"95 % bootstrap intervals over clips, p of a permutation test. {note}"
    return [
        Table(name="models", title="Models", head=(*HEAD, "seeds"), rows=model_rows(compared), note=note),
        Table(
            name="differences",
            title=f"Differences from {first}, percentage points",
            head=RECALLS,
            rows=difference_rows(compared),
            note=tested,
        ),
        *(
            Table(
                name=f"groups {name}",
                title=f"R@1 by {field['title']}",
                head=_GROUP_HEAD,
                rows=group_rows(compared, name),
                note=note,
            )
            for name, field in compared["groups"].items()
        ),
    ]


def model_rows(compared: dict[str, Any]) -> list[Row]:
    """Return the figures of each model, one direction after the other, with the range over seeds below."""
    mark, rows = mark_of(compared), []
    for key in ROWS:
        for name, model in compared["models"].items():
            if key in model:
                figures = [model[key][figure] for figure in KEYS]
                cells = [spread(one, mark=mark) for one in figures]
                rows.append(Row(name=f"{row_name(key)}: {name}", cells=[*cells, str(figures[0]["n"])], mark="main"))
                if drawn := model.get(INTERVALS, {}).get(key):
                    ends = [_ends(drawn[one], mark=mark) if one in drawn else "" for one in KEYS]
                    rows.append(Row(name="95 % interval", cells=[*ends, ""], mark="bound"))
                if figures[0]["n"] > 1:
                    ends = [f"{one['lowest']:.2f}{mark} to {one['highest']:.2f}{mark}" for one in figures]
                    rows.append(Row(name="range", cells=[*ends, ""], mark="bound"))
    return rows


def spread(one: dict[str, Any], *, mark: str = "") -> str:
    """Return a figure over seeds.

    >>> spread({"mean": 41.25, "std": 0.5, "n": 3}), spread({"mean": 41.25, "std": None, "n": 1})
    ('41.25 ± 0.50', '41.25')
    """
    return f"{one['mean']:.2f}{mark}" + ("" if one["std"] is None else f" ± {one['std']:.2f}{mark}")


def difference_rows(compared: dict[str, Any]) -> list[Row]:
    """Return the differences of each model from the first."""
    mark = mark_of(compared)
    return [
        Row(
            name=f"{row_name(way)}: {name}",
            cells=[difference(block[way][key], mark=mark) for key in RECALLS],
            mark="main",
        )
        for way in DIRECTIONS
        for name, block in compared["differences"].items()
    ]


def group_rows(compared: dict[str, Any], name: str) -> list[Row]:
    """Return R@1 of each group and model, and its difference from the first model."""
    mark, rows = mark_of(compared), []
    models = compared["groups"][name]["models"]
    first = next(iter(models))
    for way in DIRECTIONS:
        for group in models[first].get(way, {}):
            for model, own in models.items():
                one = own[way][group]
                less = [f"{one['difference']['value']:+.1f}{mark}", _ends(one["difference"], mark=mark)] if (
                    "difference" in one
                ) else ["", ""]  # fmt: skip
                cells = [f"{one['R@1']['value']:.1f}{mark}", _ends(one["R@1"], mark=mark), *less]
                cells += [f"{one['n']:,}", f"{one['clips']:,}"]
                rows.append(Row(name=f"{row_name(way)}: {group}: {model}", cells=cells))
    return rows


def _ends(one: dict[str, Any], *, mark: str) -> str:
    return "" if one["low"] is None else f"{one['low']:.1f}{mark} to {one['high']:.1f}{mark}"
