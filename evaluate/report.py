"""The report page: one folder that opens from disk, without network, fonts or scripts."""

import json
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import numpy as np

from .charts import heat_map, rank_histogram, recall_curves, score_histogram, training_curves
from .embed import Embeddings
from .examples import Gallery, pick_queries, query_card, twin_cards
from .metrics import RECALL_AT, Ranks, check_pair, cosine
from .retrieval import retrieval_ranks
from .twins import CHANCE

if TYPE_CHECKING:
    from ..data.batches.records import Records

_TEMPLATES = Path(__file__).parent / "templates"
_KEYS = (*(f"R@{k}" for k in RECALL_AT), "MdR", "MnR")
_HEAT_CLIPS, _SCORE_CLIPS = 100, 1000
_SEED = 0


def write_report(
    out: Path,
    *,
    results: dict[str, Any],
    embeddings: Embeddings,
    records: "Records | None" = None,
    history: Path | None = None,
) -> Path:
    """Write `out/index.html` and its pictures, `out/media/`.

    Args:
      out: the folder; made if absent. Thumbnails of an earlier report in it are replaced.
      results: the content of `retrieval.json`.
      embeddings: what `results` was measured on; without captions the page has no examples.
      records: the prepared data set, for thumbnails; None for a page without them.
      history: `metrics.jsonl` of the training run, for the curves; None for a page without them.

    Returns:
      The path of the page.
    """
    media = out / "media"
    media.mkdir(parents=True, exist_ok=True)
    for old in media.glob("clip-*.webp"):
        old.unlink()
    ranks = retrieval_ranks(text=embeddings.text, video=embeddings.video, video_of_text=embeddings.video_of_text)
    gallery = Gallery(out, embeddings=embeddings, records=records)
    sections = [
        _figures(results),
        _table(results),
        _protocol(results["protocol"]),
        _twins(results, embeddings=embeddings, gallery=gallery),
        _queries(embeddings=embeddings, ranks=ranks[0], gallery=gallery),
        _charts(embeddings=embeddings, ranks=ranks),
        _training(history),
    ]
    protocol = results["protocol"]
    page = Template((_TEMPLATES / "page.html").read_text(encoding="utf-8")).substitute(
        title=escape(f"{protocol['dataset'] or 'embeddings'} · {protocol['split'] or 'all'}"),
        subtitle=_subtitle(protocol),
        style=(_TEMPLATES / "style.css").read_text(encoding="utf-8"),
        shape=gallery.shape(),
        body="\n".join(part for part in sections if part),
        version=escape(protocol["twinreel"]),
    )
    path = out / "index.html"
    path.write_text(page, encoding="utf-8")
    return path


def _subtitle(protocol: dict[str, Any]) -> str:
    parts = [f"{protocol['texts']:,} captions against {protocol['videos']:,} clips"]
    if protocol["frames"]:
        parts.append(f"{protocol['frames']} frames a clip")
    if protocol["step"] is not None:
        parts.append(f"checkpoint at step {protocol['step']:,}")
    return escape(" · ".join(parts))


def _figures(results: dict[str, Any]) -> str:
    """The headline: four or five large numbers, each with what it means and its chance level."""
    t2v, v2t, videos = results["text_to_video"], results["video_to_text"], results["protocol"]["videos"]
    tiles = [
        (f"{t2v['R@1']:.1f}", "%", "Text → video R@1", f"chance {_percent(100 / videos)}"),
        (f"{v2t['R@1']:.1f}", "%", "Video → text R@1", f"chance {_percent(100 / v2t['n'])}"),
        (f"{t2v['R@5']:.1f}", "%", "Text → video R@5", f"chance {_percent(min(100, 500 / videos))}"),
        (f"{t2v['MdR']:g}", "", "Median rank", f"text → video, of {videos:,}"),
    ]
    if twins := results.get("order_twins"):
        shuffled = twins["accuracy_shuffled"]
        below = f"frames shuffled {shuffled:.1f} %" if shuffled is not None else f"chance {CHANCE:.0f} %"
        tiles.append((f"{twins['accuracy']:.1f}", "%", "Order twins", below))
    cells = "".join(
        f'<div class="tile"><dt>{escape(name)}</dt><dd>{value}<small>{unit}</small></dd><p>{escape(below)}</p></div>'
        for value, unit, name, below in tiles
    )
    return f'<dl class="tiles">{cells}</dl>'


