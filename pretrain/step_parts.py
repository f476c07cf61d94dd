"""What a config's train step is made of, for `plan` and the benchmarks: shapes only. No tensorflow."""

import dataclasses
from collections.abc import Hashable, Sequence
from typing import Any

from ..base.config import Config
from ..base.section import section
from .synthetic import Vocabulary, batch_like, vocabulary


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepParts:
    """What a step is made of.

    Attributes:
      mesh: of the devices.
      builder: shapes and shardings of the state; it has objective and optimizer.
      batch: a global batch, of shapes with shardings.
      vocabulary: of the text tower.
      phases: each phase that occurs in the run -> how many of its steps are in it (`engine.step.phases`).
      compiler_options: with which it is compiled (`engine.start.collectives`).
    """

    mesh: Any
    builder: Any
    batch: dict[str, Any]
    vocabulary: Vocabulary
    phases: dict[Hashable | None, int]
    compiler_options: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def ways(self) -> int:
        """Over how many devices the batch is split."""
        return self.mesh.shape["replica"] * self.mesh.shape["fsdp"]

    @property
    def standing_bytes(self) -> int:
        """Bytes on one device of state, gradients and batch: what is there however little is kept of activations."""
        from ..cost.memory import device_bytes

        state = self.builder.abstract
        return device_bytes(state) + device_bytes(state.params) + device_bytes(self.batch)

    def trace(self, *, phase: Hashable | None = None) -> Any:
        """Trace the step (`jax.stages.Traced`) for a phase; None = that of step 0."""
        from ..engine.step.step import trace_step

        return trace_step(self.batch, builder=self.builder, phase=phase, compiler_options=self.compiler_options)


def make_parts(config: Config, *, devices: Sequence[Any] | None = None) -> StepParts:
    """Build what the step that `pretrain` runs is made of, on these devices; None = all devices of jax.

    Raises:
      UserError: a mistake in the config, or sizes that do not divide.
    """
    import jax

    from ..data.options import DataOptions
    from ..engine.loop.options import TrainOptions
    from ..engine.loop.train import create_rules
    from ..engine.optimizer.optimizer import make_optimizer
    from ..engine.sharding.mesh import batch_sharding, check_batch_size, device_dtype, make_mesh
    from ..engine.start.collectives import compiler_options
    from ..engine.step.phases import count_phases
    from ..engine.step.state import StateBuilder
    from .objective import make_objective

    data = DataOptions.of(config.data)
    train = section(TrainOptions, config.train, name="train")
    steps = train.steps
    words = vocabulary(data, text=config.model.get("text"))
    objective = make_objective(config, data=data, vocab_size=words.size)
    optimizer = section(make_optimizer, config.optimizer, name="optimizer", steps=steps)
    mesh = section(make_mesh, config.mesh, name="mesh", devices=devices)
    check_batch_size(data.feed.batch_size, mesh=mesh)
    with jax.set_mesh(mesh):
        builder = StateBuilder(
            objective=objective, optimizer=optimizer, mesh=mesh, seed=config.seed, rules=create_rules(config)
        )
    rows = batch_sharding(mesh)
    batch = {
        key: jax.ShapeDtypeStruct((data.feed.batch_size, *value.shape[1:]), device_dtype(value.dtype), sharding=rows)
        for key, value in batch_like(config, rows=1).items()
    }
    return StepParts(
        mesh=mesh,
        builder=builder,
        batch=batch,
        vocabulary=words,
        phases=count_phases(objective, steps=range(steps)),
        compiler_options=compiler_options(mesh.devices.flat[0].platform, chosen=train.compiler_options),
    )
