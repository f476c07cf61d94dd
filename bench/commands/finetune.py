"""`twinreel bench finetune`: cached features against encoding anew, and few trained parameters against all."""

import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...base.config import Config, load_config, with_overrides
from ...base.errors import UserError
from ...base.parser import Parser
from ...engine.start.allocator import keep_freed_memory_on_cpus

MODES = {
    "cached": ("task.train_towers=False", "task.cache_features=True"),
    "encoded": ("task.train_towers=False", "task.cache_features=False"),
    "lora": ("task.train_towers=False", "adapt.lora.rank=8"),
    "full": ("task.train_towers=True",),
}
"""What is compared -> overrides: the head on features computed once; on a frozen tower that encodes each batch; LoRA of
rank 8 in the attention; all parameters."""

DESCRIPTION = """Measure how fast a classifier trains: a head on cached features of a frozen tower, the same where the
tower encodes every batch, LoRA, and full tuning.

  twinreel bench finetune --init runs/demo/pretrain --data runs/demo/moving_shapes
  twinreel bench finetune --init models/clip --data data/few --config demo_classify:linear --batches 50 --json

Each runs the batches and the compiled step of `finetune`; clips/s are those of input and step together, the epoch is
what follows for the train clips. The cached features are computed first; how long that took is printed, and after how
many epochs it has paid for itself. Memory is what the compiler plans for a step, parameters and optimizer included."""


def main(argv: list[str]) -> int:
    """Run the verb."""
    parser = Parser(verb="bench finetune", description=DESCRIPTION)
    parser.add_argument("--init", required=True, help="the model to begin with: a bundle, a workdir or a checkpoint")
    parser.add_argument("--data", required=True, help="prepared data set with labels")
    parser.add_argument(
        "--config", default="demo_classify", help="a config of the task classify (default: %(default)s)"
    )
    parser.add_argument("--batches", type=int, default=20, help="batches to time of each, after two for warm-up")
    parser.add_json()
    args, overrides = parser.parse(argv)
    if args.batches < 1:
        raise UserError(f"--batches must be at least 1, got {args.batches}")
    keep_freed_memory_on_cpus()  # as `finetune`, before any library starts threads
    config = load_config(args.config, overrides=[*overrides, f"data.dir={args.data}"])
    result = bench_finetune(config, init=Path(args.init), batches=args.batches)
    print(json.dumps(result)) if args.json else _print_table(result)
    return 0


def bench_finetune(config: Config, *, init: Path, batches: int) -> dict[str, Any]:
    """Time batches of each of `MODES`.

    Args:
      config: as for `finetune`, of a task on frozen towers.
      init: the model to begin with.
      batches: how many to time of each.

    Returns:
      JSON values: `train_clips`, `batch_size`, `caching_s` (computing the features of the train clips), `speedup`
      (epochs of "cached" relative to "encoded"), `paid_after_epochs` (epochs after which caching has cost less than
      encoding anew), and `modes`: name -> `clips_per_s` and `epoch_s` of input and step together, `step_ms` of the step
      alone (median), `trained` and `parameters`, `peak_bytes` per device as the compiler plans it, and `state_bytes`.

    Raises:
      UserError: a config of another task, or one that draws clips at random, so that features cannot be cached.
    """
    import jax

    from ...finetune.tasks import check_config

    check_config(config.to_dict())
    with tempfile.TemporaryDirectory(prefix="bench-finetune-") as folder:
        modes, caching_s, clips = {}, 0.0, 0
        for name, overrides in MODES.items():
            run = _Run(with_overrides(config, list(overrides)), init=init, folder=Path(folder))
            if name == "cached":
                caching_s, clips = run.cache(), len(run.task.trained_on())
            modes[name] = run.measure(batches=batches)
            modes[name]["epoch_s"] = clips / modes[name]["clips_per_s"]
    saved = modes["encoded"]["epoch_s"] - modes["cached"]["epoch_s"]
    return {
        "device": jax.devices()[0].device_kind,
        "devices": len(jax.devices()),
        "train_clips": clips,
        "batch_size": config.data.batch_size,
        "caching_s": caching_s,
        "speedup": modes["encoded"]["epoch_s"] / modes["cached"]["epoch_s"],
        "paid_after_epochs": caching_s / saved if saved > 0 else None,
        "modes": modes,
    }


