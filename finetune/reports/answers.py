"""The report of answers: JSON, page and the table on the terminal."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...encode.predict.answers import Written
from ...evaluate.reports.pictures import evenly_spread, write_strips
from ...pages.markup import Html, join, tag
from ...pages.page import paragraph, section, write_page
from ...pages.tables import Row, Tile, protocol_list, table, tiles
from ..examples.questions import Questions
from ..figures.written import WUPS

if TYPE_CHECKING:
    from ...data.batches.records import Records

EXAMPLES = 16
"""How many questions the page shows."""
_TOP = 5  # answers of each question in the JSON and on the page
_TYPES = 40  # in tables


def write_answers(
    figures: dict[str, Any],
    *,
    scores: Sequence[np.ndarray | Written],
    questions: Questions,
    vocabulary: Sequence[str],
    records: "Records",
    out: Path,
    protocol: dict[str, Any],
) -> Path:
    """Write `answers.json` and `index.html`; the folder opens from disk without a network.

    Args:
      figures: name of a row, "model" first -> its figures, see `figures.answers.answer_figures`.
      scores: of each question the probabilities of the answers, by the model; or the answer that it wrote.
      questions: the questions.
      vocabulary: the answers; () of the other kinds.
      records: the data set.
      out: folder, made if absent.
      protocol: how the figures were made.

    Returns:
      The path of the page.
    """
    out.mkdir(parents=True, exist_ok=True)
    rows, right = records.rows(questions.split), questions.right
    listed = []
    for i, one in enumerate(scores):
        best = _best(one, names=questions.options[i] or vocabulary)
        example = {"clip_id": rows[int(questions.record[i])]["clip_id"], "question": questions.texts[i]}
        example |= {"type": questions.types[i], "right": right[i], "answer": next(iter(best))}
        listed.append(example | {"scores": best})
    whole = {"protocol": protocol, "rows": figures, "examples": listed}
    (out / "answers.json").write_text(json.dumps(whole, ensure_ascii=False) + "\n", encoding="utf-8")
    shown = _chosen(questions, listed=listed)
    clips = {listed[i]["clip_id"]: int(questions.record[i]) for i in shown}
    strips = write_strips(out / "clips", records=records, split=questions.split, clips=clips)
    cards = [_card(listed[i], strip=strips.get(listed[i]["clip_id"])) for i in shown]
    text = (
        f"{len(shown)} questions on as many clips, evenly spread from the most certain mistake to the most certain "
        "right answer."
    )
    return write_page(
        out / "index.html",
        kind="answers",
        title=f"{protocol['dataset']} · {questions.split}",
        subtitle=f"{len(questions):,} questions · {len(np.unique(questions.record)):,} clips",
        sections=[
            _headline(figures),
            section("Baselines", _table_of_rows(figures), paragraph(_reading(figures), class_="aside")),
            section("Types of questions", _table_of_types(figures)),
            section("Examples", paragraph(text), tag("div", *cards, class_="timelines")),
            section("Protocol", protocol_list(protocol)),
        ],
        footer=join(["The same figures are in ", tag("a", "answers.json", href="answers.json"), "."]),
    )


def print_figures(figures: dict[str, Any], *, page: Path) -> None:
    """Print the tables of a report on standard output."""
    from rich.console import Console
    from rich.table import Table

    columns = _columns(figures)
    shown = Table("answers by")
    for name in columns:
        shown.add_column(name, justify="right")
    for name, one in figures.items():
        shown.add_row(name, *(_cell(one, path) for path in columns.values()))
    types = Table("type of question")
    for name in ("questions", *figures):
        types.add_column(name, justify="right")
    for kind, one in list(figures["model"]["per_type"].items())[:_TYPES]:
        types.add_row(kind, f"{one['n']}", *(f"{row['per_type'][kind]['accuracy']:.1f}" for row in figures.values()))
    console = Console()
    console.print(shown)
    console.print(types)
    console.print(f"in percent, on {figures['model']['n']} questions\nreport: {page}", soft_wrap=True, highlight=False)


def _best(one: np.ndarray | Written, *, names: Sequence[str]) -> dict[str, float]:
    """Return the likeliest answers with their probabilities, the best first."""
    if isinstance(one, Written):
        return {one.answer: round(one.score, 4)}
    best = np.argsort(-one, kind="stable")[:_TOP].tolist()
    return {str(names[k]): round(float(one[k]), 4) for k in best}


def _columns(figures: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return name of a column -> keys of its figure, of those that the model has."""
    known = {"accuracy": ("accuracy",), "VQA accuracy": ("vqa_accuracy",)}
    known |= {name.replace("wups", "WUPS"): (name,) for name in WUPS}
    known |= {"outside left out": ("answerable_only", "top1"), "top 10": ("top10",), "first wins": ("first_wins",)}
    return {name: path for name, path in known.items() if _cell(figures["model"], path)}


