"""Reference statistics: what is kept of a model's embeddings and texts so that later data can be compared with them."""

import collections
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...base.errors import UserError
from ...data.options import InputSpec
from ...zoo.digest import model_sha256
from ..measures.drift import LEAST_ROWS, frechet_distance, moments, new_word_share, words_of
from ..measures.ranks import Ranks
from ..measures.rows import unit_rows
from ..npz import read_npz, write_npz
from .embeddings import Embeddings

FILE = "embedding_stats.npz"
"""Name of the file in a report, a run or a bundle."""
SAMPLE = 1000
"""Rows of each side that are kept for tests, at most."""
LIMIT = 50_000
"""Rows of each side that are measured, at most."""
_VERSION, _WORDS, _LENGTHS = 1, 50_000, 10_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class SideStatistics:
    """The embeddings of one side.

    Attributes:
      count: rows.
      mean: float64 [E].
      cov: float64 [E,E].
      sample: float32 [k,E], a random part of the rows.
      halves: Fréchet distance of two random halves of the rows: what chance alone gives; None of too few rows.
    """

    count: int
    mean: np.ndarray
    cov: np.ndarray
    sample: np.ndarray
    halves: float | None = None

    @classmethod
    def of(cls, rows: np.ndarray, *, name: str, sample: int = SAMPLE, seed: int = 0) -> "SideStatistics":
        """Measure embeddings.

        Args:
          rows: float [n,E], see `usable`.
          name: of the side, for messages.
          sample: rows that are kept, at most.
          seed: of their choice, and of the halves.

        Raises:
          UserError: too few rows, or a value that is not finite.
        """
        rows = usable(rows, name=name)
        mean, cov = moments(rows)
        order = np.random.default_rng(seed).permutation(len(rows))
        halves = None
        if len(rows) >= 40:
            one, two = (moments(np.asarray(rows[np.sort(half)])) for half in np.array_split(order[:20_000], 2))
            halves = frechet_distance(one[0], cov=one[1], other_mean=two[0], other_cov=two[1])["distance"]
        kept = np.asarray(rows[np.sort(order[:sample])], np.float32)
        return cls(count=len(rows), mean=mean, cov=cov, sample=kept, halves=halves)


