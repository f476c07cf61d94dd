"""Evaluations during training: opened before the first step, run by their schedules.

The protocols are those of `twinreel evaluate`. What can be read without a model is read at the start: folder, split,
captions, classes, templates. So a mistake ends a run before its first step, and rows are not read again each time.
"""

import dataclasses
import hashlib
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ...base.errors import UserError, unknown
from ...data.batches.mismatch import record_mismatches
from ...data.batches.records import Records
from ...data.options import DataOptions, FeedOptions
from ..embedding.joint import check_heads
from ..embedding.loaded import LoadedSplit, Tokens
from ..evaluate import EvaluateOptions
from ..protocols.benchmark_data import deviations, measured_coverage, settle_split
from ..protocols.benchmark_table import find_entry
from ..protocols.classified import Classified
from ..protocols.retrieval import HEADLINE, headline
from ..protocols.scored import RERANKED, check_size, joint_asked, row_name
from ..protocols.zero_shot import zero_shot_figures
from ..zero_shot import ClassPlan, ZeroShotOptions
from .options import FIELD, ClassBenchmarkOptions, ClassOptions, DuringOptions

if TYPE_CHECKING:
    from ...data.text.tokenizer import Tokenizer
    from ...encode.embed.encoder import Encoder
    from ...zoo.spec import ModelSpec

TWINS = "twins"


class Measure(Protocol):
    """What an opened evaluation does with a model."""

    @property
    def results(self) -> tuple[str, ...]:
        """The names of its results."""
        ...

    def __call__(self, encoder: "Encoder") -> dict[str, float]:
        """Embed and measure; all processes must call it, and each gets all results."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Opened:
    """An evaluation whose data are open.

    Attributes:
      name: in `config.evaluations`.
      options: its options, with split, windows and window_seconds settled.
      records: the opened folder.
      only: int64 [m], the records that are measured, rising.
      measure: embeds and measures them.
      warnings: what the user should know of data and protocol.
    """

    name: str
    options: DuringOptions
    records: Records
    only: np.ndarray
    measure: Measure
    warnings: tuple[str, ...]

    def check_model(self, spec: "ModelSpec") -> None:
        """Raise UserError unless a model has the side of clips and the heads that the evaluation asks for."""
        fused, where = spec.fused_side, f"{FIELD}.{self.name}"
        heard = set(fused.split("+")) == {"video", "audio"}
        side, sides = self.options.clip_side, {"video", *([fused] if heard else [])}
        if side and side not in sides:
            raise unknown(f"value of {where}.clip_side:", side, sides)
        asked = joint_asked(getattr(self.options, "rerank", ()))
        try:
            check_heads(spec, asked=asked, clip_side=side or (fused if heard else "video"))
        except UserError as error:
            raise UserError(f"{where}.rerank: {error}") from error

    def try_reading(self, data: DataOptions, *, tokenizer: "Tokenizer") -> None:
        """Read and decode the first and the last clip as an evaluation does.

        Args:
          data: of the run, as its batches are made.
          tokenizer: of the run.

        Raises:
          UserError: they cannot be read, or do not fit the preprocessing; the evaluation is named.
        """
        from ...data.batches.pipeline import eval_batches

        feed = feed_of(self.options, feed=data.feed, records=self.records)
        data = dataclasses.replace(data, feed=dataclasses.replace(feed, features=data.feed.features))
        ends = self.only[[0, -1]] if len(self.only) > 1 else self.only
        batches = None
        try:
            if self.records.url:  # its shards are fetched when the first evaluation needs them
                self.records.read(self.options.split, ends.tolist())
                return
            given: dict[str, Any] = {"tokenizer": tokenizer, "split": self.options.split, "records": self.records}
            batches = eval_batches(data, batch_size=len(ends), only=ends, **given)
            next(batches)
        except UserError as error:
            raise UserError(f"{FIELD}.{self.name}: {error}") from error
        finally:
            if batches is not None:
                batches.close()


def open_evaluation(name: str, options: DuringOptions, *, data: DataOptions, records: Records) -> Opened:
    """Read what an evaluation needs besides a model.

    Args:
      name: in `config.evaluations`.
      options: as `read_options` gives them.
      data: of the run, with what its records say.
      records: of the run; taken where the evaluation names no data of its own.

    Raises:
      UserError: the folder, split, captions, classes or templates cannot be read or do not fit each other.
    """
    try:
        return _open(name, options, data=data, records=records)
    except UserError as error:
        flags = " (flags stand for fields of this section)" if "--" in str(error) else ""
        raise UserError(f"{FIELD}.{name}: {error}{flags}") from error


def feed_of(options: DuringOptions, *, feed: FeedOptions, records: Records) -> FeedOptions:
    """Return how the records of an evaluation become batches, on the machine of the run's `feed`."""
    return FeedOptions(
        batch_size=options.batch_size,
        dir=str(records.folder),
        eval_clips=feed.eval_clips if options.windows is None else options.windows,
        window_seconds=feed.window_seconds if options.window_seconds is None else options.window_seconds,
        num_threads=feed.num_threads,
        prefetch=feed.prefetch,
    )


