"""What tasks along time share: options, model, batches, and predictions for the examples of a split."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from rich.console import Console
from rich.progress import track

from ...base.errors import UserError
from ...base.section import section
from ...data.batches.clip_graph import ClipGraph
from ...data.options import DataOptions
from ...data.text.clean import text_cleaner
from ...encode.predict.timeline import TimelinePredictor
from ...engine.sharding.mesh import check_batch_size
from ...models.heads.timeline import TimelineModel
from ...models.layers.draws import row_keys
from ...zoo.build import abstract
from ...zoo.spec import ModelSpec
from ..examples.clips import LabelledClips
from ..examples.context import TaskContext
from ..examples.queries import Queries, QueryOptions, choose_queries
from ..inputs.feed import Batch, Feed
from .objective import HeadObjective
from .task import VALIDATION, TowerOptions

_SPANNING = ("uniform", "uniform_jitter", "segment_starts", "segment_middles", "endpoints")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimelineOptions(QueryOptions, TowerOptions):
    """`config.task` of tasks along time; the fields of both bases belong to it.

    Attributes:
      name: of the task.
      width: D of the head, even.
      depth: layers over time.
      heads: attention heads; divides `width`.
      encoder: layers over time, one of `models.heads.timeline.ENCODERS`.
      dropout: rate in the head.
    """

    name: str = ""
    width: int = 256
    depth: int = 2
    heads: int = 4
    encoder: str = "transformer"
    dropout: float = 0.1

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.dropout < 1:
            raise UserError(f"config.task.dropout must be at least 0 and below 1, got {self.dropout}")

    @property
    def asks(self) -> bool:
        """Whether a text says what to find."""
        return self.query == "text"


class TimelineObjective(HeadObjective):
    """An objective whose model is a `TimelineModel`; a subclass computes the loss of what its head gives."""

    def found(self, model: TimelineModel, batch: dict[str, jax.Array], *, rngs: nnx.Rngs | None) -> Any:
        """Apply the model to a batch: to clips, or to the tokens of a frozen tower computed before."""
        rows = batch["valid"].shape[0]
        given: dict[str, Any] = {"keys": None if rngs is None else row_keys(rngs(), rows=rows), "frozen": self.frozen}
        given |= {key: batch.get(key) for key in ("query", "query_mask")}
        return model.score(batch["tokens"], **given) if "tokens" in batch else model(batch["video"], **given)


class TimelineTask:
    """The part of a task along time that does not depend on its head; see `task.Task`.

    A subclass sets `options_class`, gives the head's own fields of the spec, and its objective, metric and report.
    """

    targets = None
    options_class: type[TimelineOptions] = TimelineOptions
    objective: TimelineObjective

    def __init__(self, context: TaskContext):
        """Choose classes and examples; reads `clips.jsonl` but no record."""
        self._context, self.feed = context, Feed(context)
        self.options = section(self.options_class, context.config["task"], name="task")
        check_batch_size(context.data.feed.batch_size, mesh=context.mesh)
        graph = checked_graph(context)
        self.splits = choose_queries(context, options=self.options)
        spec = context.tower_spec("video", *(["text"] if self.options.asks else []))
        head = {name: getattr(self.options, name) for name in ("width", "depth", "heads", "encoder", "dropout")}
        head |= {"labels": list(self.splits.train.labels), "times": time_tokens(spec, graph=graph)}
        self.objective = self.make_objective(spec.replace(heads={self.options.name: head | self.head_fields()}))
        self._clean = text_cleaner(context.data.input.text)

    def head_fields(self) -> dict[str, Any]:
        """Return `kind`, `decode` and the further arguments of the head, for the spec."""
        raise NotImplementedError

    def make_objective(self, spec: ModelSpec) -> TimelineObjective:
        """Build the objective."""
        raise NotImplementedError

    @property
    def parts(self) -> tuple[str, ...]:
        """The towers come from the checkpoint."""
        return tuple(f"{side}/.*" for side in self.objective.spec.towers)

    @property
    def validated_on(self) -> str:
        """Describes the validation examples."""
        return self.splits.validated_on

    def trained_on(self) -> LabelledClips:
        """Return the clips that are trained on."""
        return self.splits.train.clips

    def evaluated_on(self) -> list[LabelledClips]:
        """Return the clips of the validation examples, if any, and those of the report."""
        sets = [self.splits.validation, self.splits.report]
        return [queries.clips for queries in sets if queries is not None]

    def settled(self) -> dict[str, Any]:
        """Return `config.task` with the classes that the data gave."""
        labels = {"labels": self.splits.train.labels} if self.options.query == "label" else {}
        return dataclasses.asdict(self.options) | labels

    def batches(self, start_step: int) -> Iterator[Batch]:
        """Return this process's rows of the train batches; see `feed.Feed.examples` and `Queries.attach`."""
        train = self.splits.train
        batches = self.feed.examples(train.clips, record=train.record, start_step=start_step)
        return train.attach(batches, encode=self._encode if self.options.asks else None)

    def predictor(self, model: nnx.Module) -> TimelinePredictor:
        """Return the model as a finder of moments."""
        return TimelinePredictor(spec=self.objective.spec, model=model, mesh=self._context.mesh)

    def outputs(
        self, predictor: TimelinePredictor, *, queries: Queries, progress: bool = False
    ) -> list[np.ndarray | None]:
        """Return what the head gives for each example (`TimelinePredictor.head`); None where the clip is damaged.

        Raises:
          UserError: none of the clips can be read.
        """
        found: list[np.ndarray | None] = [None] * len(queries)
        batches: Any = self.feed.evaluation(queries.clips)
        if progress and jax.process_index() == 0:
            batches = track(batches, "find moments", total=None, console=Console(stderr=True), transient=True)
        for batch in batches:
            kept = {key: batch[key] for key in ("video", "tokens", "clip_index", "valid") if key in batch}
            rows = predictor.tokens(kept)
            clips = [int(clip) if ok else -1 for clip, ok in zip(rows["clip_index"], rows["valid"], strict=True)]
            places = {clip: place for place, clip in enumerate(clips) if clip >= 0}
            asked = np.flatnonzero(np.isin(queries.record, list(places))).tolist()
            if not asked:
                continue
            tokens = rows["tokens"][[places[int(queries.record[i])] for i in asked]]
            texts = [queries.texts[i] for i in asked] if self.options.asks else []
            size = 2 * self._context.data.feed.batch_size
            for i, output in zip(asked, predictor.head(tokens, texts=texts, batch_size=size), strict=True):
                found[i] = output
        if all(output is None for output in found):
            raise UserError(f"none of the clips of split {queries.split!r} can be read; prepare them again")
        return found

    def measured(
        self, model: nnx.Module, *, queries: Queries, progress: bool = False
    ) -> tuple[list[np.ndarray], Queries, int]:
        """Return the outputs for the examples that can be read, these examples, and how many others there are."""
        found = self.outputs(self.predictor(model), queries=queries, progress=progress)
        read = [i for i, output in enumerate(found) if output is not None]
        kept = queries if len(read) == len(queries) else queries.only(np.array(read))
        return [output for output in found if output is not None], kept, len(queries) - len(read)

    def metric_of(self, name: str) -> str:
        """Return the name of a validation result as it is logged; "" if there is nothing to validate on."""
        return f"{VALIDATION}/{name}" if self.splits.validation is not None else ""

    def protocol(self, *, queries: Queries, unread: int) -> dict[str, Any]:
        """Return how examples are chosen and shown, for a report on them."""
        shown = {key: value for key, value in self._context.protocol(queries.clips).items() if key != "classes"}
        del shown["clips_without_a_listed_label"]
        shown |= {"queries": len(queries), "damaged": unread, "query": self.options.query}
        return shown | {"trained": list(self.objective.trainable), "encoder": self.options.encoder}

    def _encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        length = self._context.data.input.context_length
        cleaned = [self._clean(text) for text in texts]
        ids, mask, _ = self._context.tokenizer.encode(cleaned, context_length=length)
        return ids, mask


