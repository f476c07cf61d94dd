"""The report of recommendation: JSON, page, the catalogue and the table on the terminal."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...encode.predict.recommender import CATALOGUE, Recommender
from ...evaluate.reports.pictures import clip_frames
from ...pages.markup import Html, join, tag
from ...pages.page import paragraph, section, write_page
from ...pages.tables import Row, Tile, protocol_list, table, tiles
from ...pages.thumbnails import clip_figure, write_strip
from ..examples.sessions import Catalogue, Sessions

if TYPE_CHECKING:
    from ...data.batches.records import Records

KINDS = {
    "model": "session model",
    "mean": "mean of embeddings, not trained",
    "popularity": "popularity",
    "random": "random order",
}
EXAMPLES, SHOWN = 8, 5
"""Sessions of the page, and clips of each history and of what is recommended after it."""


def write_recommendations(
    figures: dict[str, Any],
    *,
    recommender: Recommender,
    sessions: Sessions,
    catalogue: Catalogue,
    vectors: np.ndarray,
    records: "Records",
    out: Path,
    protocol: dict[str, Any],
) -> Path:
    """Write `recommendation.json`, `catalogue.npz` and `index.html`; the folder opens from disk without a network.

    Args:
      figures: of `recommend.recommendation_figures` for each of `KINDS`.
      recommender: the model, with the catalogue.
      sessions: those of the report.
      catalogue: what can be recommended.
      vectors: float32 [items,D], of the catalogue.
      records: the data set.
      out: folder, made if absent.
      protocol: how the figures were made.

    Returns:
      The path of the page.
    """
    out.mkdir(parents=True, exist_ok=True)
    partial = out / ".catalogue.partial.npz"
    np.savez(partial, clip_ids=np.array(catalogue.clip_ids), vectors=vectors)
    partial.replace(out / Path(CATALOGUE).name)
    examples = _examples(recommender, sessions=sessions, catalogue=catalogue, exclude=protocol["exclude_seen"])
    text = json.dumps({"protocol": protocol, **figures, "examples": examples}, indent=1, ensure_ascii=False) + "\n"
    (out / "recommendation.json").write_text(text, encoding="utf-8")
    pictures = _pictures(out / "clips", examples=examples, catalogue=catalogue, records=records)
    return write_page(
        out / "index.html",
        kind="recommendation",
        title=f"{protocol['dataset']} · sessions",
        subtitle=f"{figures['sessions']:,} test sessions, {protocol['clips']:,} clips",
        sections=[
            _tiles(figures),
            _table(figures),
            *[_example(one, pictures=pictures) for one in examples],
            section("Protocol", protocol_list(protocol)),
        ],
        footer=join(["The same figures are in ", tag("a", "recommendation.json", href="recommendation.json"), "."]),
    )


def print_figures(figures: dict[str, Any], *, page: Path) -> None:
    """Print the table of a report on recommendation on standard output."""
    from rich.console import Console
    from rich.table import Table

    k, shown = figures["k"], Table("in percent")
    names = (f"nDCG@{k}", f"recall@{k}", "MRR", "MAP")
    for name in (*names, f"nDCG@{k}, new clips"):
        shown.add_column(name, justify="right")
    for key, name in KINDS.items():
        own, cold = figures[key], figures[key]["cold"]
        last = _percent(cold[names[0]]) if cold else "–"
        shown.add_row(name, *(_percent(own[one]) for one in names), last)
    console = Console()
    console.print(shown)
    console.print(f"{figures['sessions']} test sessions\nreport: {page}", soft_wrap=True, highlight=False)


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _tiles(figures: dict[str, Any]) -> Html:
    k = figures["k"]
    shown = []
    for name in (f"nDCG@{k}", f"recall@{k}", "MRR"):
        note = f"popularity: {_percent(figures['popularity'][name])} %, mean: {_percent(figures['mean'][name])} %"
        shown.append(Tile(name=name, value=_percent(figures["model"][name]), unit="%", note=note))
    cold = figures["model"]["cold"]
    if cold:
        note = f"{cold['users']:,} sessions whose next clip is in no session of training"
        shown.append(Tile(name=f"nDCG@{k}, new clips", value=_percent(cold[f"nDCG@{k}"]), unit="%", note=note))
    return tiles(shown)


def _table(figures: dict[str, Any]) -> Html:
    k = figures["k"]
    names = [f"nDCG@{k}", f"nDCG_exponential@{k}", f"recall@{k}", f"hit@{k}", "MRR", "MAP", f"MAP@{k}"]
    rows = []
    for key, name in KINDS.items():
        own = figures[key]
        rows.append(Row(name=name, cells=[_percent(own[one]) for one in names]))
        for part, words in (("warm", "known clips"), ("cold", "new clips")):
            if own[part] and figures["model"]["cold"]:
                rows.append(Row(name=f"{name}: {words}", cells=[_percent(own[part][one]) for one in names]))
    text = (
        "In percent. One clip is relevant in each session, the one that came next; equal scores are resolved in "
        "expectation. Readings of several libraries (gains, divisors, users with nothing relevant) agree where one "
        "clip is relevant; recommendation.json has all of them, with the bounds of ties. New clips are in no session "
        "of training."
    )
    return section("Figures", table(names, rows=rows), paragraph(text, class_="aside"))


def _examples(
    recommender: Recommender, *, sessions: Sessions, catalogue: Catalogue, exclude: bool
) -> list[dict[str, Any]]:
    """Return sessions evenly spread over the test sessions, with what is recommended."""
    chosen = np.unique(np.linspace(0, len(sessions) - 1, min(EXAMPLES, len(sessions))).round().astype(int)).tolist()
    scores = recommender.scores([sessions.items[i][:-1] for i in chosen])
    found = []
    for row, number in enumerate(chosen):
        items, own = sessions.items[number], scores[row].copy()
        if exclude:
            own[items[:-1][items[:-1] != items[-1]]] = -np.inf
        order = np.argsort(-own, kind="stable")
        found.append(
            {
                "session": sessions.names[number],
                "history": [catalogue.clip_ids[i] for i in items[:-1].tolist()],
                "next": catalogue.clip_ids[items[-1]],
                "rank": int(np.flatnonzero(order == items[-1])[0]) + 1,
                "recommended": [
                    {"clip_id": catalogue.clip_ids[i], "score": float(own[i])} for i in order[:SHOWN].tolist()
                ],
            }
        )
    return found


def _pictures(
    folder: Path, *, examples: list[dict[str, Any]], catalogue: Catalogue, records: "Records"
) -> dict[str, str]:
    """Write a strip of three frames for each clip of the examples; clip id -> path relative to the page."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.webp"):
        old.unlink()
    place, made = {clip: i for i, clip in enumerate(catalogue.clip_ids)}, {}
    shown = [clip for one in examples for clip in (*one["history"][-SHOWN:], one["next"])]
    shown += [clip["clip_id"] for one in examples for clip in one["recommended"]]
    for number, clip in enumerate(dict.fromkeys(shown)):
        split, index = catalogue.place(place[clip])
        jpegs, _ = clip_frames(records, split=split, index=index)
        if jpegs:
            write_strip(folder / f"{number:03d}.webp", jpegs=jpegs, count=3, side=64)
            made[clip] = f"{folder.name}/{number:03d}.webp"
    return made


def _example(one: dict[str, Any], *, pictures: dict[str, str]) -> Html:
    history = [clip_figure(pictures.get(clip), note="", caption=clip, mark="strip") for clip in one["history"][-SHOWN:]]
    found = []
    for clip in one["recommended"]:
        name, right = clip["clip_id"], clip["clip_id"] == one["next"]
        mark = "strip right" if right else "strip"
        note = join([tag("b", f"{clip['score']:.2f}"), " came next" if right else ""])
        found.append(clip_figure(pictures.get(name), note=note, caption=name, mark=mark))
    came = clip_figure(pictures.get(one["next"]), note=f"place {one['rank']}", caption=one["next"], mark="strip")
    return section(
        f"Session {one['session']}",
        paragraph(f"The last {len(history)} of {len(one['history'])} clips"),
        tag("div", *history, class_="five"),
        paragraph("Recommended"),
        tag("div", *found, class_="five"),
        paragraph("What came next"),
        tag("div", came, class_="five"),
    )
