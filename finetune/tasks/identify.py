"""Verification of identity: an embedding of clips whose cosine says whether two of them show the same one."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from rich.console import Console
from rich.progress import track

from ...base.errors import UserError
from ...base.section import section
from ...encode.predict.verifier import Verifier
from ...engine.sharding.mesh import check_batch_size
from ...losses.margins import margin_cross_entropy
from ...models.heads.embedding import EmbeddingModel
from ...models.shapes import Scalar
from ...zoo.spec import ModelSpec
from ..examples.clips import LabelledClips
from ..examples.context import TaskContext
from ..examples.identities import IdentityClips, IdentitySplits, choose_identities
from ..examples.pairs import FOLDS, Pairs, all_pairs, fold_pairs, read_pairs
from ..figures.identify import Compared, cosines, eer_threshold, verification_figures
from ..inputs.feed import Feed
from ..kinds.labelled import LabelledTask
from ..kinds.objective import HeadObjective, split_keys
from ..kinds.task import VALIDATION
from ..options.identify import IdentifyOptions
from ..reports.identify import print_figures, write_verification


class IdentifyObjective(HeadObjective):
    """Cross-entropy over the identities of training, with a margin; see `losses.margins`."""

    def __init__(self, *, spec: ModelSpec, options: IdentifyOptions, context: TaskContext):
        """Describe the model and the loss; see `objective.HeadObjective`."""
        super().__init__(spec=spec, options=options, context=context)
        self._margin: dict[str, Any] = {"kind": options.loss, "margin": options.margin, "scale": options.scale}

    def loss(
        self, model: EmbeddingModel, batch: dict[str, jax.Array], *, rngs: nnx.Rngs | None
    ) -> tuple[Scalar, dict[str, Scalar]]:
        """Return the loss in nats over the rows that take part, `accuracy` and `own_cosine`."""
        _, keys = split_keys(rngs, rows=batch["label"].shape[0])
        if "tokens" in batch:
            embedding = model.score(batch["tokens"], keys=keys)
        else:
            embedding = model(batch["video"], keys=keys, frozen=self.frozen)
        cosine = model.head.cosines(embedding)
        return margin_cross_entropy(cosine, label=batch["label"], valid=batch["valid"], **self._margin)


class Identify(LabelledTask):
    """The task `identify`; see `task.Task`."""

    objective: IdentifyObjective
    splits: IdentitySplits  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, context: TaskContext):
        """Choose identities, clips and pairs; reads `clips.jsonl` but no record."""
        self._context, self.feed = context, Feed(context)
        self.options = options = section(IdentifyOptions, context.config["task"], name="task")
        check_batch_size(context.data.feed.batch_size, mesh=context.mesh)
        self.splits = choose_identities(context, options=options)
        self._pairs_of(self.splits.report, index=self.splits.report.indices)  # a fault in them shows here
        head = {name: getattr(options, name) for name in ("embed_dim", "pool", "heads", "positions", "hidden")}
        head |= {"kind": "embedding", "labels": list(self.splits.train.names), "dropout": options.dropout}
        spec = context.tower_spec("video").replace(heads={"identify": head})
        self.objective = IdentifyObjective(spec=spec, options=options, context=context)

    @property
    def metric(self) -> str:
        """Area under the ROC curve of the validation pairs: it is finer than the EER."""
        return f"{VALIDATION}/AUC" if self.splits.validation is not None else ""

    def evaluated_on(self) -> list[LabelledClips]:
        """Return the validation clips, if any, and those of the report."""
        return list(self.splits.sets())

    def settled(self) -> dict[str, Any]:
        """Return `config.task`; the identities stand in the spec of the model."""
        return dataclasses.asdict(self.options)

    def evaluate(self, model: nnx.Module, step: int) -> dict[str, float]:
        """Return `EER`, `AUC` and `TAR@FAR=0.01` of the pairs of the validation clips, in percent."""
        del step
        assert self.splits.validation is not None
        compared, _ = self._compared(model, clips=self.splits.validation)
        found = verification_figures(dataclasses.replace(compared, untrained=None, count=0))["model"]
        return {
            "EER": 100 * found["eer"],
            "AUC": 100 * found["auc"],
            "TAR@FAR=0.01": 100 * found["tar"]["0.01"],
        }

    def report(self, model: nnx.Module, *, out: Path, protocol: dict[str, Any]) -> dict[str, Any]:
        """Measure the model on the test split (or on the validation clips), write the report, print its table."""
        clips, records, validation = self.splits.report, self._context.records, self.splits.validation
        threshold = None
        if validation is not None and validation is not clips:
            known, _ = self._compared(model, clips=validation)
            threshold = eer_threshold(cosines(known.embedding, pairs=known.pairs), same=known.pairs.same)
        compared, index = self._compared(model, clips=clips, progress=True)
        figures = verification_figures(compared, threshold=threshold)
        whole = protocol | self._context.protocol(clips) | {"damaged": len(clips) - len(index)}
        del whole["classes"], whole["clips_without_a_listed_label"]
        whole |= {"identities": len(clips.names), "identities_of_training": len(self.splits.train.names)}
        whole |= {"pairs": self.options.pairs or "all", "loss": self.options.loss, "margin": self.options.margin}
        whole |= {"pool": self.options.pool, "trained": list(self.objective.trainable)}
        if jax.process_index() == 0:
            page = write_verification(
                figures, compared=compared, index=index, clips=clips, records=records, out=out, protocol=whole
            )
            print_figures(figures, page=page)
        return {"protocol": whole, **figures}

    def _pairs_of(self, clips: IdentityClips, *, index: np.ndarray) -> tuple[Pairs, Pairs, int]:
        """Return the pairs of clips at these records, and the folds and their number; see `Compared`."""
        identity = clips.label[index]
        if not self.options.pairs or clips is not self.splits.report:
            return all_pairs(identity, most=self.options.most_pairs), *fold_pairs(identity)
        rows = self._context.records.rows(clips.split)
        records = {rows[i]["clip_id"]: i for i in clips.indices.tolist()}
        found = read_pairs(Path(self.options.pairs), places=records)
        place = {record: i for i, record in enumerate(index.tolist())}
        there = np.isin(found.first, index) & np.isin(found.second, index)
        kept = found.only(there)
        first, second = (np.array([place[i] for i in ends.tolist()], np.int64) for ends in (kept.first, kept.second))
        pairs = Pairs(first=first, second=second, same=kept.same)
        return pairs, pairs, min(FOLDS, len(pairs) // 2)

    def _compared(
        self, model: nnx.Module, *, clips: IdentityClips, progress: bool = False
    ) -> tuple[Compared, np.ndarray]:
        """Embed the clips that can be read; return them with their pairs, and their records int64 [m]."""
        verifier = Verifier(spec=self.objective.spec, model=model, mesh=self._context.mesh)
        batches: Any = self.feed.evaluation(clips)
        if progress and jax.process_index() == 0:
            batches = track(batches, "embed the clips", total=None, console=Console(stderr=True), transient=True)
        parts = []
        for batch in batches:
            found = verifier.embed_local(batch)
            parts.append([found[key][found["valid"]] for key in ("embedding", "untrained", "clip_index")])
        embedding, untrained, index = (np.concatenate(part) for part in zip(*parts, strict=True))
        order = np.argsort(index, kind="stable")
        embedding, untrained, index = embedding[order], untrained[order], index[order].astype(np.int64)
        pairs, folds, count = self._pairs_of(clips, index=index)
        if not len(pairs) or pairs.same.all() or not pairs.same.any():
            raise UserError(
                f"{len(index)} of the {len(clips)} clips of split {clips.split!r} can be read, too few for pairs of "
                "one and of two identities; prepare them again"
            )
        given = {"pairs": pairs, "folds": folds, "count": count}
        plain = untrained if self.objective.frozen else None
        return Compared(embedding=embedding, untrained=plain, **given), index


def make(context: TaskContext) -> Identify:
    """Build the task."""
    return Identify(context)
