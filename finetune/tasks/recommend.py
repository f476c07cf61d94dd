"""Recommendation: which clip comes next, from the clips of a session and their content."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ...base.errors import UserError
from ...base.section import section
from ...data.batches.clip_graph import ClipGraph
from ...encode.predict.recommender import Recommender
from ...engine.sharding.mesh import check_batch_size
from ...losses.sampled import sampled_softmax
from ...models.heads.sequence import SessionModel
from ...models.layers.draws import row_keys
from ...models.shapes import Scalar
from ...zoo.spec import ModelSpec
from ..examples.clips import LabelledClips
from ..examples.context import TaskContext
from ..examples.sessions import Sessions, read_catalogue, read_sessions
from ..figures.recommend import equal_scores, mean_scores, popular_scores, popularity, recommendation_figures
from ..inputs.feed import Batch, Feed
from ..inputs.sessions import session_batches
from ..kinds.objective import HeadObjective
from ..kinds.task import VALIDATION
from ..kinds.timeline import time_tokens
from ..options.recommend import RecommendOptions
from ..reports.recommend import print_figures, write_recommendations


class RecommendObjective(HeadObjective):
    """Sampled softmax of what comes next, after each item of a session; see `losses.sampled`."""

    def __init__(self, *, spec: ModelSpec, options: RecommendOptions, context: TaskContext):
        """Describe the model and the loss; see `objective.HeadObjective`."""
        super().__init__(spec=spec, options=options, context=context)
        self._options = options

    def loss(
        self, model: SessionModel, batch: dict[str, jax.Array], *, rngs: nnx.Rngs | None
    ) -> tuple[Scalar, dict[str, Scalar]]:
        """Return the cross-entropy in nats over what comes next, and `accuracy` among the candidates of the batch."""
        item, head = batch["item"], model.head
        rows, length = item.shape[0], item.shape[1] - 1
        keys = None if rngs is None else row_keys(rngs(), rows=rows)
        width = batch["vectors"].shape[-1]
        items = head.items(batch["vectors"].reshape(-1, width)).reshape(rows, length + 1, -1)
        mask = (item >= 0) & batch["valid"][:, None]
        history = head.histories(items[:, :-1], mask=mask[:, :-1], keys=keys)
        others = head.items(batch["negative_vectors"].reshape(-1, width))
        frequency = [batch["log_frequency"][:, 1:].reshape(-1), batch["negative_log_frequency"].reshape(-1)]
        return sampled_softmax(
            history.reshape(rows * length, -1),
            candidates=jnp.concatenate([items[:, 1:].reshape(rows * length, -1), others]),
            item=item[:, 1:].reshape(-1),
            candidate_item=jnp.concatenate([item[:, 1:].reshape(-1), batch["negative"].reshape(-1)]),
            valid=mask[:, 1:].reshape(-1),
            scale=head.scale,
            log_frequency=jnp.concatenate(frequency) if self._options.correct_frequency else None,
        )


class Recommend:
    """The task `recommend`; see `task.Task`."""

    parts = ("video/.*",)
    targets = None

    def __init__(self, context: TaskContext):
        """Read the sessions and the catalogue; reads `clips.jsonl` but no record."""
        self._context, self.feed = context, Feed(context)
        self.options = options = section(RecommendOptions, context.config["task"], name="task")
        check_batch_size(context.data.feed.batch_size, mesh=context.mesh)
        self.catalogue = read_catalogue(context, splits=options.item_splits)
        val, test = options.val_share, options.test_share
        self.sessions = read_sessions(options.sessions, catalogue=self.catalogue, val_share=val, test_share=test)
        counts = ", ".join(f"{len(own)} {split}" for split, own in self.sessions.items())
        context.say(f"sessions: {counts}; {len(self.catalogue.clip_ids):,} clips can be recommended")
        fields = ("session", "embed_dim", "depth", "heads", "max_length", "dropout")
        head = {"kind": "sequence", "labels": []} | {name: getattr(options, name) for name in fields}
        spec, graph = context.tower_spec("video"), ClipGraph.of(context.data, train=False)
        if graph.transform.views > 1 or graph.windows > 1:
            raise UserError(
                "config.task.name='recommend' looks at a clip once; set config.data.eval_clips=1 and one crop"
            )
        head["times"] = time_tokens(spec, graph=graph) if options.tokens == "joined" else 1
        spec = spec.replace(heads={"recommend": head})
        self.objective = RecommendObjective(spec=spec, options=options, context=context)
        if len(self.sessions["train"]) < context.data.feed.batch_size:
            raise UserError(
                f"config.data.batch_size={context.data.feed.batch_size} is larger than the "
                f"{len(self.sessions['train'])} sessions of split 'train'; lower it"
            )
        self._kept: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def metric(self) -> str:
        """NDCG of the validation sessions."""
        return f"{VALIDATION}/nDCG@{self.options.k}" if len(self.sessions["val"]) else ""

    @property
    def validated_on(self) -> str:
        """Describes the validation sessions."""
        return f"{len(self.sessions['val'])} sessions" if self.metric else ""

    def trained_on(self) -> LabelledClips:
        """Return clips of the catalogue; sessions are trained on through their features."""
        return self.catalogue.sets[0]

    def evaluated_on(self) -> list[LabelledClips]:
        """Return the clips of the catalogue, whose features are computed once."""
        return list(self.catalogue.sets)

    def settled(self) -> dict[str, Any]:
        """Return `config.task`."""
        return dataclasses.asdict(self.options)

    def batches(self, start_step: int) -> Iterator[Batch]:
        """Return this process's rows of the train batches; see `inputs.sessions.session_batches`."""
        sessions = self.sessions["train"].items
        longest = max(len(items) for items in sessions)
        return session_batches(
            sessions,
            vectors=lambda: self._vectors()[0],
            batch_size=self._context.data.feed.batch_size,
            length=min(self.options.max_length, longest - 1),
            negatives=self.options.negatives,
            seed=self._context.config["seed"],
            start_step=start_step,
        )

    def evaluate(self, model: nnx.Module, step: int) -> dict[str, float]:
        """Return nDCG and recall at k, MRR and MAP of the validation sessions, in percent."""
        del step
        found, k = self._figures(self._recommender(model).scores, sessions=self.sessions["val"]), self.options.k
        return {name: 100 * found[name] for name in (f"nDCG@{k}", f"recall@{k}", "MRR", "MAP")}

    def report(self, model: nnx.Module, *, out: Path, protocol: dict[str, Any]) -> dict[str, Any]:
        """Measure the model on the test sessions, write the report and the catalogue, print the table."""
        recommender, test, (vectors, ok) = self._recommender(model), self.sessions["test"], self._vectors()
        count = popularity(self.sessions["train"].items, items=len(vectors))
        scores = {"model": recommender.scores, "mean": mean_scores(vectors)}
        scores |= {"popularity": popular_scores(count), "random": equal_scores(len(vectors))}
        figures: dict[str, Any] = {name: self._figures(one, sessions=test) for name, one in scores.items()}
        figures |= {"k": self.options.k, "sessions": len(test), "cold_items": int((count == 0).sum())}
        data = self._context.data.input
        whole = protocol | {"dataset": self._context.records.folder.resolve().name, "sessions": len(test)}
        whole |= {"clips": len(vectors), "damaged": int((~ok).sum()), "frames": data.num_frames}
        whole |= {"session_model": self.options.session, "exclude_seen": self.options.exclude_seen}
        whole |= {"next": "the last clip of each session, from all before it"}
        if jax.process_index() == 0:
            page = write_recommendations(
                figures,
                recommender=recommender,
                sessions=test,
                catalogue=self.catalogue,
                vectors=vectors,
                records=self._context.records,
                out=out,
                protocol=whole,
            )
            print_figures(figures, page=page)
        return {"protocol": whole, **figures}

    def _figures(self, scores: Any, *, sessions: Sessions) -> dict[str, Any]:
        count = popularity(self.sessions["train"].items, items=len(self.catalogue.clip_ids))
        how = {"k": self.options.k, "exclude_seen": self.options.exclude_seen}
        return recommendation_figures(scores, sessions=sessions.items, known=count > 0, **how)

    def _recommender(self, model: nnx.Module) -> Recommender:
        recommender = Recommender(spec=self.objective.spec, model=model, mesh=self._context.mesh)
        recommender.use_catalogue(self._vectors()[0], clip_ids=self.catalogue.clip_ids)
        return recommender

    def _vectors(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the vectors of the catalogue, float32 [items,D], on every process; and which clips could be read."""
        if self._kept is None:
            found = [self.feed.features(clips, joined=self.options.tokens == "joined") for clips in self.catalogue.sets]
            vectors, ok = (np.concatenate(part) for part in zip(*found, strict=True))
            if not ok.any():
                raise UserError("no clip of the catalogue can be read; prepare the data set again")
            self._kept = vectors, ok
        return self._kept


def make(context: TaskContext) -> Recommend:
    """Build the task."""
    return Recommend(context)