def _percent(value: float) -> str:
    return f"{value:.1f} %" if value >= 0.1 else f"{value:.2g} %"


def _table(results: dict[str, Any]) -> str:
    """Both directions with their bounds, and the coverage."""
    rows = []
    for name, key in (("Text → video", "text_to_video"), ("Video → text", "video_to_text")):
        block = results[key]
        for label, values, mark in (
            (name, block, "main"),
            ("every tie won", block["optimistic"], "bound"),
            ("every tie lost", block["pessimistic"], "bound"),
        ):
            cells = "".join(f"<td>{values[k]:.2f}</td>" for k in _KEYS)
            n = f"<td>{block['n']:,}</td>" if mark == "main" else "<td></td>"
            rows.append(f'<tr class="{mark}"><th scope="row">{label}</th>{cells}{n}</tr>')
    names = ("R@1, %", "R@5, %", "R@10, %", "median rank", "mean rank", "queries")
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    repeated = results["protocol"]["texts"] - results["protocol"]["distinct_texts"]
    again = (
        f" {repeated:,} captions repeat another; only the clip that each came with counts as right." if repeated else ""
    )
    return (
        f'<section><h2>Retrieval</h2><div class="wide"><table><thead><tr><td></td>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>{_coverage(results['coverage'])}"
        '<p class="aside">Ties are settled by expectation over a uniformly random order of the tied; the rows below '
        f"each direction are the bounds. Scores are raw cosines, without re-ranking.{again}</p></section>"
    )


def _coverage(coverage: dict[str, Any]) -> str:
    if coverage["expected"] is None:
        return '<p class="coverage">Coverage unknown: these embeddings came without a list of the clips expected.</p>'
    line = f"Coverage {_exact(100 * coverage['fraction'])} %: {coverage['found']:,} of {coverage['expected']:,} clips."
    if not coverage["missing"]:
        return f'<p class="coverage">{line}</p>'
    clips = "".join(
        f"<li><code>{escape(clip['clip_id'])}</code> {escape(clip['reason'])}</li>"
        for clip in coverage["missing_clips"]
    )
    return (
        f'<p class="coverage short">{line} The figures are not comparable with those on the whole split.</p>'
        f"<details><summary>{coverage['missing']:,} missing clips</summary><ul>{clips}</ul></details>"
    )


def _exact(percent: float) -> str:
    """A percentage that says 100 only where nothing is missing."""
    return "100" if percent == 100 else f"{min(percent, 99.99):.2f}"


def _twins(results: dict[str, Any], *, embeddings: Embeddings, gallery: Gallery) -> str:
    twins = results.get("order_twins")
    if not twins:
        return ""
    shuffled = twins["accuracy_shuffled"]
    control = f", and <b>{shuffled:.1f} %</b> once the clip's frames are shuffled" if shuffled is not None else ""
    cards = twin_cards(embeddings=embeddings, gallery=gallery, seed=_SEED) if embeddings.captions else ""
    return (
        "<section><h2>Order twins</h2><p>Twins show the same events in another order, and so do their captions; only a "
        "model that sees time can tell which belongs to which. Of "
        f"{twins['n']:,} captions <b>{twins['accuracy']:.1f} %</b> score their own clip above the twin{control}. "
        f"Chance is {CHANCE:.0f} %. Below, each pair with its frames from first to last.</p>"
        f'<div class="pairs">{cards}</div></section>'
    )


