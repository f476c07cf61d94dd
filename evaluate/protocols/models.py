"""Several models on the same clips: figures over seeds, differences to the first, groups, and where queries differ."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...base.errors import UserError
from ..embedding.embeddings import Embeddings
from ..measures.intervals import bootstrap, over_seeds, paired_test
from ..measures.ranks import RECALL_AT, Ranks, hits
from .comparison import check_same
from .groups import fields_of, recalls_by_group
from .marks import marked
from .retrieval import AMONG_CAPTIONS, DIRECTIONS, INTERVALS

FIGURES = (*(f"R@{k}" for k in RECALL_AT), "MdR", "MnR")
_SAME = ("dataset", "split", "benchmark", "subset_id", "captions", "texts", "videos", "score", "ties")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """A run that was measured.

    Attributes:
      name: of the run.
      model: of which it is a seed.
      embeddings: of the split.
      ranks: of text to video and video to text.
      results: the content of its `retrieval.json`.
    """

    name: str
    model: str
    embeddings: Embeddings
    ranks: tuple[Ranks, Ranks]
    results: dict[str, Any]


def by_model(runs: Sequence[Measured]) -> dict[str, list[Measured]]:
    """Return the runs of each model, the models in the order of their first run."""
    found: dict[str, list[Measured]] = {}
    for run in runs:
        found.setdefault(run.model, []).append(run)
    return found


def check_same_clips(embeddings: Sequence[Embeddings], *, names: Sequence[str]) -> None:
    """Raise UserError unless all were measured on the same clips and captions, in the same order.

    Args:
      embeddings: of at least one run.
      names: of the runs.
    """
    first, *others = embeddings
    for one, name in zip(others, names[1:], strict=True):
        mine, theirs = (made.protocol.get("subset_id") for made in (first, one))
        if mine and theirs and mine != theirs:
            raise UserError(
                f"{names[0]} and {name} were measured on different clips ({len(first.video)} of subset id "
                f"{mine[:16]}, and {len(one.video)} of {theirs[:16]}); evaluate both on the same split of the same data"
            )
        check_same(first, one, name=name)


def compare_models(runs: Sequence[Measured], *, group_by: Sequence[str] = ()) -> dict[str, Any]:
    """Compare models on the same clips; the first one is what the others are compared with.

    Args:
      runs: of all models; several runs of one model are its seeds.
      group_by: further fields by which recalls are grouped, see `groups.group_block`.

    Returns:
      The content of `comparison.json`: `protocol`, what the runs share, and `differs`, what they do not; `models`:
      name -> `runs` (name, checkpoint, step, seed, weights_sha256), for each block of `retrieval.json` the figures as
      `over_seeds`, and of a single run its `intervals`; `differences`: model -> direction -> `R@K` -> see
      `intervals.paired_test` (the model less the first); `groups`: field -> `title`, `kind`, `of`, and `models`:
      model -> direction -> group -> `n`, `clips`, `R@K` and, for all but the first model, `difference` of R@1 with
      `low` and `high`; and `coverage` of the first run. Hits of a model with several seeds are the means over them:
      intervals and p are over clips, not over seeds.

    Raises:
      UserError: the runs were measured on different clips.
    """
    check_same_clips([run.embeddings for run in runs], names=[run.name for run in runs])
    models = by_model(runs)
    values = {name: _hits(own) for name, own in models.items()}
    first, *others = models
    index = np.asarray(runs[0].embeddings.video_of_text)
    clusters = dict(zip(DIRECTIONS, (index, np.unique(index)), strict=True))
    several_clips = len(np.unique(index)) > 1
    differences = {
        name: {
            way: {
                key: paired_test(value, second=values[first][way][key], clusters=clusters[way])
                for key, value in values[name][way].items()
            }
            for way in DIRECTIONS
        }
        for name in (others if several_clips else [])
    }
    made = {
        "protocol": {key: runs[0].results["protocol"].get(key) for key in _SAME},
        "differs": _differs(runs),
        "models": {name: _figures(own) for name, own in models.items()},
        "differences": differences,
        "groups": _groups(runs[0].embeddings, values=values, group_by=group_by),
        "coverage": runs[0].results["coverage"],
    }
    return marked(made)


def _hits(runs: Sequence[Measured]) -> dict[str, dict[str, np.ndarray]]:
    """The hits of each query in percent, means over the seeds: direction -> R@K -> float [n]."""
    return {
        way: {f"R@{k}": np.mean([100 * hits(run.ranks[side], k=k) for run in runs], axis=0) for k in RECALL_AT}
        for side, way in enumerate(DIRECTIONS)
    }


def _figures(runs: Sequence[Measured]) -> dict[str, Any]:
    keys = ("checkpoint", "step", "seed", "weights_sha256")
    blocks = [key for key in (*DIRECTIONS, AMONG_CAPTIONS) if all(key in run.results for run in runs)]
    drawn = {} if len(runs) > 1 else {INTERVALS: runs[0].results.get(INTERVALS, {})}
    return {
        "runs": [{"name": run.name} | {key: run.results["protocol"].get(key) for key in keys} for run in runs],
        **{block: {key: over_seeds([run.results[block][key] for run in runs]) for key in FIGURES} for block in blocks},
        **drawn,
    }


def _differs(runs: Sequence[Measured]) -> dict[str, dict[str, Any]]:
    """The keys of the protocols that differ between runs: key -> run -> value."""
    protocols = {run.name: run.results["protocol"] for run in runs}
    keys = dict.fromkeys(key for protocol in protocols.values() for key in protocol)
    found = {key: {name: protocol.get(key) for name, protocol in protocols.items()} for key in keys}
    return {key: values for key, values in found.items() if any(one != values[runs[0].name] for one in values.values())}


def _groups(
    embeddings: Embeddings, *, values: dict[str, dict[str, dict[str, np.ndarray]]], group_by: Sequence[str]
) -> dict[str, Any]:
    first, made = next(iter(values)), {}
    for field in fields_of(embeddings, group_by=group_by):
        models: dict[str, Any] = {}
        for name, own in values.items():
            models[name] = {}
            for way, groups, clusters in field.sides(np.asarray(embeddings.video_of_text)):
                found = recalls_by_group(own[way], groups=groups, clusters=clusters)["groups"]
                models[name][way] = found
                for group, one in found.items():
                    rows = groups.members[:, groups.names.index(group)]
                    if name != first and one["clips"] > 1:
                        less = own[way]["R@1"][rows] - values[first][way]["R@1"][rows]
                        drawn = bootstrap(less, clusters=clusters[rows])
                        one["difference"] = {"value": drawn["value"], "low": drawn["low"], "high": drawn["high"]}
        made[field.name] = field.about() | {"models": models}
    return made


def most_different(runs: Sequence[Measured], *, model: str, count: int) -> tuple[list[int], list[int]]:
    """Return the captions whose ranks differ most between a model and the first: ones that it ranks better, and worse.

    Ranks are compared as ratios, of their means over seeds: 1 against 10 counts as 10 against 100. No text and no clip
    comes twice on one side.

    Args:
      runs: of all models.
      model: the other one.
      count: captions of each side at most.
    """
    models, embeddings = by_model(runs), runs[0].embeddings
    first, other = (
        np.mean([run.ranks[0].expected for run in own], axis=0) for own in (models[runs[0].model], models[model])
    )
    gain = np.log(first / other)  # positive where the other model is better
    sides = [_largest(side, embeddings=embeddings, count=count) for side in (gain, -gain)]
    return sides[0], sides[1]


def _largest(gain: np.ndarray, *, embeddings: Embeddings, count: int) -> list[int]:
    texts, index, chosen = embeddings.captions, embeddings.video_of_text.tolist(), []
    seen: set[Any] = set()
    for query in np.argsort(-gain, kind="stable").tolist():
        if len(chosen) == count or gain[query] <= 0:
            break
        if not {texts[query], index[query]} & seen:
            chosen.append(query)
            seen |= {texts[query], index[query]}
    return chosen
