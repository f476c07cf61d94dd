"""The retrieval report: one folder that opens from disk, without network; a script brings the browser of queries."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...pages.markup import Html, join, tag
from ...pages.page import section, write_page
from ...pages.tables import protocol_list
from ...pages.text_tables import write_tables
from ..counting.questions import TEXT_TO_ANY, TEXT_TO_VIDEO, VIDEO_TO_TEXT
from ..embedding.embeddings import Embeddings
from ..measures.ranks import Ranks
from ..options import THUMBNAILS
from ..protocols.marks import mark_of
from ..protocols.repeated import caption_numbers
from .browser import browser_section
from .controls import further_sections
from .examples import example_sections
from .further import comparison_section, readings_section, reranked_section
from .gallery import Gallery
from .groups import groups_section
from .headline import headline_tiles, retrieval_section
from .main_tables import main_tables
from .pairs import minimal_pairs_section, twins_section
from .scores import scores_section, training_section

if TYPE_CHECKING:
    from ...data.batches.records import Records


def write_report(
    out: Path,
    *,
    results: dict[str, Any],
    embeddings: Embeddings,
    ranks: Mapping[str, Ranks],
    records: "Records | None" = None,
    history: Path | None = None,
    earlier: Path | None = None,
    thumbnails: int = THUMBNAILS,
) -> Path:
    """Write `out/index.html`, its pictures in `out/media/`, `queries.js` for its browser, and the tables as text.

    Args:
      out: the folder; made if absent. Thumbnails of an earlier report in it are replaced.
      results: the content of `retrieval.json`.
      embeddings: the embeddings that `results` was measured on; without captions the page has no examples.
      ranks: of the embeddings, see `directions.all_ranks`.
      records: the prepared data set, for thumbnails; None for a page without them.
      history: `metrics.jsonl` of the training run, for the curves; None for a page without them.
      earlier: folder of an earlier report of the same clips, whose thumbnails are taken over.
      thumbnails: clips that get one at most; those of the queries that the browser shows first come first.

    Returns:
      The path of the page.
    """
    out.mkdir(parents=True, exist_ok=True)
    both = ranks[TEXT_TO_VIDEO], ranks[VIDEO_TO_TEXT]
    same_text = caption_numbers(embeddings) if "text_to_video_any_match" in results else None
    gallery = Gallery(out, embeddings=embeddings, records=records, earlier=earlier, most=thumbnails)
    write_tables(out, tables=main_tables(results), mark=mark_of(results))
    protocol = results["protocol"]
    return write_page(
        out / "index.html",
        kind="zero-shot retrieval",
        title=f"{protocol['dataset'] or 'embeddings'} · {protocol['split'] or 'all'}",
        subtitle=_subtitle(protocol),
        sections=[
            headline_tiles(results),
            retrieval_section(results),
            comparison_section(results),
            reranked_section(results),
            *further_sections(results),
            readings_section(results),
            section("Protocol", protocol_list(protocol)),
            groups_section(results),
            _queries(out, embeddings=embeddings, ranks=ranks, gallery=gallery, same_text=same_text),
            twins_section(results, embeddings=embeddings, gallery=gallery),
            minimal_pairs_section(results),
            scores_section(embeddings=embeddings, ranks=both, same_text=same_text),
            training_section(history),
        ],
        footer=_footer(),
        variables={"shape": gallery.shape()},
    )


def _queries(
    out: Path, *, embeddings: Embeddings, ranks: Mapping[str, Ranks], gallery: Gallery, same_text: np.ndarray | None
) -> Html:
    """The browser of queries, and the examples that stand in its place where scripts do not run."""
    if not embeddings.captions:
        return Html()
    found = ranks[TEXT_TO_VIDEO if same_text is None else TEXT_TO_ANY]
    shown: dict[str, Any] = {"embeddings": embeddings, "ranks": found, "gallery": gallery, "same_text": same_text}
    static = tag("div", *example_sections(**shown), id="static-queries")
    return join([static, browser_section(out, **shown)])


def _footer() -> Html:
    texts = (tag("a", name, href=name) for name in ("tables.md", "tables.tex", "tables.csv"))
    return join(
        [
            "The same figures are in ",
            tag("a", "retrieval.json", href="retrieval.json"),
            ", the tables in ",
            join(texts, by=", "),
            "; ",
            tag("code", "twinreel report"),
            " makes this page again. Clips longer than six seconds are played faster here.",
        ]
    )


def _subtitle(protocol: dict[str, Any]) -> str:
    parts = [f"{protocol['texts']:,} captions against {protocol['videos']:,} clips"]
    if protocol["frames"]:
        parts.append(f"{protocol['frames']} frames per clip")
    if protocol["step"] is not None:
        parts.append(f"checkpoint at step {protocol['step']:,}")
    return " · ".join(parts)
