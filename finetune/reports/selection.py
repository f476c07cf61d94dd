"""The page of `twinreel select`: the chosen clips with the reasons, and learning curves."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...pages.markup import Html, join, tag
from ...pages.page import paragraph, section, write_page
from ...pages.tables import Row, Tile, protocol_list, table, tiles
from ...pages.thumbnails import clip_figure
from ...pages.trials import Repeated, repeated_curves

SHOWN = 24
"""How many clips are shown as pictures."""


def write_selection_page(
    path: Path,
    *,
    lines: Sequence[Mapping[str, Any]],
    facts: Mapping[str, Any],
    pictures: Mapping[str, str],
    curve: Mapping[str, Any] | None,
) -> Path:
    """Write the page.

    Args:
      path: the file; the pictures lie below its folder.
      lines: the chosen clips, see `commands.select`.
      facts: how they were chosen, JSON values.
      pictures: clip_id -> path relative to the page.
      curve: of `selection_curve.learning_curves`; None = not simulated.
    """
    shown = [
        Tile(name="clips to label", value=f"{len(lines):,}", note=f"of {facts['unlabelled']:,} without a label"),
        Tile(name="labelled clips", value=f"{facts['labelled']:,}"),
    ]
    if facts.get("radius") is not None:
        note = f"before: {facts['radius_before']:.3g}" if facts.get("radius_before") is not None else ""
        shown.append(Tile(name="covering radius", value=f"{facts['radius']:.3g}", note=note))
    sections = [tiles(shown), _clips(lines, pictures=pictures), _curves(curve) if curve else Html()]
    sections.append(section("How they were chosen", protocol_list(facts)))
    title = f"{facts['dataset']} · {facts['split']}"
    told = f"{len(lines):,} clips by {facts['by'].replace('_', '-')}"
    return write_page(
        path,
        kind="clips to label next",
        title=title,
        subtitle=told,
        sections=sections,
        footer="The list is in the .jsonl file beside this page.",
    )


def _clips(lines: Sequence[Mapping[str, Any]], *, pictures: Mapping[str, str]) -> Html:
    shown = [
        clip_figure(
            pictures.get(one["clip_id"]),
            note=f"{one['rank']} · {one['clip_id']}",
            caption=one["clip_id"],
            text=one["reason"],
            alt=one["clip_id"],
        )
        for one in lines[:SHOWN]
    ]
    more = f"The first {len(shown)} of {len(lines):,}." if len(lines) > len(shown) else ""
    return section("Label these next", paragraph(more), tag("div", join(shown), class_="grid"))


def _curves(curve: Mapping[str, Any]) -> Html:
    series = [
        Repeated(name=way.replace("_", "-"), x=curve["labelled"], values=values)
        for way, values in curve["values"].items()
    ]
    chart = repeated_curves(
        series,
        name="curve",
        xlabel="labelled clips",
        ylabel=f"{curve['figure']}, % of {curve['test_clips']:,} test clips",
    )
    rows = [
        Row(name=f"{count:,}", cells=[_mean(values[number]) for values in curve["values"].values()])
        for number, count in enumerate(curve["labelled"])
    ]
    gains = [
        f"{way.replace('_', '-')} {gain['mean']:+.2f} ± {gain['standard_error']:.2f}"
        for way, gain in curve["against_random"].items()
    ]
    text = (
        f"Simulated on {curve['pool']:,} clips whose labels are known: clips are chosen round by round, and a linear "
        f"probe of the frozen features is trained on those that are labelled. Means over {curve['draws']} draws of the "
        "first clips, with a band of one standard deviation."
    )
    parts: list[Any] = [paragraph(text), tag("figure", chart, class_="full", style="max-width: 760px")]
    if gains:
        parts.append(
            paragraph(f"Points above random choice, mean over rounds ± standard error over draws: {'; '.join(gains)}.")
        )
    parts.append(table([way.replace("_", "-") for way in curve["values"]], rows=rows, narrow=True))
    return section("Learning curve", *parts)


def _mean(values: Sequence[float]) -> str:
    mean = sum(values) / len(values)
    spread = (sum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)) ** 0.5
    return f"{mean:.1f} ± {spread:.1f}"