def chosen_clips(ids: Sequence[str], *, subset: int) -> np.ndarray:
    """Choose clips by the hashes of their ids: a smaller subset is a part of a larger one.

    Args:
      ids: of all clips.
      subset: how many; 0 = all.

    Returns:
      int64 [m], places in `ids`, rising.

    >>> chosen_clips(["a", "b", "c", "d"], subset=2).tolist(), chosen_clips(["d", "b", "a"], subset=2).tolist()
    ([0, 3], [0, 2])
    """
    if not subset or subset >= len(ids):
        return np.arange(len(ids))
    order = sorted((hashlib.sha256(one.encode()).digest(), place) for place, one in enumerate(ids))
    return np.sort(np.array([place for _, place in order[:subset]], np.int64))


def _open(name: str, options: DuringOptions, *, data: DataOptions, records: Records) -> Opened:
    if options.data:
        records = Records(options.data, cache_dir=data.feed.cache_dir, cache_gb=data.feed.cache_gb)
    benchmark, captions = options.protocol.partition(":")[2], getattr(options, "captions", "")
    if benchmark:
        entry = find_entry(benchmark)
        split = settle_split(benchmark, split=options.split)
        captions, windows = getattr(entry, "captions", ""), {"windows": entry.windows, "window_seconds": 0.0}
        own = {key: value for key, value in windows.items() if getattr(options, key) is None}
        options = dataclasses.replace(options, split=split, **own)
    rows, split = records.rows(options.split), options.split
    ids = [row["clip_id"] for row in rows] if options.subset else []
    only = chosen_clips(ids, subset=options.subset) if options.subset else np.arange(len(rows))
    feed = feed_of(options, feed=data.feed, records=records)
    warnings = record_mismatches(
        trained=data.input.decode,
        prepared=records.options,
        rows=rows,
        num_frames=data.input.num_frames,
        sound=data.input.audio_seconds > 0,
    )
    if isinstance(options, ClassOptions | ClassBenchmarkOptions):
        measure = _Classes(options, benchmark=benchmark, records=records, only=only, feed=feed)
        warnings += measure.plan.warnings()
    else:
        measure = _Retrieval(
            LoadedSplit(records, split=split, captions=captions, only=only), options=options, feed=feed
        )
    if benchmark:
        warnings += _of_benchmark(benchmark, options=options, data=data, records=records, measured=len(only))
    where = f"{FIELD}.{name}: "
    found = tuple(where + warning for warning in warnings)
    return Opened(name=name, options=options, records=records, only=only, measure=measure, warnings=found)


def _of_benchmark(
    name: str, *, options: DuringOptions, data: DataOptions, records: Records, measured: int
) -> list[str]:
    """Compare data and settings with a benchmark's protocol; return the deviations."""
    asked = EvaluateOptions(split=options.split, benchmark=name, allow_missing=options.allow_missing)
    coverage = measured_coverage(records, options=asked)
    rows = records.rows(options.split)
    protocol = {
        "windows": options.windows,
        "window_seconds": options.window_seconds,
        "clip_side": options.clip_side or None,
        "frames": data.input.num_frames,
        "fps": records.options.get("fps"),
    }
    found, _ = deviations(find_entry(name), protocol=protocol, rows=rows, coverage=coverage)
    if measured < len(rows):
        found.append(f"{measured:,} of {len(rows):,} clips are measured (subset)")
    return [f"differs from {name}: {one}" for one in found]