def time_tokens(spec: ModelSpec, *, graph: ClipGraph) -> int:
    """Return how many time tokens the video tower of a spec gives for a clip; nothing is computed."""
    model = abstract(spec.replace(heads={}, embed_dim=None, fusion={}))
    clip = jax.ShapeDtypeStruct((1, *graph.shape), jnp.uint8)
    return nnx.eval_shape(lambda model, clip: model.video.features(clip, drop_patches=False), model, clip).shape[1]


def checked_graph(context: TaskContext) -> ClipGraph:
    """Check that time tokens stand for equal parts of the whole clip; return how clips are shown in evaluation."""
    data = context.data
    graph = ClipGraph.of(data, train=False)
    if graph.transform.views > 1 or graph.windows > 1 or graph.window_seconds:
        raise UserError(
            f"config.task.name={context.config['task']['name']!r} looks at the whole clip once; set "
            "config.data.window_seconds=0, eval_clips=1 and a single crop in config.data.eval_video"
        )
    check_places(data)
    return graph


def check_places(data: DataOptions) -> None:
    """Raise UserError unless frames are spread over what is shown, so that time tokens have a place in it."""
    for field, sampling in (
        ("eval_sampling", data.input.eval_sampling),
        ("train_sampling", data.augment.train_sampling or data.input.eval_sampling),
    ):
        if sampling.split("(")[0] not in _SPANNING:
            raise UserError(
                f"config.data.{field}={sampling!r} does not spread the frames over the whole clip, so they have no "
                f"place in it; use one of {', '.join(_SPANNING)}"
            )
