"""Probes of frozen features: train on clips with labels, score others, and report with the protocol."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ... import __version__
from ...base.errors import UserError, unknown
from ..measures.intervals import over_seeds
from ..measures.neighbours import has_faiss, weighted_knn
from ..measures.ranks import TIE_RULE
from .classified import Classified
from .marks import marked
from .probe_attentive import AttentiveOptions, attentive_probe
from .probe_data import ProbeSet, Say, Scored, check_trainable, draw_shots
from .probe_linear import linear_probe
from .zero_shot import INTERVALS, one_label, several_labels

METHODS = ("linear", "knn", "attentive")
KNN_SOURCE = "weighted k-NN of Caron et al. 2021 (DINO, arXiv:2104.14294)"
_FIGURES = ("top1", "top5", "mean_class_accuracy", "mAP", "hit@1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeOptions:
    """What is trained on the features.

    Attributes:
      method: one of `METHODS`.
      shots: clips of each class to train on; 0 = all.
      draws: how many times these are drawn, and a probe is trained.
      seed: of the draws, and of the attentive probe.
      k: neighbours that vote in k-NN; at most the training clips.
      temperature: of their votes.
      attentive: how the attentive probe is trained.
    """

    method: str = "linear"
    shots: int = 0
    draws: int = 1
    seed: int = 0
    k: int = 20
    temperature: float = 0.07
    attentive: AttentiveOptions = dataclasses.field(default_factory=AttentiveOptions)

    def __post_init__(self):
        if self.method not in METHODS:
            raise unknown("value of --method", self.method, METHODS)
        for name, least in (("shots", 0), ("draws", 1), ("seed", 0), ("k", 1)):
            if getattr(self, name) < least:
                raise UserError(f"--{name} is {getattr(self, name)}; wanted {least} or more")
        if self.draws > 1 and not self.shots and self.method != "attentive":
            raise UserError(
                f"--draws {self.draws} trains on other clips each time, and without --shots all clips are trained on; "
                "add --shots, or leave --draws out"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeData:
    """What a probe is trained, validated and measured on.

    Attributes:
      train: clips to train on.
      validation: clips that choose what is to be chosen; None = there are none.
      test: clips that are measured.
      several: clips may have several classes.
      classes: names of the c classes.
      clip_ids: of the test clips.
      validated_on: describes the validation clips.
      protocol: how features and labels were made, for the report.
      coverage: of the test split, see `retrieval.coverage_of`.
      notes: what the reader of the figures must know.
    """

    train: ProbeSet
    validation: ProbeSet | None
    test: ProbeSet
    several: bool
    classes: list[str]
    clip_ids: list[str]
    validated_on: str = ""
    protocol: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    coverage: dict[str, Any] = dataclasses.field(default_factory=dict)
    notes: Sequence[str] = ()


def probe_report(data: ProbeData, *, options: ProbeOptions, say: Say) -> tuple[dict[str, Any], np.ndarray]:
    """Train the probe, once or for each draw, and measure it.

    Args:
      data: the clips.
      options: what is trained.
      say: called with lines of text that report the progress.

    Returns:
      JSON values: `protocol`; the blocks of `zero_shot.one_label` (or `several_labels`), of the first draw; `probe`,
      what the first one chose; with several draws `draws`, the figures of each, and `over_draws`, their mean and
      spread; and `coverage`. And the scores of the first draw, float64 [n,c].

    Raises:
      UserError: nothing can be learnt from the training clips, or k-NN is asked for more neighbours than there are.
    """
    first: Scored | None = None
    figures, notes = [], [*data.notes]
    blocks: dict[str, Any] = {}
    for number in range(options.draws):
        train = data.train
        if options.shots:
            train = train.take(draw_shots(train.targets, shots=options.shots, key=(options.seed, number)))
        if options.draws > 1:
            say(f"draw {number + 1} of {options.draws}: {len(train)} training clips")
        check_trainable(train, classes=data.classes, several=data.several)
        found = _probe(data, train=train, options=options, seed=options.seed + number, say=say)
        measured = _blocks(data, scores=found.scores)
        figures.append({"seed": options.seed + number, "train_clips": len(train)} | _figures(measured))
        if first is None:
            first, blocks = found, measured
    assert first is not None
    notes += _notes(data, options=options, facts=first.facts)
    results = {"protocol": _protocol(data, options=options, first=figures[0], notes=notes), **blocks}
    results |= {"probe": first.facts}
    if options.draws > 1:
        shared = [name for name in _FIGURES if name in figures[0]]
        results |= {"draws": figures}
        results |= {"over_draws": {name: over_seeds([one[name] for one in figures]) for name in shared}}
    return marked({**results, "coverage": data.coverage}), first.scores


def _probe(data: ProbeData, *, train: ProbeSet, options: ProbeOptions, seed: int, say: Say) -> Scored:
    sets = {"validation": data.validation, "test": data.test, "several": data.several, "say": say}
    if options.method == "linear":
        return linear_probe(train, **sets, join=not options.shots)
    if options.method == "attentive":
        return attentive_probe(train, **sets, options=options.attentive, seed=seed)
    k, faiss = min(options.k, len(train)), has_faiss()
    scores = weighted_knn(
        data.test.features,
        bank=train.features,
        targets=train.targets,
        k=k,
        temperature=options.temperature,
        faiss=faiss,
    )
    facts = {"k": k, "temperature": options.temperature, "search": "FAISS" if faiss else "NumPy"}
    return Scored(scores=scores, facts=facts | {"protocol": KNN_SOURCE})


def _blocks(data: ProbeData, *, scores: np.ndarray) -> dict[str, Any]:
    labels = data.test.targets if data.several else data.test.labels
    found = Classified(
        labels=labels, scores=scores, classes=data.classes, names=data.classes, clip_ids=list(data.clip_ids)
    )
    found.check()
    return several_labels(found, scores=scores) if data.several else one_label(found, scores=scores)


def _figures(blocks: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures that are averaged over draws, in percent."""
    if "multilabel" in blocks:
        return {name: blocks["multilabel"][name] for name in ("mAP", "hit@1")}
    found = {name: blocks["accuracy"][name] for name in ("top1", "top5") if name in blocks["accuracy"]}
    return found | {"mean_class_accuracy": blocks["mean_class_accuracy"]["over_truth"]}


