"""The options of the loop: section `train` of a config."""

import dataclasses
import re
from collections.abc import Collection

from ...base.errors import UserError, unknown
from .sinks import SINKS

# Fields that may change between two starts in the same workdir: none of them touches what a step computes, except
# `train.steps`, through the learning-rate schedule, and what places or cuts up the work in the rounding of sums; the
# change is printed.
MAY_CHANGE = frozenset(
    {
        "train.steps",
        "train.log_every",
        "train.eval_every",
        "train.checkpoint_every",
        "train.local_every",
        "train.keep_last",
        "train.keep_best",
        "train.sinks",
        "train.profile_steps",
        "train.skip_nonfinite",
        "mesh.replica",
        "mesh.fsdp",
        "mesh.tensor",
        "sharding.rules",
        "model.remat",
        "model.unroll",
        "model.attention",
        "loss.form",
        "loss.exchange",
        "loss.block",
        "loss.microbatch",
        "loss.grad_cache",
        "train.stall_timeout",
        "train.preflight_timeout",
        "data.num_threads",
        "data.prefetch",
        "data.cache_dir",
        "data.cache_gb",
        "task.features_dir",
    }
)

_EVALUATION = re.compile(r"evaluations\.([^.]+)\.(.+)")
_EVALUATION_MAY_CHANGE = frozenset({"every", "batch_size"})


def may_change(field: str, *, old: Collection[str] = (), new: Collection[str] = ()) -> bool:
    """Tell whether a field may change between two starts in one workdir.

    Evaluations may come and go, and have other schedules. What one measures may not change under its name.

    Args:
      field: dotted path in the config.
      old: names of the evaluations in the config of the start before.
      new: those in the config of this start.

    >>> may_change("train.steps"), may_change("optimizer.lr"), may_change("evaluations.val.every")
    (True, False, True)
    >>> [may_change("evaluations.val.split", old=["val"], new=new) for new in ([], ["val"])]
    [True, False]
    """
    match = _EVALUATION.fullmatch(field)
    if not match:
        return field in MAY_CHANGE
    return match[2] in _EVALUATION_MAY_CHANGE or match[1] not in old or match[1] not in new


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """How long to train, and when to log, evaluate and save. All counts are in optimizer steps.

    Attributes:
      steps: number of steps in all; the learning-rate schedule ends there.
      log_every: steps between two lines of metrics.
      eval_every: steps between two evaluations, for those without an `every` of their own; 0 = only at the end.
      checkpoint_every: steps between two checkpoints; the last step is always saved.
      local_every: steps between two checkpoints on the local disk alone, of a workdir in an object store, to which
        checkpoint_every sends them; a restart on the same machines resumes from the newest of both. 0 = none.
      keep_last: how many of the newest checkpoints stay.
      keep_best: how many of the best ones by `best_metric` stay in addition.
      best_metric: name of an evaluation result, such as "val/t2v_R@1"; "" = none.
      best_mode: "max" or "min".
      patience: stop after so many evaluations of `best_metric` without a better one; 0 = never.
      unmasked_steps: the last steps of the run, in which the objective leaves out its patch dropout (FLIP's unmasked
        tuning, Li et al. 2023, section 4.1).
      sinks: services that take the metrics besides metrics.jsonl and TensorBoard: "wandb", "mlflow"; () = none.
      profile_steps: "a:b" writes a profiler trace of the steps a <= step < b to workdir/profile; "" = none.
      skip_nonfinite: how many batches whose loss or gradient is not finite may be skipped over the whole run; the
        update of such a batch is not applied. Beyond that the run ends.
      stall_timeout: seconds; a process that does no step for so long writes its stacks and ends; 0 = never. Compiling,
        evaluations and saves have ten times as long.
      compiler_options: options of XLA by which the step is compiled, beyond or instead of those of the platform
        (`engine.start.collectives.OVERLAP`); None leaves one to the compiler.
      preflight_timeout: seconds in which all processes must have come to each check before the first step.
    """

    steps: int
    log_every: int = 20
    eval_every: int = 0
    checkpoint_every: int = 200
    local_every: int = 0
    keep_last: int = 2
    keep_best: int = 1
    best_metric: str = ""
    best_mode: str = "max"
    patience: int = 0
    unmasked_steps: int = 0
    sinks: tuple[str, ...] = ()
    profile_steps: str = ""
    skip_nonfinite: int = 0
    stall_timeout: float = 600.0
    compiler_options: dict[str, bool | int | float | str | None] = dataclasses.field(default_factory=dict)
    preflight_timeout: float = 300.0

    def __post_init__(self):
        for field, least in _LEAST.items():
            value = getattr(self, field)
            if value < least:
                raise UserError(f"config.train.{field} must be at least {least}, got {value}")
        if self.unmasked_steps > self.steps:
            raise UserError(
                f"config.train.unmasked_steps={self.unmasked_steps} must be at most config.train.steps={self.steps}"
            )
        for name in self.sinks:
            if name not in SINKS:
                raise unknown("value in config.train.sinks:", name, SINKS)
        if self.best_mode not in ("max", "min"):
            raise UserError(f"config.train.best_mode must be 'max' or 'min', got {self.best_mode!r}")
        if self.patience and not self.best_metric:
            raise UserError(
                f"config.train.patience={self.patience} counts evaluations without a better best_metric; set "
                "config.train.best_metric to the name of an evaluation result"
            )
        self.profile_range()

    def profile_range(self) -> tuple[int, int] | None:
        """Return (first step, step after the last) to profile, or None."""
        if not self.profile_steps:
            return None
        match = re.fullmatch(r"(\d+):(\d+)", self.profile_steps)
        if not match or int(match[1]) >= int(match[2]):
            raise UserError(
                f"config.train.profile_steps must be 'a:b' with a < b (steps a to b-1), got {self.profile_steps!r}"
            )
        return int(match[1]), int(match[2])


_LEAST = {
    "steps": 1,
    "log_every": 1,
    "eval_every": 0,
    "checkpoint_every": 1,
    "local_every": 0,
    "keep_last": 1,
    "keep_best": 0,
    "patience": 0,
    "unmasked_steps": 0,
    "skip_nonfinite": 0,
    "stall_timeout": 0,
    "preflight_timeout": 1,
}
