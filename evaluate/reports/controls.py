"""Sections of the page for what the model uses, and for retrieval between its other modalities."""

from collections.abc import Iterator, Mapping
from typing import Any

from ...pages.bars import interval_bars
from ...pages.markup import Html, tag
from ...pages.page import paragraph, section
from ...pages.tables import Row, table
from ..protocols import control_rows, pair_rows
from ..protocols.controls import CONTROLS
from ..protocols.marks import mark_of
from ..protocols.retrieval import DIRECTIONS, INTERVALS

_KEYS = ("R@1", "R@5", "R@10", "MdR", "MnR")
_ARROWS = {"text_to_video": "text → video", "video_to_text": "video → text"}


def further_sections(results: dict[str, Any]) -> tuple[Html, Html]:
    """Return the sections of controls and of pairs; "" for each that was not measured."""
    return controls_section(results), pairs_section(results)


def controls_section(results: dict[str, Any]) -> Html:
    """Return the recalls under each control and their drop from the plain ones; "" if none was measured."""
    block = results.get(control_rows.BLOCK)
    if not block:
        return Html()
    sign, about = mark_of(results), block["protocol"]
    said = (
        "Each control takes part of the input away and measures the same queries again. Where a figure does not drop, "
        "the model does not use what was taken away. The drop is the plain R@1 less that of the control, in percentage "
        "points, with a 95 % interval (paired bootstrap over clips)."
    )
    seed = "" if about["seed"] is None else f" Random draws have the seed {about['seed']}."
    rules = [_item(name, f"{rule}{_changed(block, name)}") for name, rule in about["rules"].items()]
    left = [_item(name, f"not measured: {reason}") for name, reason in about["not_applicable"].items()]
    tagger = [paragraph(f"Parts of speech: {about['tagger']}.", class_="aside")] if "tagger" in about else []
    listed = tag("div", tag("ul", *rules, *left), *tagger)
    figures = [_control_table(results, block, sign=sign)] if block["rows"] else []
    chart = [_control_chart(block)] if block["rows"] else []
    return section("What the model uses", paragraph(said + seed), *figures, tag("div", *chart, listed, class_="charts"))


def _item(name: str, text: str) -> Html:
    return tag("li", tag("b", control_name(name)), f": {text}.")


def _control_chart(block: dict[str, Any]) -> Html:
    rows = {
        control_name(name): {
            _ARROWS[direction]: (drop["R@1"]["difference"], drop["R@1"].get("low"), drop["R@1"].get("high"))
            for direction, drop in row[control_rows.DROP].items()
        }
        for name, row in block["rows"].items()
    }
    chart = interval_bars(rows, name="controls", xlabel="drop of R@1, percentage points")
    return tag("figure", chart, tag("figcaption", "Drop of R@1 under each control, with 95 % intervals."))


def _control_table(results: dict[str, Any], block: dict[str, Any], *, sign: str) -> Html:
    rows = [
        Row(name="as it is", cells=[c for d in DIRECTIONS for c in (f"{results[d]['R@1']:.1f}{sign}", "")], mark="main")
    ]
    rows += [
        Row(name=control_name(name), cells=[c for d in DIRECTIONS for c in _cells(row, d, sign=sign)])
        for name, row in block["rows"].items()
    ]
    head = [cell for name in _ARROWS.values() for cell in (f"{name} R@1, %", "drop")]
    return table(head, rows=rows)


def _cells(row: Mapping[str, Any], direction: str, *, sign: str) -> tuple[str, str]:
    return f"{row[direction]['R@1']:.1f}{sign}", drop_text(row[control_rows.DROP][direction]["R@1"])


def drop_text(one: Mapping[str, float]) -> str:
    """Return a drop with its interval, if it has one.

    >>> drop_text({"difference": 12.5, "low": 3.0, "high": 20.0, "p": 0.01}), drop_text({"difference": -1.0})
    ('+12.5 (3.0 to 20.0)', '-1.0')
    """
    interval = f" ({one['low']:.1f} to {one['high']:.1f})" if "low" in one else ""
    return f"{one['difference']:+.1f}{interval}"


def control_name(name: str) -> str:
    """Return a control as a report calls it.

    >>> control_name("half_fps"), control_name("shuffled_frames")
    ('half fps', 'shuffled frames')
    """
    return name.replace("_", " ")


def _changed(block: Mapping[str, Any], name: str) -> str:
    row = block["rows"].get(name, {})
    changed = row.get("changed")
    what = "texts" if CONTROLS[name].side == "text" else "clips"
    return "" if changed is None else f" (changes {changed:,} of {row['n']:,} {what})"


def pairs_section(results: dict[str, Any]) -> Html:
    """Return retrieval between the modalities of the model; "" if it was not measured."""
    block = results.get(pair_rows.BLOCK)
    if not block:
        return Html()
    sign, about = mark_of(results), block["protocol"]
    rows = []
    for pair in block["rows"].values():
        for name, figures in directions(pair):
            rows.append(
                Row(
                    name=name, cells=[*(f"{figures[key]:.2f}{sign}" for key in _KEYS), f"{figures['n']:,}"], mark="main"
                )
            )
            if drawn := pair.get(INTERVALS, {}).get(_key(name)):
                ends = [
                    f"{drawn[k]['low']:.1f}{sign} – {drawn[k]['high']:.1f}{sign}" if k in drawn else "" for k in _KEYS
                ]
                rows.append(Row(name="95 % interval", cells=[*ends, ""], mark="bound"))
    head = ("R@1, %", "R@5, %", "R@10, %", "median rank", "mean rank", "queries")
    left = [tag("li", tag("b", name), f": not measured: {why}.") for name, why in about["not_applicable"].items()]
    return section(
        "Pairs of modalities",
        table(head, rows=rows),
        paragraph(pairs_line(results)),
        *([tag("ul", *left)] if left else []),
    )


def pairs_line(results: dict[str, Any]) -> str:
    """Return on which clips and texts pairs of modalities are measured, in a sentence."""
    about = results[pair_rows.BLOCK]["protocol"]
    left = f"; {about['left_out']:,} clips without sound are left out" if about["left_out"] else ""
    return f"All pairs on the same {about['clips']:,} clips and {about['texts']:,} texts{left}."


def directions(pair: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the directions of a pair, such as "text → audio", with their figures."""
    for key, figures in pair.items():
        if "_to_" in key:
            yield key.replace("_to_", " → "), figures


def _key(name: str) -> str:
    return name.replace(" → ", "_to_")
