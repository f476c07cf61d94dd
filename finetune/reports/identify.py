"""The report of verification: JSON, page and the table on the terminal."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...encode.predict.verifier import REPORT
from ...evaluate.measures.identity import roc
from ...evaluate.reports.pictures import write_strips
from ...pages.charts import Counts, Line, histogram, rate_chart
from ...pages.drawing import COLOURS, MUTED
from ...pages.markup import Html, join, tag
from ...pages.page import paragraph, section, write_page
from ...pages.tables import Row, Tile, protocol_list, table, tiles
from ...pages.thumbnails import clip_figure
from ..examples.identities import IdentityClips
from ..figures.identify import Compared, cosines

if TYPE_CHECKING:
    from ...data.batches.records import Records

HARDEST = 6
"""How many pairs of each kind the page shows."""
KINDS = {"model": "fine-tuned", "untrained": "tower, not trained"}
_POINTS = 2000  # of a curve on the page at most


def write_verification(
    figures: dict[str, Any],
    *,
    compared: Compared,
    index: np.ndarray,
    clips: IdentityClips,
    records: "Records",
    out: Path,
    protocol: dict[str, Any],
) -> Path:
    """Write `verification.json` and `index.html`; the folder opens from disk without a network.

    Args:
      figures: of `identify.verification_figures`.
      compared: what they are of.
      index: int64 [m], the records of the clips.
      clips: the clips of the split.
      records: the data set.
      out: folder, made if absent.
      protocol: how the figures were made.

    Returns:
      The path of the page.
    """
    out.mkdir(parents=True, exist_ok=True)
    scores = cosines(compared.embedding, pairs=compared.pairs)
    hardest = _hardest(scores, compared=compared, index=index, clips=clips, records=records)
    whole = {"protocol": protocol, **figures, "hardest": hardest}
    text = json.dumps(whole, indent=1, ensure_ascii=False) + "\n"
    (out / Path(REPORT).name).write_text(text, encoding="utf-8")
    shown = {one[end]: one["records"][i] for one in hardest for i, end in enumerate(("first", "second"))}
    strips = write_strips(out / "clips", records=records, split=clips.split, clips=shown, count=5)
    return write_page(
        out / "index.html",
        kind="verification",
        title=f"{protocol['dataset']} · {clips.split}",
        subtitle=f"{figures['pairs']:,} pairs of {len(index):,} clips, {figures['same']:,} of one identity",
        sections=[
            _tiles(figures),
            _rates(figures),
            section("Curve", _curve(figures, compared=compared)),
            section("Scores", *_spread(scores, compared=compared, figures=figures)),
            *_pairs(hardest, strips=strips),
            section("Protocol", protocol_list(protocol)),
        ],
        footer=join(["The same figures are in ", tag("a", "verification.json", href="verification.json"), "."]),
    )


def print_figures(figures: dict[str, Any], *, page: Path) -> None:
    """Print the table of a report on verification on standard output."""
    from rich.console import Console
    from rich.table import Table

    shown, given = Table("in percent"), [figures[key] for key in KINDS if figures[key]]
    for key, name in KINDS.items():
        if figures[key]:
            shown.add_column(name, justify="right")
    shown.add_column("chance", justify="right")
    for name, key in (("equal error rate", "eer"), ("AUC", "auc")):
        shown.add_row(name, *(_percent(own[key]) for own in given), "50.0")
    for rate in given[0]["tar"]:
        shown.add_row(
            f"TAR at FAR {100 * float(rate):g} %",
            *(_percent(own["tar"][rate]) for own in given),
            f"{100 * float(rate):g}",
        )
    if "lfw" in given[0]:
        shown.add_row("accuracy over folds (LFW)", *(_percent(own["lfw"]["accuracy"]) for own in given), "50.0")
    limit = figures["threshold"]
    console = Console()
    console.print(shown)
    console.print(
        f"{figures['pairs']} pairs, {figures['same']} of one identity. At a cosine of {limit['value']:.3f}, chosen on "
        f"{limit['chosen_on']}: false accepts {100 * limit['far']:.1f} %, false rejects {100 * limit['frr']:.1f} %\n"
        f"report: {page}",
        soft_wrap=True,
        highlight=False,
    )


def _percent(value: float, digits: int = 1) -> str:
    return f"{100 * value:.{digits}f}"


def _tiles(figures: dict[str, Any]) -> Html:
    own, plain, limit = figures["model"], figures["untrained"], figures["threshold"]
    note = f"not trained: {_percent(plain['eer'])} %; chance: 50 %" if plain else "chance: 50 %"
    shown = [
        Tile(name="Equal error rate", value=_percent(own["eer"]), unit="%", note=note),
        Tile(
            name="TAR at FAR 0.1 %",
            value=_percent(own["tar"]["0.001"]),
            unit="%",
            note=f"not trained: {_percent(plain['tar']['0.001'])} %" if plain else "true accepts",
        ),
    ]
    if "lfw" in own:
        note = f"± {_percent(own['lfw']['std'])} over {own['lfw']['folds']} folds of balanced pairs"
        shown.append(Tile(name="Accuracy as of LFW", value=_percent(own["lfw"]["accuracy"]), unit="%", note=note))
    shown.append(
        Tile(
            name="Threshold",
            value=f"{limit['value']:.3f}",
            note=f"from {limit['chosen_on']}: {_percent(limit['far'])} % false accepts, {_percent(limit['frr'])} % "
            "false rejects",
        )
    )
    return tiles(shown)


def _rates(figures: dict[str, Any]) -> Html:
    rows = []
    for key, name in KINDS.items():
        own = figures[key]
        if not own:
            continue
        for rate, strict in own["tar"].items():
            at = own["far_table"][rate]
            cells = [f"{100 * float(rate):g}", _percent(strict), _percent(own["tar_nearest"][rate])]
            rows.append(Row(name=name, cells=[*cells, f"{_percent(1 - at['fnr'])} at {100 * at['fpr']:.3g}"]))
    head = ["FAR, %", "TAR, %", "nearest, %", "voxceleb_trainer, %"]
    plain = figures["untrained"]
    more = "" if plain else " The tower was trained, so there are no figures of it as it was; evaluate the checkpoint."
    text = (
        "TAR: the largest share of true accepts at which false accepts do not exceed the rate. Nearest: at the point "
        "of the curve nearest to it, where they may (insightface); voxceleb_trainer: likewise, on the corners of the "
        f"curve. The smallest false-accept rate above 0 of these pairs is {figures['model']['smallest_far']:.1e}. EER: "
        f"{_percent(figures['model']['eer'], 2)} % interpolated, {_percent(figures['model']['eer_nearest'], 2)} % at "
        f"the nearest point.{more}"
    )
    return section("True accepts at false accepts", table(head, rows=rows), paragraph(text, class_="aside"))


def _curve(figures: dict[str, Any], *, compared: Compared) -> Html:
    given = {"model": compared.embedding, "untrained": compared.untrained}
    lines = []
    for number, (key, rows) in enumerate(given.items()):
        if rows is not None:
            far, tar = roc(cosines(rows, pairs=compared.pairs), same=compared.pairs.same)
            kept = np.unique(np.linspace(0, len(far) - 1, min(len(far), _POINTS)).round().astype(int))
            kept = np.union1d(kept, np.searchsorted(far, np.geomspace(max(far[far > 0].min(), 1e-9), 1, 400)))
            kept = kept[kept < len(far)]
            lines.append(Line(name=KINDS[key], x=100 * far[kept], y=100 * tar[kept], colour=COLOURS[number]))
    left = 100 * max(figures["model"]["smallest_far"], 1e-6)
    chance = np.geomspace(left, 100, 50)
    lines.append(Line(name="chance", x=chance, y=chance, colour=MUTED, dotted=True))
    return rate_chart(lines, name="roc", xlabel="false accepts, %", ylabel="true accepts, %", left=left)


def _spread(scores: np.ndarray, *, compared: Compared, figures: dict[str, Any]) -> list[Html]:
    edges = np.linspace(min(-0.2, float(scores.min())), 1, 61)
    series = [
        Counts(name=name, counts=np.histogram(scores[chosen], edges)[0], edges=edges, colour=colour)
        for name, chosen, colour in (
            ("two identities", ~compared.pairs.same, COLOURS[0]),
            ("one identity", compared.pairs.same, COLOURS[1]),
        )
    ]
    limit = figures["threshold"]["value"]
    how = {"xlabel": "cosine", "ylabel": "% of the pairs", "size": (6.4, 2.6), "limit": limit}
    text = f"Dotted: the threshold, {limit:.3f}."
    return [histogram(series, name="scores", **how), paragraph(text, class_="aside")]


def _hardest(
    scores: np.ndarray, *, compared: Compared, index: np.ndarray, clips: IdentityClips, records: "Records"
) -> list[dict[str, Any]]:
    """Return the pairs of one identity with the lowest scores and those of two with the highest, of a clip one each."""
    rows, found = records.rows(clips.split), []
    for same, order in ((True, np.argsort(scores, kind="stable")), (False, np.argsort(-scores, kind="stable"))):
        used: set[int] = set()
        for place in order.tolist():
            if len(used) >= 2 * HARDEST:
                break
            ends = [int(index[end[place]]) for end in (compared.pairs.first, compared.pairs.second)]
            if bool(compared.pairs.same[place]) != same or used & set(ends):
                continue
            used |= set(ends)
            names = [clips.names[clips.label[i]] for i in ends]
            ids = {end: rows[i]["clip_id"] for end, i in zip(("first", "second"), ends, strict=True)}
            found.append({**ids, "identities": names, "same": same, "score": float(scores[place]), "records": ends})
    return found


def _pairs(hardest: list[dict[str, Any]], *, strips: dict[str, str]) -> list[Html]:
    sections = []
    for same, title in ((True, "One identity, lowest scores"), (False, "Two identities, highest scores")):
        cards = []
        for one in hardest:
            if one["same"] != same:
                continue
            for end, name in zip(("first", "second"), one["identities"], strict=True):
                note = join([tag("b", f"{one['score']:.3f}"), f" {name}"])
                cards.append(clip_figure(strips.get(one[end]), note=note, caption=one[end], mark="strip"))
        sections.append(section(title, tag("div", *cards, class_="grid pairs")))
    return sections
