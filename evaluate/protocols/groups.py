"""Recalls per group of clips and captions: by length, label, repeated texts, and any field of the clips' `meta`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...base.errors import UserError, unknown
from ..embedding.embeddings import Embeddings
from ..measures.groups import LEAST, OTHER, Groups, category_groups, group_figures, number_groups
from ..measures.ranks import RECALL_AT, Ranks, hits
from .repeated import caption_numbers
from .retrieval import DIRECTIONS

GROUPS = "groups"
"""The block of `retrieval.json`."""
_TITLES = {
    "caption_words": "caption length (words)",
    "caption_characters": "caption length (characters)",
    "repeated_text": "caption text",
    "duration_s": "clip length (s)",
    "labels": "label",
}
_DEFAULT = ("caption_words", "duration_s", "labels", "repeated_text")  # and the fields of `meta`
_META = "meta."


@dataclass(frozen=True, kw_only=True)
class Field:
    """A field by which figures are grouped.

    Attributes:
      name: key in the block, such as "meta.camera".
      groups: of captions or of clips.
      of_captions: whether the groups are of captions, else of clips.
      kind: "quantiles" or "values".
    """

    name: str
    groups: Groups
    of_captions: bool
    kind: str

    @property
    def title(self) -> str:
        """What a reader calls the field."""
        return _TITLES.get(self.name, self.name.removeprefix(_META).replace("_", " "))

    def about(self) -> dict[str, Any]:
        """Return what `retrieval.json` says of the field."""
        return {
            "title": self.title,
            "kind": self.kind,
            "of": "captions" if self.of_captions else "clips",
            "unknown": self.groups.unknown,
            "pooled": self.groups.pooled,
        }

    def sides(self, video_of_text: np.ndarray) -> list[tuple[str, Groups, np.ndarray]]:
        """Return each direction whose queries the field groups, with their groups and their clips, int [queries]."""
        captioned, first = np.unique(video_of_text, return_index=True)
        of_texts = self.groups if self.of_captions else self.groups.of(video_of_text)
        found = [(DIRECTIONS[0], of_texts, video_of_text)]
        if not self.of_captions or len(captioned) == len(video_of_text):
            of_videos = self.groups.of(first if self.of_captions else captioned)
            found.append((DIRECTIONS[1], of_videos, captioned))
        return found


def group_block(embeddings: Embeddings, *, ranks: tuple[Ranks, Ranks], group_by: Sequence[str] = ()) -> dict[str, Any]:
    """Measure recalls per group, for each field that divides the captions or the clips.

    The fields: `caption_words`, `duration_s`, `labels`, `repeated_text` (does another clip have the same text?) and
    those of the clips' `meta`, except ids and fields of one value. Numbers are divided at their quartiles; other values
    are groups as they are, and the rare ones "other". Video to text has groups of clips; of captions only where each
    clip has one.

    Args:
      embeddings: with captions and rows; without them there is nothing to group by.
      ranks: `retrieval_ranks(...)` of the same embeddings.
      group_by: further fields: of a line of `clips.jsonl` ("width", "source.fps"), or `caption_characters`.

    Returns:
      Field -> `title`, `kind` ("quantiles" or "values"), `of` ("captions" or "clips"), `unknown` (of these without a
      value), `pooled` (values in "other"), and for each direction `groups`: name -> `n` queries, `clips` and each `R@K`
      as `value`, `low`, `high`; and `gap`: `R@K` -> see `group_figures`.

    Raises:
      UserError: a field of `group_by` that no clip has, or with one value only.
    """
    return {field.name: _measured(field, embeddings, ranks=ranks) for field in fields_of(embeddings, group_by=group_by)}


def fields_of(embeddings: Embeddings, *, group_by: Sequence[str] = ()) -> list[Field]:
    """Return the fields that divide captions or clips into at least two groups; errors as in `group_block`."""
    if not embeddings.captions or not embeddings.rows:
        if group_by:
            raise UserError(f"--group_by {group_by[0]}: these embeddings came without captions and clips to group by")
        return []
    known = _known(embeddings.rows)
    asked = [_full_name(name, known=known) for name in group_by]
    found = []
    for name in dict.fromkeys([*_DEFAULT, *filter(_is_default, known), *asked]):
        field = _field(name, embeddings)
        if sum(name != OTHER for name in field.groups.names) > 1 or (name in asked and len(field.groups.names) > 1):
            found.append(field)
        elif name in asked:
            only = ", ".join(field.groups.names) or "none"
            raise UserError(
                f"--group_by {name} does not divide the clips: its values are {only}, and values of fewer than {LEAST} "
                "clips are pooled; leave it out"
            )
    return found


def check_fields(rows: Sequence[dict[str, Any]], *, group_by: Sequence[str]) -> None:
    """Raise UserError for a field that no line of `clips.jsonl` has, before anything is embedded."""
    known = _known(rows) if group_by else []
    for name in group_by:
        _full_name(name, known=known)


def _measured(field: Field, embeddings: Embeddings, *, ranks: tuple[Ranks, Ranks]) -> dict[str, Any]:
    made = field.about()
    for found, (direction, groups, clusters) in zip(
        ranks, field.sides(np.asarray(embeddings.video_of_text)), strict=False
    ):
        values = {f"R@{k}": 100 * hits(found, k=k) for k in RECALL_AT}
        made[direction] = recalls_by_group(values, groups=groups, clusters=clusters)
    return made


def recalls_by_group(values: dict[str, np.ndarray], *, groups: Groups, clusters: np.ndarray) -> dict[str, Any]:
    """Return `groups` and `gap` of one direction.

    Args:
      values: `R@K` -> hits of the n queries in percent, float [n].
      groups: of the queries.
      clusters: int [n], the clip of each query.
    """
    made: dict[str, Any] = {"groups": {}, "gap": {}}
    for key, value in values.items():
        found = group_figures(value, groups=groups, clusters=clusters)
        for name, one in found["groups"].items():
            block = made["groups"].setdefault(name, {"n": one["n"], "clips": one["clusters"]})
            block[key] = {end: one[end] for end in ("value", "low", "high")}
        if found["gap"]:
            made["gap"][key] = found["gap"]
    return made


def _field(name: str, embeddings: Embeddings) -> Field:
    rows, captions = embeddings.rows, embeddings.captions
    if name == "caption_words":
        return _of_numbers(name, [len(text.split()) for text in captions], of_captions=True)
    if name == "caption_characters":
        return _of_numbers(name, [len(text) for text in captions], of_captions=True)
    if name == "repeated_text":
        shared = ["on several clips" if one else "on one clip" for one in _shared(embeddings)]
        return Field(name=name, groups=category_groups([[one] for one in shared]), of_captions=True, kind="values")
    values = [_values(_at(row, name)) for row in rows]
    if numbers := _numbers(values):
        return _of_numbers(name, numbers, of_captions=False)
    return Field(name=name, groups=category_groups(values), of_captions=False, kind="values")


def _of_numbers(name: str, numbers: Sequence[float], *, of_captions: bool) -> Field:
    return Field(name=name, groups=number_groups(numbers), of_captions=of_captions, kind="quantiles")


def _shared(embeddings: Embeddings) -> list[bool]:
    """Whether another clip has the text of each caption."""
    numbers = caption_numbers(embeddings)
    assert numbers is not None
    pairs = np.unique(np.stack([numbers, np.asarray(embeddings.video_of_text)], axis=1), axis=0)
    return (np.bincount(pairs[:, 0])[numbers] > 1).tolist()


def _known(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The names of fields, those of objects as "source.fps", in the order in which they come."""
    return list(dict.fromkeys(name for row in rows for name in _leaves(row)))


