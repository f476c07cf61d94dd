"""Sections of the retrieval report on pairs that differ in one thing: order twins and minimal pairs."""

from typing import Any

from ...pages.markup import Html, tag
from ...pages.page import paragraph, section
from ...pages.tables import table
from ..embedding.embeddings import Embeddings
from ..protocols.marks import mark_of
from ..protocols.twins import CHANCE
from .charts import minimal_pair_chart
from .examples import SEED, Gallery, twin_cards
from .main_tables import minimal_pair_rows


def twins_section(results: dict[str, Any], *, embeddings: Embeddings, gallery: Gallery) -> Html:
    """Return the accuracy on order twins and a few pairs of them; "" if there are none."""
    twins = results.get("order_twins")
    if not twins:
        return Html()
    shuffled, sign = twins["accuracy_shuffled"], mark_of(results)
    control = (
        [] if shuffled is None else [", and ", tag("b", f"{shuffled:.1f} %{sign}"), " when the frames are shuffled"]
    )
    text = paragraph(
        "Twins show the same events in a different order, and their captions differ in the same way; only a model that "
        f"uses the order of frames can tell them apart. Of {twins['n']:,} captions ",
        tag("b", f"{twins['accuracy']:.1f} %{sign}"),
        " score their own clip above its twin",
        *control,
        f". Chance is {CHANCE:.0f} %. Each pair below is shown with its frames from first to last.",
    )
    cards = twin_cards(embeddings=embeddings, gallery=gallery, seed=SEED) if embeddings.captions else ""
    return section("Order twins", text, cards)


def minimal_pairs_section(results: dict[str, Any]) -> Html:
    """Return the accuracy on minimal pairs by what is changed; "" if there are none."""
    pairs = results.get("minimal_pairs")
    if not pairs:
        return Html()
    text = paragraph(
        "Each pair is a caption and its foil, the same caption with one thing changed. A model wins a pair if the "
        f"caption scores above the foil on the caption's own clip. Chance is {CHANCE:.0f} %: an attribute that stays "
        "there is not seen in the clip or not read in the caption. Bars are 95 % confidence intervals (Wilson)."
    )
    figures = table(("accuracy, %", "95 % interval", "pairs"), rows=minimal_pair_rows(results), narrow=True)
    caption = tag("figcaption", "Share of pairs in which the caption scores above its foil; dotted: chance.")
    chart = tag("figure", minimal_pair_chart(pairs), caption)
    return section("Minimal pairs", text, tag("div", chart, tag("div", figures), class_="charts"))
