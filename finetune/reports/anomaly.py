"""The report of anomalies: JSON, page and the table on the terminal."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...evaluate.reports.pictures import evenly_spread, write_strips
from ...pages.charts import Counts, histogram
from ...pages.drawing import COLOURS
from ...pages.markup import Html, join, tag
from ...pages.page import paragraph, section, write_page
from ...pages.tables import Row, Tile, protocol_list, table, tiles
from ...pages.timelines import Lane, timeline
from ..examples.clips import LabelledClips
from ..figures.anomaly import Film

if TYPE_CHECKING:
    from ...data.batches.records import Records

EXAMPLES = 12
"""How many the page shows."""
_BARS = 120  # of an example at most
_READINGS = {
    "frames": "all frames, spans to the frame",
    "sultani": "Sultani et al.: 32 segments",
    "rtfm": "RTFM: clips of 16 frames",
    "changes": "change from frame to frame, no model",
}


def write_anomalies(
    figures: dict[str, Any],
    *,
    films: Sequence[Film],
    records: "Records",
    clips: LabelledClips,
    out: Path,
    protocol: dict[str, Any],
) -> Path:
    """Write `anomalies.json` and `index.html`; the folder opens from disk without a network.

    Args:
      figures: of `anomaly.anomaly_figures`.
      films: the films that they are of.
      records: the data set.
      clips: the films of the split.
      out: folder, made if absent.
      protocol: how the figures were made.

    Returns:
      The path of the page.
    """
    out.mkdir(parents=True, exist_ok=True)
    whole = {"protocol": protocol, **figures, "films": [_listed(film) for film in films]}
    (out / "anomalies.json").write_text(json.dumps(whole, ensure_ascii=False) + "\n", encoding="utf-8")
    shown = _chosen(films)
    strips = write_strips(
        out / "clips", records=records, split=clips.split, clips={film.clip_id: film.found.film for film in shown}
    )
    text = (
        f"{len(shown)} films, evenly spread from the worst to the best: by how much the scores of abnormal frames "
        "exceed those of the others, and how low the highest score of a normal film is."
    )
    return write_page(
        out / "index.html",
        kind="anomalies",
        title=f"{protocol['dataset']} · {clips.split}",
        subtitle=f"{figures['n']:,} films, {figures['abnormal']:,} of them abnormal",
        sections=[
            *_figures(figures),
            *_spread(films),
            section(
                "Examples", paragraph(text), tag("div", *[_card(f, strips=strips) for f in shown], class_="timelines")
            ),
            section("Protocol", protocol_list(protocol)),
        ],
        footer=join(["The same figures are in ", tag("a", "anomalies.json", href="anomalies.json"), "."]),
    )


def print_figures(figures: dict[str, Any], *, page: Path) -> None:
    """Print the table of an anomaly report on standard output."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if figures["frames"]:
        shown = Table("over frames")
        for name in ("AUC, %", "AP, %"):
            shown.add_column(name, justify="right")
        for key, name in _READINGS.items():
            if figures[key]:
                shown.add_row(name, *(f"{100 * figures[key][k]:.1f}" for k in ("auc", "ap")))
        shown.add_row("chance", "50.0", f"{100 * _share(figures):.1f}")
        console.print(shown)
    console.print(
        f"{figures['n']} films, {figures['abnormal']} abnormal; AUC of their highest scores "
        f"{_percent(figures['video_auc'])} %; abnormal films without spans: {figures['unmarked']}\nreport: {page}",
        soft_wrap=True,
        highlight=False,
    )