def _notes(data: ProbeData, *, options: ProbeOptions, facts: Mapping[str, Any]) -> list[str]:
    """Say what the figures alone would hide."""
    counts, found = data.train.targets.sum(axis=0), []
    unseen = counts == 0
    if names := [name for name, one in zip(data.classes, unseen, strict=True) if one]:
        hopeless = int((data.test.targets & ~unseen).any(axis=1).__invert__().sum())
        shown = ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
        found.append(
            f"{len(names)} classes have no training clip and are never predicted: {shown}; {hopeless} test clips have "
            "no other class and count as wrong"
        )
    if few := int(((counts > 0) & (counts < options.shots)).sum()):
        found.append(f"{few} classes have fewer than {options.shots} training clips: all of theirs are used")
    if data.validation is None and options.method != "knn":
        chosen = "C is 0.316" if options.method == "linear" else "the last epoch counts"
        found.append(f"there are no validation clips: {chosen}")
    if facts.get("not_converged"):
        found.append(f"{facts['not_converged']} regressions stopped at the last iteration, before they converged")
    if facts.get("k", options.k) < options.k:
        found.append(f"k is {facts['k']}, the number of training clips, instead of {options.k}")
    return found


def _protocol(data: ProbeData, *, options: ProbeOptions, first: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    names = {"linear": "linear probe", "knn": "k-NN classification", "attentive": "attentive probe"}
    tuned = options.method != "knn"
    return {
        "task": names[options.method],
        **data.protocol,
        "method": options.method,
        "train_clips": first["train_clips"],
        "validated_on": (data.validated_on or "nothing") if tuned else "nothing: k and temperature are given",
        "shots": options.shots or "all",
        "draws": options.draws,
        "seed": options.seed,
        "classes": len(data.classes),
        "clips": len(data.test),
        "ties": TIE_RULE,
        "intervals": INTERVALS,
        "warnings": notes,
        "twinreel": __version__,
    }