class _Run:
    """A task as `finetune` opens it, with its batches and its compiled step."""

    def __init__(self, config: Config, *, init: Path, folder: Path):
        from ...finetune.commands.finetune import Weights, open_task, settle

        self._folder = folder
        where = {"init": init, "workdir": folder / "run", "say": _silent}
        source, whole, self._context, self.task = open_task(config.to_dict(), **where)
        self._config = settle(whole, task=self.task)
        self._weights = Weights(source, task=self.task, workdir=folder / "run", say=_silent)

    def cache(self) -> float:
        """Compute the features of the train clips; return the seconds."""
        if not (self.task.objective.frozen and self.task.feed.trains_as_evaluated):
            raise UserError(
                "config.data draws clips at random (train_sampling, train_video), so that their features cannot be "
                "cached; set both to ''"
            )
        start = time.perf_counter()
        how = {"model": self._weights.model, "folder": self._folder / "features"}
        self.task.feed.cache(train=self.task.trained_on(), evaluated=[], **how)
        return time.perf_counter() - start

    def measure(self, *, batches: int) -> dict[str, Any]:
        """Time batches from the input through the step, and the step by itself."""
        import jax

        from ...base.section import section
        from ...cost.step import step_cost
        from ...engine.loop.batches import Prefetcher
        from ...engine.optimizer.optimizer import make_optimizer
        from ...engine.step.state import StateBuilder
        from ...engine.step.step import stop_flags, trace_step

        context, steps = self._context, self._config["train"]["steps"]
        optimizer = section(make_optimizer, self._config["optimizer"], name="optimizer", steps=steps)
        given = {"objective": self.task.objective, "optimizer": optimizer, "seed": self._config["seed"]}
        builder = StateBuilder(mesh=context.mesh, **given)
        with jax.set_mesh(context.mesh), Prefetcher(self._endless(), mesh=context.mesh, start_step=0) as stream:
            batch, go_on = stream.peek(), stop_flags(context.mesh)[False]
            traced = trace_step(batch, builder=builder)
            compiled = traced.lower().compile()
            cost = step_cost(traced.jaxpr, compiled=compiled, devices=context.mesh.size)
            state, times = builder.init(initialize=self._weights.fill), []
            for _ in range(2):
                state, outputs = compiled(state, stream.next(), go_on)
            jax.block_until_ready(outputs)
            start = time.perf_counter()
            for _ in range(batches):
                state, outputs = compiled(state, stream.next(), go_on)
            jax.block_until_ready(outputs)
            whole = time.perf_counter() - start
            batch = stream.next()
            for _ in range(min(batches, 10)):
                begin = time.perf_counter()
                state, outputs = compiled(state, batch, go_on)
                jax.block_until_ready(outputs)
                times.append(time.perf_counter() - begin)
        counts = {row.part: row for row in builder.counts}["total"]
        return {
            "clips_per_s": batches * context.data.feed.batch_size / whole,
            "step_ms": 1e3 * statistics.median(times),
            "trained": counts.trained,
            "parameters": counts.trained + counts.frozen,
            "peak_bytes": cost.peak_bytes,
            "state_bytes": sum(x.nbytes for x in jax.tree.leaves(state)),
        }

    def _endless(self) -> Iterator[dict[str, np.ndarray]]:
        return self.task.batches(0)


def _silent(what: Any) -> None:
    del what


def _print_table(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"fine-tuning on {result['devices']} x {result['device']}", title_justify="left")
    for name in ("", "clips/s", "epoch, s", "step, ms", "trained", "state, MB", "peak, MB"):
        table.add_column(name, justify="right" if name else "left")
    for name, one in result["modes"].items():
        peak = "unknown" if one["peak_bytes"] is None else f"{one['peak_bytes'] / 1e6:,.1f}"
        rates = (f"{one['clips_per_s']:,.0f}", f"{one['epoch_s']:,.2f}", f"{one['step_ms']:,.1f}")
        table.add_row(name, *rates, f"{one['trained']:,}", f"{one['state_bytes'] / 1e6:,.1f}", peak)
    console = Console()
    console.print(table)
    after = result["paid_after_epochs"]
    paid = "never" if after is None else f"after {after:.1f} epochs"
    console.print(
        f"{result['train_clips']:,} train clips, batches of {result['batch_size']}; an epoch on cached features is "
        f"{result['speedup']:.1f} times as fast as encoding anew; computing them took {result['caching_s']:.1f} s and "
        f"has paid for itself {paid}",
        soft_wrap=True,
        highlight=False,
    )
