"""The results of a sweep as JSON values."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .study import SweepStudy, curve_of, shown_state

Results = dict[str, Any]


def results_of(study: SweepStudy | None, *, about: Mapping[str, Any], maximize: bool, metric: str) -> Results:
    """Return what a study has found so far.

    Args:
      study: the study; None of a learning curve alone.
      about: what the sweep is of: config, verb, and so on.
      maximize: whether a higher value is better.
      metric: what is compared; "" = what the runs chose.

    Returns:
      `about` with `metric`, `better` ("higher" or "lower"), `parameters`, `trials` (a list of `run`, `workdir`,
      `state`, `value`, `step`, `values`, `overrides`, `command`, `seconds`, `error` and `curve`, pairs of step and
      value), best first; `best`, the first of them or None; and `importance`, shares by parameter.
    """
    trials = [] if study is None else [_trial(one, study=study) for one in study.trials()]
    done = [one for one in trials if one["state"] == "complete"]
    done.sort(key=lambda one: -one["value"] if maximize else one["value"])
    order = ("pruned", "failed", "running", "waiting")
    others = sorted((one for one in trials if one["state"] != "complete"), key=lambda one: order.index(one["state"]))
    return {
        **about,
        "metric": metric or next((one["metric"] for one in trials if one["metric"]), "config.train.best_metric"),
        "better": "higher" if maximize else "lower",
        "space": {} if study is None else study.space.to_json(),
        "trials": [*done, *others],
        "best": done[0] if done else None,
        "importance": {} if study is None else study.importance(),
    }


def share_curve(study: SweepStudy) -> list[dict[str, Any]]:
    """Return the learning curve of a study over `data.share` and `seed`.

    Returns:
      For each share, rising: `share`, `values` of its finished runs, their `mean` and `std` (of the sample; 0 of one).
    """
    found: dict[float, list[float]] = {}
    for one in study.trials():
        if shown_state(one) == "complete" and one.value is not None:
            found.setdefault(float(one.params["data.share"]), []).append(float(one.value))
    return [
        {
            "share": share,
            "values": values,
            "mean": float(np.mean(values)),
            "std": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0,
        }
        for share, values in sorted(found.items())
    ]


def copied_flags(overrides: Sequence[str]) -> str:
    """Return overrides as flags for a shell."""
    return shlex.join(f"--config.{one}" for one in overrides)


def _trial(one: Any, *, study: SweepStudy) -> dict[str, Any]:
    facts = one.user_attrs
    run = facts.get("run") or f"{one.number:04d}"
    state = shown_state(one)
    curve = curve_of(one)
    value = one.value if state == "complete" else curve[-1][1] if curve else None
    return {
        "run": run,
        "workdir": str(Path(study.folder) / run),
        "state": state,
        "value": value,
        "step": facts.get("best_step", curve[-1][0] if curve else None),
        "values": dict(one.params),
        "overrides": study.space.overrides(one.params),
        "command": facts.get("command", ""),
        "metric": facts.get("metric", ""),
        "seconds": facts.get("seconds"),
        "error": facts.get("error", ""),
        "curve": [list(point) for point in curve],
    }
