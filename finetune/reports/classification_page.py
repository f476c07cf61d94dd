"""The page of a classification report."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...pages.charts import MOST_NAMED, confusion_matrix
from ...pages.markup import Html, join, tag
from ...pages.page import details, paragraph, section, write_page
from ...pages.tables import Row, Tile, protocol_list, table, tiles
from ...pages.thumbnails import clip_figure

_MOST_LISTED = 50


def write_classification_page(
    path: Path, *, report: dict[str, Any], title: str, protocol: Mapping[str, Any], pictures: Mapping[str, str]
) -> Path:
    """Write the page of a report.

    Args:
      path: the file.
      report: the value of `report.classification_report`.
      title: heading of the page.
      protocol: how the figures were made.
      pictures: clip_id -> picture of the clip, relative to the page, for some of the mistakes.

    Returns:
      The path.
    """
    return write_page(
        path,
        kind="classification",
        title=title,
        subtitle=f"{report['n']:,} clips · {len(report['per_class']):,} classes",
        sections=[
            _figures(report),
            *([_extension(report["extension"])] if "extension" in report else []),
            _classes(report),
            _confusion(report),
            _mistakes(report["mistakes"], total=report["n"], pictures=pictures),
            section("Protocol", protocol_list(protocol)),
        ],
        footer=join(
            [
                "The same figures are in ",
                tag("a", "classification.json", href="classification.json"),
                ", the confusion matrix as a picture in ",
                tag("a", "confusion.png", href="confusion.png"),
                ".",
            ]
        ),
    )


def _confusion(report: dict[str, Any]) -> Html:
    labels = list(report["per_class"])
    chart = confusion_matrix(report["confusion"], labels=labels)
    width = f"max-width: {min(1056, 360 + 48 * len(labels))}px"  # a matrix of few classes does not fill the page
    text = "Counts of clips; colour shows their share of the true class."
    if len(labels) > MOST_NAMED:
        text = "Colour shows the share of the true class. Classes are numbered from 0 in the order of the table above."
    return section("Confusion matrix", paragraph(text), tag("figure", chart, class_="matrix", style=width))


def _figures(report: dict[str, Any]) -> Html:
    low, high = report["accuracy_interval_95"]
    shown = [
        ("Accuracy", report["accuracy"], f"95 % interval: {low:.1f} to {high:.1f} %"),
        ("Balanced accuracy", report["balanced_accuracy"], f"mean recall; chance {report['chance']:.1f} %"),
        ("Macro F1", report["macro"]["f1"], "mean over the classes"),
        ("Calibration error", report["ece"], "expected, in 15 bins of confidence"),
        ("Majority baseline", report["majority"], "always the most frequent class"),
    ]
    if "top5_accuracy" in report:
        shown.insert(1, ("Top-5 accuracy", report["top5_accuracy"], "true class among the first five"))
    return tiles(Tile(name=name, value=f"{value:.1f}", unit="%", note=note) for name, value, note in shown)


def _extension(figures: dict[str, Any]) -> Html:
    """Return what a classifier that was given further classes has kept and learned."""
    names = {"old_before": "old classes, before", "old": "old classes", "new": "new classes", "all": "all"}
    rows = [
        Row(name=name, cells=["–" if figures[key] is None else f"{figures[key]:.1f}"], mark="main" * (key == "all"))
        for key, name in names.items()
    ]
    text = f"The checkpoint knew {figures['old_classes']} of the classes; before, it chose among these alone."
    return section("Further classes", paragraph(text), table(["accuracy, %"], rows=rows, narrow=True))


def _classes(report: dict[str, Any]) -> Html:
    def row(name: str, figures: dict[str, Any], *, mark: str = "") -> Row:
        shares = [f"{figures[key]:.1f}" for key in ("precision", "recall", "f1")]
        return Row(name=name, cells=[*shares, f"{figures.get('support', report['n']):,}"], mark=mark)

    rows = [row(name, figures) for name, figures in report["per_class"].items()]
    rows.append(row("mean over classes", report["macro"], mark="main"))
    rows.append(row("mean over clips", report["weighted"], mark="main"))
    return section("Classes", table(["precision, %", "recall, %", "F1, %", "clips"], rows=rows))


def _mistakes(mistakes: Sequence[dict[str, Any]], *, total: int, pictures: Mapping[str, str]) -> Html:
    if not mistakes:
        return section("Mistakes", paragraph("None."))
    cards = [
        clip_figure(
            pictures[clip["clip_id"]],
            note=join([tag("b", clip["predicted"]), f" {clip['probability']:.0f} %"]),
            caption=f"true class: {clip['label']} ({clip['clip_id']})",
            alt=clip["clip_id"],
            mark="wrong",
        )
        for clip in mistakes
        if clip["clip_id"] in pictures
    ]
    listed = mistakes[:_MOST_LISTED]
    rows = [
        Row(name=clip["clip_id"], cells=[clip["label"], clip["predicted"], f"{clip['probability']:.1f}"])
        for clip in listed
    ]
    order = "the most confident first"
    which = f"the {len(listed)} most confident are listed" if len(mistakes) > len(listed) else order
    return section(
        "Mistakes",
        paragraph(f"{len(mistakes):,} of {total:,} clips; {which}."),
        tag("div", *cards, class_="grid") if cards else "",
        details("as a table", table(["true class", "predicted class", "probability, %"], rows=rows)),
    )
