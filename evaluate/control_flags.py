"""`twinreel evaluate --control --pairs`: what the model uses, and retrieval between its other modalities."""

import argparse
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..base.errors import UserError, unknown
from .protocols.controls import ALL, CONTROLS, SHUFFLED, check_names
from .protocols.pairs import check_pairs, same_pair
from .protocols.words import ENGLISH

if TYPE_CHECKING:
    from .embedding.embed import Asked
    from .embedding.embeddings import Embeddings

DESCRIPTION = """
--control takes part of the input away, measures the same queries again, and reports the drop from the plain figures.
Without a drop, the model does not use that part. Give it several times, or "all" for those that apply:

  twinreel evaluate MODEL --data DIR --control shuffled_frames --control muted --out OUT

CONTROLS

masked_nouns and masked_verbs need spaCy (pip install 'twinreel[words]') and a model of it (--tagger).

--pairs measures retrieval between other modalities of the model, on the clips that have them; "all" for all pairs:

  twinreel evaluate MODEL --data DIR --pairs text:audio,video:audio,text:video+audio --out OUT

With --embeddings FILE, both are computed again from what FILE holds.""".replace(
    "CONTROLS", "\n".join(f"  {name:16} {control.about}" for name, control in CONTROLS.items())
)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add `--control`, `--control_seed` and `--pairs`."""
    parser.add_argument(
        "--control", dest="controls", action="append", default=[], metavar="NAME", help="see above; or all"
    )
    parser.add_argument("--control_seed", type=int, default=0, help="seed of the random draws of controls")
    parser.add_argument("--tagger", default=ENGLISH, metavar="MODEL", help="spaCy model that finds nouns and verbs")
    parser.add_argument(
        "--pairs", type=_listed, default=(), metavar="PAIR,PAIR", help="pairs of modalities, see above; or all"
    )


def _listed(text: str) -> tuple[str, ...]:
    return tuple(filter(None, text.split(",")))


def check(*, controls: Sequence[str], tagger: str, pairs: Sequence[str]) -> None:
    """Raise UserError for a control, a tagger or a pair that does not exist: before a model embeds a split."""
    check_names(controls, tagger=tagger)
    check_pairs(pairs)


def asked(
    *,
    controls: Sequence[str],
    seed: int,
    tagger: str,
    pairs: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    frames: int,
) -> "Asked":
    """Return what is embedded besides clips and texts as they are; shuffled frames, too, where there are order twins.

    Args:
      controls: as given.
      seed: of their draws.
      tagger: spaCy model that finds parts of speech.
      pairs: as given.
      rows: of the split.
      frames: T that the model takes.
    """
    from .embedding.embed import Asked

    twins = frames > 1 and any(row.get("group") for row in rows)
    return Asked(controls=(*controls, *([SHUFFLED] if twins else [])), seed=seed, tagger=tagger, pairs=pairs)


def select(embeddings: "Embeddings", *, controls: Sequence[str], pairs: Sequence[str]) -> "Embeddings":
    """Leave out of saved embeddings the controls and pairs that were not asked for; without any, all stay.

    Args:
      embeddings: of a file.
      controls: as given.
      pairs: as given.

    Raises:
      UserError: the file has no such control or pair.
    """
    for name in controls:
        if name not in (*CONTROLS, ALL):
            raise unknown("--control", name, [*CONTROLS, ALL])
    check_pairs(pairs)
    found, further = embeddings.controls, dict(embeddings.further)
    remedy = "embed the split again with MODEL --data DIR --out OUT"
    for name in controls:
        if name != ALL and name not in found:
            raise UserError(f"--control {name}: the file has no such embeddings (it has: {_names(found)}); {remedy}")
    if controls and ALL not in controls:
        found = {name: rows for name, rows in found.items() if name in controls}
        kept = {key: value for key, value in further.get("controls", {}).items() if key != "rules"}
        further["controls"] = kept | {"rules": {name: CONTROLS[name].about for name in found}}
    if pairs and ALL not in pairs:
        measured = further.get("pairs", {}).get("pairs", [])
        chosen = [pair for pair in measured if any(same_pair(pair, name) for name in pairs)]
        for name in pairs:
            if not any(same_pair(pair, name) for pair in chosen):
                raise UserError(f"--pairs {name}: the file has no such pair (it has: {_names(measured)}); {remedy}")
        further["pairs"] = further["pairs"] | {"pairs": chosen}
    return dataclasses.replace(embeddings, controls=found, further=further)


def _names(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
