"""Complete a fine-tuning config from its checkpoint, and warn where the two look at clips differently."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..data.batches.mismatch import record_mismatches

Config = Mapping[str, Any]
"""A whole config as nested dicts."""

INHERITED = ("data", "model")
"""Sections whose unset (None) fields take the checkpoint's values."""


def complete(config: Config, *, meta: Mapping[str, Any], init: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of the run: what it leaves open (None) comes from the checkpoint.

    Args:
      config: the experiment; sections `data` and `model` may be partial or hold None.
      meta: the checkpoint's meta.
      init: which checkpoint it is; stored as section `init`, so that a workdir knows where it began.
    """
    inherited = {name: _merged(meta["config"].get(name, {}), config.get(name) or {}) for name in INHERITED}
    return {**config, **inherited, "init": dict(init)}


def mismatches(
    config: Config, *, meta: Mapping[str, Any], prepare: Mapping[str, Any], rows: Sequence[Mapping[str, Any]] = ()
) -> list[str]:
    """Return one sentence per way in which this run shows clips to the towers unlike before, or trains unlike it tests.

    Args:
      config: the completed config.
      meta: the checkpoint's meta.
      prepare: options of the prepared data set (`prepare.json`).
      rows: lines of clips.jsonl of the train split.
    """
    data, before = config["data"], meta["config"].get("data", {})
    found = [
        f"config.data.{key}={data[key]!r}, but the checkpoint was pretrained with {before[key]!r}"
        for key in ("num_frames", "train_sampling", "eval_sampling")
        if key in before and key in data and before[key] != data[key]
    ]
    samplers = [data.get("train_sampling", ""), data.get("eval_sampling", "")]
    if all(samplers) and _family(samplers[0]) != _family(samplers[1]):
        found.append(
            f"config.data.train_sampling={samplers[0]!r} but eval_sampling={samplers[1]!r}: "
            "clips are trained and evaluated at different rates or spans"
        )
    return found + record_mismatches(
        trained=meta.get("data", {}).get("prepare", {}),
        prepared=prepare,
        rows=rows,
        num_frames=data.get("num_frames", 0),
        sound=bool(data.get("audio_seconds")),
    )


def _merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """`own` over `base`, None and absent fields from `base`; sections recursively."""
    result: dict[str, Any] = {}
    for key in [*base, *(key for key in own if key not in base)]:
        value = own.get(key)
        if isinstance(value, Mapping) or (value is None and isinstance(base.get(key), Mapping)):
            inner = _merged(base.get(key) or {}, value or {})
            if inner:
                result[key] = inner
        elif value is not None:
            result[key] = value
        elif base.get(key) is not None:
            result[key] = base[key]
    return result


def _family(sampler: str) -> str:
    """Samplers of one family look at a clip alike: `uniform` and `uniform_jitter`, `dense(2)` and `middle`."""
    name = sampler.split("_")[0].split("(")[0]
    return "dense" if name in ("first", "middle") else name