def enough(sides: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the sides that have enough rows to be measured, and a note on each of the others.

    Raises:
      UserError: none has.
    """
    counts = {name: int(np.any(rows != 0, axis=1).sum()) for name, rows in sides.items()}
    kept = {name: rows for name, rows in sides.items() if counts[name] >= LEAST_ROWS}
    few = [f"{name}: left out, {count} rows are too few" for name, count in counts.items() if count < LEAST_ROWS]
    if not kept:
        name = max(counts, key=counts.__getitem__, default="")
        raise _too_few(counts[name], name=name) if counts else UserError("there are no embeddings to measure")
    return kept, few


def usable(rows: np.ndarray, *, name: str) -> np.ndarray:
    """Return embeddings with rows of unit length, without those that are zero (clips without sound).

    Returns:
      float64 [n,E], of more than `LIMIT` rows a random choice of so many.

    Raises:
      UserError: a value that is not finite, or fewer than `drift.LEAST_ROWS` rows; names the side.
    """
    if rows.ndim != 2:
        raise UserError(f"the embeddings of {name!r} have shape {list(rows.shape)}; wanted [n,E]")
    rows = rows[np.any(rows != 0, axis=1)]
    if len(rows) < LEAST_ROWS:
        raise _too_few(len(rows), name=name)
    if len(rows) > LIMIT:
        rows = rows[np.sort(np.random.default_rng(0).choice(len(rows), LIMIT, replace=False))]
    return unit_rows(rows, name=name)


def _too_few(count: int, *, name: str) -> UserError:
    return UserError(
        f"{count} rows of {name!r} are too few for a mean and a covariance; wanted {LEAST_ROWS} or more, and better "
        "more than the width of the embeddings"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextStatistics:
    """Texts, such as captions or queries.

    Attributes:
      count: texts.
      words: the distinct words, the most frequent first; at most 50,000.
      lengths: int64 [k], words of each text, of at most 10,000 random texts.
      new_words: share of the words of one random half that the other half does not have: what chance alone gives.
      unknown: share of what the texts are made of that the tokenizer has no token for; None without a tokenizer.
    """

    count: int
    words: tuple[str, ...]
    lengths: np.ndarray
    new_words: float
    unknown: float | None = None

    @classmethod
    def of(cls, texts: Sequence[str], *, unknown: float | None = None, seed: int = 0) -> "TextStatistics":
        """Measure texts, at least one."""
        order: list[int] = np.random.default_rng(seed).permutation(len(texts)).tolist()
        known, held = [texts[i] for i in order[::2]], [texts[i] for i in order[1::2]]
        counts = collections.Counter(word for text in texts for word in words_of(text))
        words = tuple(word for word, _ in counts.most_common(_WORDS))
        seen = {word for text in known for word in words_of(text)}
        lengths = np.array([len(words_of(texts[i])) for i in order[:_LENGTHS]], np.int64)
        new = new_word_share(held, known=seen)
        return cls(count=len(texts), words=words, lengths=lengths, new_words=new, unknown=unknown)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Canary:
    """Text-to-video ranks on a fixed set of clips.

    Attributes:
      above: int64 [n], see `ranks.Ranks`.
      equal: int64 [n].
      clips: int64 [n], the clip of each caption.
      identity: SHA-256 of captions and clips, so that only equal sets are compared.
    """

    above: np.ndarray
    equal: np.ndarray
    clips: np.ndarray
    identity: str

    @property
    def ranks(self) -> Ranks:
        """The ranks of the n captions."""
        return Ranks(above=self.above, equal=self.equal)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Statistics:
    """What is known of the reference.

    Attributes:
      sides: "video" (what stands for a clip), "audio", "text", "transcript" -> statistics.
      texts: of the reference's texts; None without any.
      canary: ranks on the canary set; None if none was recorded.
      model: `source`, `width`, `weights_sha256` (parameters) and `model_sha256` (with the input); None where unknown.
      made: where the reference comes from, as JSON values.
    """

    sides: Mapping[str, SideStatistics]
    texts: TextStatistics | None = None
    canary: Canary | None = None
    model: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    made: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def of_embeddings(cls, found: Embeddings, *, model: Mapping[str, Any] | None = None) -> "Statistics":
        """Measure the embeddings of a split.

        Args:
          found: of the split.
          model: see the class; None = what the protocol says.

        Raises:
          UserError: too few rows.
        """
        rows = {"video": found.video, "text": found.text}
        rows |= {"audio": found.sides["audio"]} if "audio" in found.sides else {}
        rows, _ = enough(rows)
        known = {"weights_sha256": found.protocol.get("weights_sha256"), "source": found.protocol.get("checkpoint")}
        names = ("dataset", "split", "windows", "window_seconds", "clip_side")
        return cls(
            sides={side: SideStatistics.of(values, name=side) for side, values in rows.items()},
            texts=TextStatistics.of(found.captions) if found.captions else None,
            model={"width": int(found.video.shape[1]), **(model or known)},
            made={"kind": "split", **{name: found.protocol.get(name) for name in names}},
        )

    def save(self, path: Path) -> Path:
        """Write an `.npz` (no pickle), whole or not at all; return its path."""
        arrays: dict[str, np.ndarray] = {}
        about: dict[str, Any] = {"version": _VERSION, "model": dict(self.model), "made": dict(self.made), "sides": {}}
        for name, side in self.sides.items():
            about["sides"][name] = {"count": side.count, "halves": side.halves}
            arrays |= {f"{name}_{key}": getattr(side, key) for key in ("mean", "cov", "sample")}
        if self.texts is not None:
            kept = ("count", "words", "new_words", "unknown")
            about["texts"] = {key: getattr(self.texts, key) for key in kept}
            arrays["text_lengths"] = self.texts.lengths
        if self.canary is not None:
            about["canary"] = self.canary.identity
            arrays |= {f"canary_{key}": getattr(self.canary, key) for key in ("above", "equal", "clips")}
        packed = np.frombuffer(json.dumps(about, ensure_ascii=False).encode(), np.uint8)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_npz(path, statistics=packed, **arrays)
        except OSError as error:
            raise UserError(f"{path} cannot be written ({error.strerror}); give another place: --stats FILE") from error
        return path

    @classmethod
    def load(cls, path: Path) -> "Statistics":
        """Read what `save` wrote, or the embeddings of a split, which are measured.

        Raises:
          UserError: no such file, or something else in it.
        """
        arrays = read_npz(path, wanted={})
        if "statistics" not in arrays:
            if {"text", "video", "video_of_text"} <= arrays.keys():
                return cls.of_embeddings(Embeddings.load(path))
            raise UserError(
                f"{path} has no reference statistics (arrays: {', '.join(sorted(arrays))}); `twinreel monitor MODEL "
                "--record SOURCE` or `twinreel evaluate` writes them"
            )
        try:
            return _unpacked(json.loads(arrays["statistics"].tobytes()), arrays=arrays)
        except (KeyError, ValueError, TypeError) as error:
            raise UserError(f"{path} is damaged or of another version ({error!r}); record it again") from error


def keep_statistics(found: Embeddings, *, out: Path, given: InputSpec) -> Path | None:
    """Write the statistics of a report's embeddings next to them; of a handful of clips there are none.

    Args:
      found: of the split, with the protocol of the report.
      out: folder of the report.
      given: the model's input.
    """
    if min(len(found.video), len(found.text)) < LEAST_ROWS:
        return None
    weights = found.protocol.get("weights_sha256")
    model = {"weights_sha256": weights, "model_sha256": weights and model_sha256(weights, given=given)}
    model |= {"source": found.protocol.get("checkpoint")}
    return Statistics.of_embeddings(found, model=model).save(out / FILE)


def _unpacked(about: dict[str, Any], *, arrays: Mapping[str, np.ndarray]) -> Statistics:
    if about["version"] != _VERSION:
        raise ValueError(f"version {about['version']}, this twinreel reads {_VERSION}")
    sides = {
        name: SideStatistics(
            count=known["count"],
            halves=known["halves"],
            mean=arrays[f"{name}_mean"],
            cov=arrays[f"{name}_cov"],
            sample=arrays[f"{name}_sample"],
        )
        for name, known in about["sides"].items()
    }
    texts = canary = None
    if "texts" in about:
        own = {**about["texts"], "words": tuple(about["texts"]["words"])}
        texts = TextStatistics(**own, lengths=arrays["text_lengths"])
    if "canary" in about:
        own = {key: arrays[f"canary_{key}"] for key in ("above", "equal", "clips")}
        canary = Canary(**own, identity=about["canary"])
    return Statistics(sides=sides, texts=texts, canary=canary, model=about["model"], made=about["made"])