def _cell(one: dict[str, Any], path: tuple[str, ...]) -> str:
    value: Any = one
    for key in path:
        value = value.get(key, {})
    return f"{value:.1f}" if isinstance(value, float) else ""


def _headline(figures: dict[str, Any]) -> Html:
    model, alone = figures["model"], figures["question only"]
    low, high = model.get("interval", (None, None))
    spread = f"95 % interval: {low:.1f} to {high:.1f} %" if low is not None else ""
    shown = [Tile(name="Accuracy", value=f"{model['accuracy']:.1f}", unit="%", note=spread)]
    if "vqa_accuracy" in model:
        note = f"{model['vqa_n']:,} questions with several annotators"
        shown.append(Tile(name="VQA accuracy", value=f"{model['vqa_accuracy']:.1f}", unit="%", note=note))
    gain = model["accuracy"] - alone["accuracy"]
    note = f"the clip adds {gain:.1f} points"
    shown.append(Tile(name="Question only", value=f"{alone['accuracy']:.1f}", unit="%", note=note))
    usual, note = figures["most frequent answer"]["accuracy"], "of each type of question, in the train split"
    shown.append(Tile(name="Most frequent answer", value=f"{usual:.1f}", unit="%", note=note))
    return tiles(shown)


def _reading(figures: dict[str, Any]) -> str:
    text = (
        "Question only: a head of the same form and training that sees no clip. Frames shuffled: the frames of each "
        "clip in another order. Another clip's frames or sound: those of another clip of the split."
    )
    model = figures["model"]
    if "answerable" in model:
        text += (
            f" Accuracy counts an answer outside the vocabulary of {model['vocabulary']:,} as wrong (just-ask); "
            f"{model['answerable']:.1f} % of the right answers are in it. “Outside left out” does not count those "
            "questions (InternVideo)."
        )
    if "answerable" not in model and "chance" not in model:
        text += " Accuracy is exact match after the normalisation of VQA."
    if WUPS[0] in model:
        text += " WUPS counts nearly right answers by their distance in WordNet (Malinowski & Fritz 2014)."
    if "chance" in model:
        text += f" A random option is right in {model['chance']:.1f} %."
    return text


def _table_of_rows(figures: dict[str, Any]) -> Html:
    columns = _columns(figures)
    rows = [
        Row(name=name, cells=[_cell(one, path) for path in columns.values()], mark="main" * (name == "model"))
        for name, one in figures.items()
    ]
    return table([f"{name}, %" for name in columns], rows=rows)


def _table_of_types(figures: dict[str, Any]) -> Html:
    rows = [
        Row(
            name=kind,
            cells=[f"{one['n']:,}", *(f"{row['per_type'][kind]['accuracy']:.1f}" for row in figures.values())],
        )
        for kind, one in list(figures["model"]["per_type"].items())[:_TYPES]
    ]
    return table(["questions", *(f"{name}, %" for name in figures)], rows=rows)


def _card(example: dict[str, Any], *, strip: str | None) -> Html:
    good = example["answer"] == example["right"]
    note = f"{'✓' if good else '✗'} right answer: {example['right']} · {example['type']}"
    title = example["question"] or example["clip_id"]
    image = (
        tag("img", src=strip, alt=f"frames of {example['clip_id']}", loading="lazy", decoding="async") if strip else ""
    )
    items = [
        tag("li", tag("span", name), tag("span", f"{100 * score:.1f} %"), style=f"--share: {100 * score:.1f}%")
        for name, score in example["scores"].items()
    ]
    answers = tag("div", tag("ul", *items), class_="lists")
    head = tag("figcaption", tag("b", title), " ", tag("span", note, class_="note"))
    lanes = [tag("div", tag("span", name), part, class_="lane") for name, part in (("", image), ("answers", answers))]
    return tag("figure", head, *lanes, class_="timeline")


def _chosen(questions: Questions, *, listed: Sequence[dict[str, Any]]) -> list[int]:
    """Return the numbers of questions to show, from the most certain mistake to the most certain right answer."""
    sure = [
        next(iter(example["scores"].values())) * (1 if example["answer"] == example["right"] else -1)
        for example in listed
    ]
    return evenly_spread(np.argsort(sure, kind="stable"), record=questions.record, count=EXAMPLES)