def _share(figures: dict[str, Any]) -> float:
    """Return the share of abnormal frames, which is the AP of chance."""
    return figures["frames"]["abnormal"] / figures["frames"]["frames"]


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _figures(figures: dict[str, Any]) -> list[Html]:
    films = Tile(
        name="AUC of films", value=_percent(figures["video_auc"]), unit="%", note="of the highest score of each film"
    )
    if not figures["frames"]:
        text = "No abnormal film of the split has spans, so there are no figures over frames."
        return [tiles([films]), paragraph(text)]
    own, plain = figures["frames"], figures["changes"]
    shown = [
        Tile(
            name="AUC over frames",
            value=_percent(own["auc"]),
            unit="%",
            note=f"change from frame to frame: {_percent(plain['auc'])} %; chance: 50 %",
        ),
        Tile(
            name="Average precision",
            value=_percent(own["ap"]),
            unit="%",
            note=f"change: {_percent(plain['ap'])} %; chance: {_percent(_share(figures))} %",
        ),
        films,
    ]
    keys = ("auc", "auc_ungrouped", "ap", "pr_auc")
    rows = [
        Row(name=name, cells=[*(_percent(figures[key][k]) for k in keys), f"{figures[key]['frames']:,}"])
        for key, name in _READINGS.items()
        if figures[key]
    ]
    note = (
        "All figures are over the frames of all films together, not means over films. Equal scores are grouped, as in "
        "scikit-learn; ungrouped is the script of Sultani et al. PR-AUC is RTFM's trapezoid under precision over "
        "recall."
    )
    unmarked = f" {figures['unmarked']} abnormal films without spans are left out." if figures["unmarked"] else ""
    labels = [
        Row(name=name, cells=[_percent(row["auc"]), _percent(row["changes"]), f"{row['n']:,}"])
        for name, row in figures["by_label"].items()
    ]
    head = ["AUC, %", "ungrouped, %", "AP, %", "PR-AUC, %", "frames"]
    by_label = table(["AUC, %", "change, %", "films"], rows=labels, narrow=True)
    with_normal = paragraph("Over the frames of the films of a label and of all normal films.", class_="aside")
    return [
        tiles(shown),
        section("Readings", table(head, rows=rows), paragraph(note + unmarked, class_="aside")),
        section("Labels", by_label, with_normal),
    ]


def _spread(films: Sequence[Film]) -> list[Html]:
    """Draw the scores of normal and of abnormal frames."""
    marked = [film for film in films if film.marked]
    if not any(len(film.spans) for film in marked):
        return []
    scores = np.concatenate([film.found.at(film.times) for film in marked])
    truth = np.concatenate([film.truth for film in marked])
    edges = np.linspace(0, 1, 41)
    series = [
        Counts(name=name, counts=np.histogram(scores[chosen], edges)[0], edges=edges, colour=colour)
        for name, chosen, colour in (("normal frames", ~truth, COLOURS[0]), ("abnormal frames", truth, COLOURS[1]))
    ]
    chart = histogram(series, name="scores", xlabel="score", ylabel="% of the frames", size=(6.4, 2.6))
    return [section("Scores", chart)]


def _chosen(films: Sequence[Film]) -> list[Film]:
    """Return the films to show, from the worst to the best."""

    def quality(film: Film) -> float:
        if not film.abnormal:
            return -float(film.found.scores.max())
        if not len(film.spans) or film.truth.all() or not film.truth.any():
            return float(film.found.scores.max()) - 1
        scores, truth = film.found.at(film.times), film.truth
        return float(scores[truth].mean() - scores[~truth].mean()) - 1

    order = np.argsort([quality(film) for film in films], kind="stable")
    return [films[i] for i in evenly_spread(order, record=np.arange(len(films)), count=EXAMPLES)]


def _card(film: Film, *, strips: dict[str, str]) -> Html:
    bars = min(_BARS, len(film.found.scores))
    scores = film.found.at((np.arange(bars) + 0.5) * film.duration_s / bars)
    spans = [(start, end, film.label) for start, end in (film.spans / film.duration_s).tolist()]
    lanes = [Lane(name="true", spans=spans, mark="truth")] if spans else []
    lanes += [Lane(name="scores", scores=scores.tolist())]
    best = float(film.found.scores.max())
    return timeline(
        film.clip_id,
        picture=strips.get(film.clip_id),
        lanes=lanes,
        duration_s=film.duration_s,
        note=f"{film.label} · highest score {best:.2f}",
    )


def _listed(film: Film) -> dict[str, Any]:
    """One JSON value per film: its label, its spans, and the scores of its time steps."""
    found = film.found
    return {
        "clip_id": film.clip_id,
        "label": film.label,
        "spans": film.spans.tolist(),
        "edges_s": found.edges.round(4).tolist(),
        "scores": found.scores.round(6).tolist(),
    }