def _queries(*, embeddings: Embeddings, ranks: Ranks, gallery: Gallery) -> str:
    """Captions with their five best clips: a seeded sample, then the worst."""
    if not embeddings.captions:
        return ""
    sampled, worst = pick_queries(ranks, embeddings=embeddings, seed=_SEED)

    def cards(queries: list[int]) -> str:
        return "".join(query_card(q, embeddings=embeddings, ranks=ranks, gallery=gallery) for q in queries)

    rest = f"seed {_SEED}; the {len(worst)} worst follow below" if worst else f"seed {_SEED}"
    parts = [
        f"<section><h2>What a caption finds</h2><p>{len(sampled)} captions drawn at random ({rest}) and the five "
        "best clips of each, best first, with cosine and own caption. The right clip is outlined.</p>"
        f"{cards(sampled)}</section>"
    ]
    if worst:
        parts.append(
            f"<section><h2>Where it fails most</h2><p>The {len(worst)} worst ranks; the right clip stands at the left "
            "where it is not among the five.</p>"
            f"{cards(worst)}</section>"
        )
    return "\n".join(parts)


def _charts(*, embeddings: Embeddings, ranks: tuple[Ranks, Ranks]) -> str:
    t2v, v2t = ranks
    similarity, several = _first_similarity(embeddings, clips=_HEAT_CLIPS)
    total = len(embeddings.video)
    which = f"The first {len(similarity)} of {total:,} clips" if total > len(similarity) else f"All {total:,} clips"
    caption = " (first caption of each)" if several else ""
    figures = (
        (
            recall_curves(text_to_video=t2v, video_to_text=v2t, videos=total),
            "Share of queries whose right answer is among the first K.",
        ),
        (rank_histogram(text_to_video=t2v, video_to_text=v2t), "Where the right answer stands."),
        (
            heat_map(similarity),
            f"{which}{caption}, like clips side by side. The diagonal holds the right pairs; blocks around it are "
            "clips that look or read alike.",
        ),
        (
            score_histogram(_first_similarity(embeddings, clips=_SCORE_CLIPS)[0]),
            "Cosines of right pairs and of all others: the further apart, the better the towers agree.",
        ),
    )
    cells = "".join(f"<figure>{svg}<figcaption>{text}</figcaption></figure>" for svg, text in figures)
    return f'<section><h2>Ranks and scores</h2><div class="charts">{cells}</div></section>'


def _first_similarity(embeddings: Embeddings, *, clips: int) -> tuple[np.ndarray, bool]:
    """Cosines of the first `clips` captioned clips with their first captions, like clips side by side.

    Also says whether any clip has more captions than that one.
    """
    text, video, index = check_pair(embeddings.text, video=embeddings.video, video_of_text=embeddings.video_of_text)
    captioned, captions = np.unique(index, return_index=True)
    chosen, captions = captioned[:clips], captions[:clips]
    order = _chain(cosine(video[chosen], gallery=video[chosen]))
    return cosine(text[captions[order]], gallery=video[chosen[order]]), len(index) > len(captioned)


def _chain(similarity: np.ndarray) -> list[int]:
    """Walk from the first item to the nearest one not yet seen, and so on."""
    order, left = [0], set(range(1, len(similarity)))
    while left:
        order.append(max(left, key=lambda item: (similarity[order[-1], item], -item)))
        left.remove(order[-1])
    return order


def _training(history: Path | None) -> str:
    if history is None:
        return ""
    lines, broken = [], 0
    for line in history.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:  # a run that was killed may leave half a line
            broken += 1
    svg = training_curves(lines)
    if not svg:
        return ""
    note = f'<p class="aside">Unreadable lines of {escape(history.name)} left out: {broken}.</p>' if broken else ""
    return f'<section><h2>Training</h2><figure class="full">{svg}</figure>{note}</section>'


def _protocol(protocol: dict[str, Any]) -> str:
    """Everything needed to say what was measured; what is not known is said to be unknown."""
    rows = []
    for key, value in protocol.items():
        text = "; ".join(value) if isinstance(value, list) else f"{value:,}" if isinstance(value, int) else value
        text = "unknown" if text is None else "none" if text == "" else text
        mark = ' class="long"' if len(str(text)) > 60 else ""
        rows.append(f"<div{mark}><dt>{escape(key.replace('_', ' '))}</dt><dd>{escape(str(text))}</dd></div>")
    rows.sort(key=lambda row: 'class="long"' in row)
    return f'<section><h2>Protocol</h2><dl class="protocol">{"".join(rows)}</dl></section>'
