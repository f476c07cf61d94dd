"""What `twinreel monitor` found, as a page and in the terminal."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from ...pages.charts import dot_chart
from ...pages.markup import Html, join, tag
from ...pages.page import paragraph, section, write_page
from ...pages.tables import Row, Tile, protocol_list, table, tiles

FILE = "drift.json"


def write_report(out: Path, *, results: dict[str, Any]) -> Path:
    """Write `index.html` and `drift.json`; return the page.

    Args:
      out: the folder, made if absent.
      results: see `command`.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / FILE).write_text(json.dumps(results, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    drift = results["drift"]
    return write_page(
        out / "index.html",
        kind="drift",
        title="Drift" if drift else "No drift",
        subtitle=f"{results['model']} · {', '.join(results['against']) or 'queries and canary set'}",
        sections=[
            _headline(results),
            section("What drifted", *(paragraph(line, class_="bad") for line in drift)) if drift else Html(),
            _sides(results.get("sides", {})),
            _texts(results.get("texts")),
            _canary(results.get("canary", {})),
            _notes(results),
            section("Protocol", protocol_list({"reference": results["reference"], **results["thresholds"]})),
        ],
        footer=join(["The same figures are in ", tag("a", FILE, href=FILE), "."]),
    )


def print_results(results: dict[str, Any]) -> None:
    """Print the figures and what drifted on standard output."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    for name, side in results.get("sides", {}).items():
        mmd = side["mmd"]
        halves = side["reference_halves"]
        halves = "" if halves is None else f" (halves of the reference: {halves:.4g})"
        console.print(
            f"{name}: {side['count']:,} rows, reference {side['reference_count']:,}; mean shift "
            f"{side['mean_shift']:.3f}, Fréchet distance {side['frechet']['distance']:.4g}{halves}, "
            f"MMD^2 {mmd['mmd2']:.4g}, p = {mmd['p']:.3g}"
        )
    if texts := results.get("texts"):
        shown = "; ".join(f"{row.name} {row.cells[0]}" for row in _rows(texts))
        console.print(f"queries: {texts['count']:,}; {shown}")
    for name, one in results.get("canary", {}).items():
        console.print(
            f"canary: {name} {one['value']:.1f} % ({one['low']:.1f} to {one['high']:.1f}), recorded "
            f"{one['reference']:.1f} %"
        )
    for line in _all_notes(results):
        console.print(f"note: {line}")
    for line in results["drift"]:
        console.print(f"drift: {line}")
    if not results["drift"]:
        console.print("no drift")


def _headline(results: dict[str, Any]) -> Html:
    shown = [Tile(name="findings", value=str(len(results["drift"])), note="above a threshold")]
    for name, side in results.get("sides", {}).items():
        note = f"MMD² {side['mmd']['mmd2']:.3g}, level {side['alpha']:.3g}"
        shown.append(Tile(name=f"p of {name}", value=f"{side['mmd']['p']:.3g}", note=note))
    if "texts" in results:
        note = f"within the reference {100 * results['texts']['reference_new_words']:.1f} %"
        value = f"{100 * results['texts']['new_words']:.1f}"
        shown.append(Tile(name="new words", value=value, unit="%", note=note))
    if "canary" in results:
        one = results["canary"]["R@1"]
        note = f"recorded {one['reference']:.1f} %"
        shown.append(Tile(name="canary R@1", value=f"{one['value']:.1f}", unit="%", note=note))
    return tiles(shown)


def _sides(sides: dict[str, Any]) -> Html:
    if not sides:
        return Html()
    head = ["rows", "reference", "mean shift", "Fréchet", "of means", "of covariances", "halves", "MMD²", "p"]
    rows = [
        Row(
            name=name,
            cells=[
                f"{side['count']:,}",
                f"{side['reference_count']:,}",
                f"{side['mean_shift']:.3f}",
                f"{side['frechet']['distance']:.4g}",
                f"{side['frechet']['of_means']:.4g}",
                f"{side['frechet']['of_covariances']:.4g}",
                "-" if side["reference_halves"] is None else f"{side['reference_halves']:.4g}",
                f"{side['mmd']['mmd2']:.4g}",
                f"{side['mmd']['p']:.3g}",
            ],
        )
        for name, side in sides.items()
    ]
    words = (
        "Mean shift: distance of the means in units of the reference's spread. Fréchet: squared distance of two normal "
        "distributions; “halves” is the distance of two random halves of the reference, what chance alone gives. MMD² "
        "is the unbiased estimate with a Gaussian kernel, p that of a permutation test."
    )
    return section("Embeddings", table(head, rows=rows), paragraph(words, class_="aside"))


def _rows(texts: dict[str, Any]) -> list[Row]:
    """Return the rows of the table of queries: the new value and that of the reference."""
    length = texts["length"]
    rows = [
        Row(
            name="new words",
            cells=[f"{100 * texts['new_words']:.1f} %", f"{100 * texts['reference_new_words']:.1f} %"],
        ),
        Row(name="words per query", cells=[f"{length['mean']:.1f}", f"{length['reference_mean']:.1f}"]),
        Row(name="KS statistic of the lengths", cells=[f"{length['statistic']:.3f} (p = {length['p']:.2g})", ""]),
    ]
    if texts["unknown"] is not None:
        known = texts["reference_unknown"]
        before = "unknown" if known is None else f"{100 * known:.2f} %"
        rows.append(Row(name="unknown tokens", cells=[f"{100 * texts['unknown']:.2f} %", before]))
        rows.append(Row(name="truncated", cells=[f"{texts['truncated']:,}", ""]))
    return rows


def _texts(texts: dict[str, Any] | None) -> Html:
    if texts is None:
        return Html()
    head = [f"new ({texts['count']:,})", f"reference ({texts['reference_count']:,})"]
    examples = paragraph("Most frequent new words: ", ", ".join(texts["examples"]) or "none", class_="aside")
    return section("Queries", table(head, rows=_rows(texts), narrow=True), examples)


def _canary(canary: dict[str, Any]) -> Html:
    if not canary:
        return Html()
    shown = {
        name: {"now": (one["value"], one["low"], one["high"]), "recorded": (one["reference"], None, None)}
        for name, one in canary.items()
    }
    rows = [
        Row(
            name=name,
            cells=[
                f"{one['value']:.1f}",
                f"{one['low']:.1f} to {one['high']:.1f}",
                f"{one['reference']:.1f}",
                f"{one['difference']:+.1f} ({one['difference_low']:+.1f} to {one['difference_high']:+.1f})",
                f"{one['p']:.3g}",
            ],
        )
        for name, one in canary.items()
    ]
    head = ["now, %", "95 % interval", "recorded, %", "difference", "p"]
    return section(
        "Canary set", dot_chart(shown, name="canary", xlabel="recall, text to video, %"), table(head, rows=rows)
    )


def _all_notes(results: dict[str, Any]) -> list[str]:
    of_sides = [f"{name}: {line}" for name, side in results.get("sides", {}).items() for line in side["notes"]]
    return [*results["notes"], *of_sides]


def _notes(results: dict[str, Any]) -> Html:
    lines = _all_notes(results)
    return section("Notes", *(paragraph(line) for line in lines)) if lines else Html()