def _leaves(row: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in row.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def _is_default(name: str) -> bool:
    """Whether clips are grouped by a field unasked: one of `meta`, and no id, which would be a group for each clip."""
    return name.startswith(_META) and not (name.endswith("_id") or name in (f"{_META}id", f"{_META}video"))


def _full_name(name: str, *, known: Sequence[str]) -> str:
    for full in (name, _META + name):
        if full in known or full in _TITLES:
            return full
    raise unknown("field (--group_by)", name, [one.removeprefix(_META) for one in known] + list(_TITLES))


def _at(row: dict[str, Any], name: str) -> Any:
    """The value of a field, None where the row has none; a key may itself hold a dot."""
    if name in row:
        return row[name]
    found: Any = row
    for key in name.split("."):
        if not isinstance(found, dict) or key not in found:
            return row.get("meta", {}).get(name.removeprefix(_META)) if name.startswith(_META) else None
        found = found[key]
    return found


def _values(value: Any) -> list[str]:
    """The values of a clip as text: none where unknown, those of a list each, JSON's true and false as yes and no."""
    if value is None or value == "":
        return []
    if isinstance(value, list):
        return [text for one in value for text in _values(one)]
    if isinstance(value, bool):
        return ["yes" if value else "no"]
    return [str(value)]


def _numbers(values: Sequence[Sequence[str]]) -> list[float]:
    """One number for each clip, NaN where unknown; [] if a known value is no finite number, or none is known."""
    made = []
    for one in values:
        try:
            number = float(one[0]) if one else float("nan")
        except ValueError:
            return []
        if len(one) > 1 or (one and not np.isfinite(number)):
            return []
        made.append(number)
    return made if any(map(np.isfinite, made)) else []
