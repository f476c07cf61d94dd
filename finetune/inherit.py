"""Complete a fine-tuning config from its checkpoint, and warn where the two look at clips differently."""

from collections.abc import Mapping
from typing import Any

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


def mismatches(config: Config, *, meta: Mapping[str, Any], prepare: Mapping[str, Any]) -> list[str]:
    """Return one sentence per way in which this run shows clips to the towers unlike before, or trains unlike it tests.

    Args:
      config: the completed config.
      meta: the checkpoint's meta.
      prepare: options of the prepared data set (`prepare.json`).
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
    fps = meta.get("data", {}).get("prepare", {}).get("fps")
    consecutive = any(_family(sampler) != "uniform" for sampler in samplers if sampler)
    if consecutive and (fps or 0) != (prepare.get("fps") or 0):  # samplers that span the clip do not depend on it
        found.append(
            f"these records hold {_rate(prepare.get('fps'))}, the checkpoint was pretrained on {_rate(fps)} "
            "(`twinreel prepare --fps`)"
        )
    return found


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
    """`uniform_jitter` and `uniform` look at a clip in the same way: they share the part before the first `_`."""
    return sampler.split("_")[0].split("(")[0]


def _rate(fps: float | None) -> str:
    return f"{fps:g} frames a second" if fps else "every frame of the file"