class _Retrieval:
    """Retrieval, also on a benchmark."""

    def __init__(self, loaded: LoadedSplit, *, options: DuringOptions, feed: FeedOptions):
        self._loaded, self._options, self._feed = loaded, options, feed
        members = Counter(row.get("group") for row in loaded.rows)
        captioned = {loaded.rows[clip].get("group") for clip in set(loaded.video_of_text.tolist())}
        has_twins = any(group and members[group] > 1 for group in captioned)
        self._rerank: tuple[str, ...] = getattr(options, "rerank", ())
        rows = dict.fromkeys(map(row_name, self._rerank))
        self.results = (
            *HEADLINE,
            *([TWINS] if has_twins else []),
            *(f"{row}/{key}" for row in rows for key in HEADLINE),
        )
        if self._rerank:
            check_size(len(loaded.texts), len(loaded.rows))

    def __call__(self, encoder: "Encoder") -> dict[str, float]:
        from ..counting.count import CountOptions
        from ..embedding.embed import Asked, embed_split
        from ..results import Further, measure, rank

        found = embed_split(
            encoder,
            loaded=self._loaded,
            clip_side=self._options.clip_side,
            batch_size=self._options.batch_size,
            feed=self._feed,
            asked=Asked(joint=joint_asked(self._rerank)),
            progress=sys.stderr.isatty(),
        )
        ranks = rank(found, options=CountOptions(together=True))  # of a large split each process counts its share
        report = measure(found, ranks=ranks, intervals=False, further=Further(rerank=self._rerank))
        made = headline(report) | ({TWINS: report["order_twins"]["accuracy"]} if TWINS in self.results else {})
        for row, block in report.get(RERANKED, {}).items():
            made |= {f"{row}/{key}": value for key, value in headline(block).items()}
        return made


class _Classes:
    """Zero-shot classification.

    Attributes:
      plan: what is known without a model.
    """

    def __init__(
        self,
        options: ClassOptions | ClassBenchmarkOptions,
        *,
        benchmark: str,
        records: Records,
        only: np.ndarray,
        feed: FeedOptions,
    ):
        asked = ZeroShotOptions(
            split=options.split, benchmark=benchmark, rule=options.rule, allow_missing=options.allow_missing
        )
        if isinstance(options, ClassOptions):
            named = {key: getattr(options, key) for key in ("templates", "class_names", "labels")}
            asked = dataclasses.replace(asked, classes=Path(options.classes) if options.classes else None, **named)
        asked = asked.settled()
        assert asked.rule is not None
        self.plan = ClassPlan.of(records, options=asked, only=only.tolist())
        self._options, self._records, self._feed, self._rule = options, records, feed, asked.rule
        self._clips, rows = only[self.plan.targets.clips], records.rows(options.split)
        self._ids = [rows[clip]["clip_id"] for clip in self._clips.tolist()]
        self._tokens: Tokens | None = None
        single, top5 = self.plan.targets.labels.ndim == 1, len(self.plan.classes.labels) >= 5
        one = ("top1", *(["top5"] if top5 else []), "mean_class_accuracy")
        self.results = one if single else ("mAP", "hit@1")

    def __call__(self, encoder: "Encoder") -> dict[str, float]:
        from ...encode.devices.rows import rounded_up
        from ..embedding.embed import embed_clips

        options, progress = self._options, sys.stderr.isatty()
        size = rounded_up(options.batch_size, mesh=encoder.mesh)
        self._tokens = self._tokens or Tokens.of(encoder, texts=self.plan.texts())
        text = self._tokens.embed(encoder, what="class texts", batch_size=size, progress=progress)
        clips, _ = embed_clips(
            encoder,
            records=self._records,
            split=options.split,
            clip_side=options.clip_side,
            batch_size=size,
            feed=self._feed,
            progress=progress,
            only=self._clips,
        )
        classes, templates = self.plan.classes, self.plan.templates.templates
        found = Classified(
            labels=self.plan.targets.labels,
            class_text=text.reshape(len(classes.labels), len(templates), -1),
            video=clips.found(),
            scale=float(np.asarray(encoder.model.scale)),
            classes=list(classes.labels),
            names=list(classes.texts),
            clip_ids=self._ids,
        )
        return zero_shot_figures(found, rule=self._rule)
