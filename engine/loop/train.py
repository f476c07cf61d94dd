"""The one train loop."""

import contextlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import jax
import ml_collections
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from ...base.config import flatten, to_json
from ...base.errors import UserError
from ...base.section import section
from ..keeping.checkpoint import FOLDER, newest_meta
from ..keeping.checkpoints import Checkpoints
from ..optimizer.optimizer import make_optimizer
from ..remote.session import Session, session_of
from ..sharding.mesh import check_batch_size, make_mesh
from ..sharding.rules import REPLICATED, Rules, make_rules
from ..sharding.table import is_split, sharding_text
from ..start.collectives import compiler_options
from ..start.preflight import Checks, on_all, preflight, same_programs
from ..start.processes import everywhere
from ..step.counts import counts_text, openings_text
from ..step.objective import Objective
from ..step.phases import PhasedSteps
from ..step.state import StateBuilder, TrainState
from ..step.step import Outputs, lower_step, stop_flags
from .batches import Prefetcher
from .evaluation import Evaluation, Evaluations, check_best_metric
from .goodput import FILE, Goodput
from .lock import writing_alone
from .metrics import History
from .options import TrainOptions
from .profile import Profile
from .run import Run, TrainingDiverged, TrainResult, complete_meta
from .signals import StopRequest
from .sinks import check_sinks, open_sinks
from .terminal import Terminal
from .watchdog import Watchdog
from .workdir import Identity, RunStart

__all__ = ["Objective", "TrainResult", "TrainingDiverged", "create_mesh", "create_rules", "train"]

TakeStep = Callable[[TrainState, int], tuple[TrainState, Outputs]]


def train(
    *,
    objective: Objective,
    batches: Callable[[int], Iterator[dict[str, np.ndarray]]],
    workdir: Path,
    config: ml_collections.ConfigDict,
    meta: dict[str, Any],
    evaluations: Sequence[Evaluation] = (),
    initialize: Callable[[nnx.Module], None] | None = None,
    identity: Identity | None = None,
    resume_step: int | None = None,
    overwrite_config: bool = False,
    readable: Callable[[], None] | None = None,
) -> TrainResult:
    """Train until config.train.steps, resuming what `workdir` holds of the run.

    Args:
      objective: the model and its loss.
      batches: number of a global batch -> endless iterator of this process's rows of it and of those after it (NumPy).
      workdir: folder of the run, one for all processes; or each process's stage, see `remote.place.workdir_of`.
      config: seed and the sections train (TrainOptions), optimizer, mesh and, where parameters are split, sharding.
      meta: JSON values that make the checkpoints self-contained (tokenizer, objective, ...).
      evaluations: what is measured during training and at the end, each by its own schedule.
      initialize: fills parameters of a fresh model in place, see `keeping.init_from`; not called on a resume.
      identity: the content of the places that the config names, the same at each start, see `workdir.Identity`.
      resume_step: go back to the checkpoint of this step; what came after it is dropped.
      overwrite_config: continue in a workdir that belongs to another config or to other data.
      readable: tries to read the first and last data; raises UserError or OSError where this process cannot.

    Raises:
      UserError: a fault in preflight or config, a workdir of another config, a misfit checkpoint, a failed save.
      TrainingDiverged: the loss or the gradient was not finite; the last good state is saved.
    """
    options, mesh = section(TrainOptions, config.train, name="train"), create_mesh(config)
    check_best_metric(evaluations, options=options)
    start = RunStart(workdir=workdir, config=config, identity=identity or {}, resume_step=resume_step)
    with contextlib.ExitStack() as stack:
        use = stack.enter_context
        use(jax.set_mesh(mesh))
        stop, watchdog = use(StopRequest()), use(Watchdog(workdir, timeout_s=options.stall_timeout))
        terminal = use(create_terminal(options))
        use(writing_alone(workdir, timeout_s=options.preflight_timeout, say=terminal.say))
        session, goodput = session_of(workdir), create_goodput(workdir)
        check_tiers(options, session=session)
        on_all("sinks", lambda: check_sinks(options.sinks if jax.process_index() == 0 else ()),
               timeout_s=options.preflight_timeout)  # fmt: skip
        terminal.changed(start.check(overwrite=overwrite_config))
        builder = create_builder(objective, config=config, steps=options.steps, mesh=mesh, terminal=terminal)
        checks = Checks(config=config, workdir=workdir, state=builder.abstract, readable=readable,
                        staged=session is not None)  # fmt: skip
        terminal.say(preflight(checks, timeout_s=options.preflight_timeout))
        checkpoints = use(create_checkpoints(workdir, options=options, builder=builder, terminal=terminal,
                                             session=session))  # fmt: skip
        state, step, saved = create_state(start, builder=builder, checkpoints=checkpoints, terminal=terminal,
                                          initialize=initialize)  # fmt: skip
        run = Run(options=options, builder=builder, checkpoints=checkpoints,
                  evaluations=Evaluations(evaluations, options=options, meta=saved), terminal=terminal,
                  watchdog=watchdog, stop=stop,
                  meta=complete_meta(meta, start=start, saved=saved, compiler=compiled_with(mesh, options=options)),
                  goodput=goodput,
                  position=start.position(saved, step=step))  # fmt: skip
        run.catch_up(state, step=step, history=lambda: create_history(run, start=start, step=step))
        take_step = None if run.over(step) else use(create_steps(batches, start=start, run=run, state=state))
        while take_step is not None and not run.over(step):
            state, outputs = take_step(state, step)
            step += 1
            run.between_steps(state, outputs=outputs, step=step)
        return run.result(state, step=step)


def create_mesh(config: ml_collections.ConfigDict) -> Mesh:
    """Build the mesh of section `mesh`; a config.data.batch_size that does not divide is refused before any reading."""
    mesh = section(make_mesh, config.mesh, name="mesh")
    batch_size = flatten(config).get("data.batch_size")
    if batch_size is not None:
        check_batch_size(batch_size, mesh=mesh)
    return mesh


def create_rules(config: ml_collections.ConfigDict) -> Rules:
    """Return the sharding rules of section `sharding`; without one every device holds all parameters."""
    return section(make_rules, config.sharding, name="sharding") if "sharding" in config else REPLICATED


def create_builder(
    objective: Objective, *, config: ml_collections.ConfigDict, steps: int, mesh: Mesh, terminal: Terminal
) -> StateBuilder:
    """Plan the state of the run; where parameters are split, frozen or opened later, tables show it."""
    optimizer, seed = section(make_optimizer, config.optimizer, name="optimizer", steps=steps), cast(int, config.seed)
    builder = StateBuilder(objective=objective, optimizer=optimizer, mesh=mesh, seed=seed, rules=create_rules(config))
    if is_split(builder.abstract):
        terminal.say(sharding_text(builder.abstract, mesh=mesh))
    if builder.frozen:
        terminal.say(counts_text(builder.counts))
    if builder.openings:
        terminal.say(openings_text(builder.openings))
    return builder


def create_terminal(options: TrainOptions) -> Terminal:
    """Return what shows the run to a person."""
    return Terminal(steps=options.steps, quiet=jax.process_index() != 0)


def create_checkpoints(
    workdir: Path, *, options: TrainOptions, builder: StateBuilder, terminal: Terminal, session: Session | None = None
) -> Checkpoints:
    """Open the checkpoints of a run; unreadable ones are named on the terminal."""
    return Checkpoints(
        workdir / FOLDER,
        abstract=builder.abstract,
        keep_last=options.keep_last,
        keep_best=options.keep_best,
        best_metric=options.best_metric,
        best_mode=options.best_mode,
        warn=lambda text: terminal.say(f"warning: {text}"),
        session=session,
    )


def check_tiers(options: TrainOptions, *, session: Session | None) -> None:
    """Refuse checkpoints on the local disk alone where all lie on one disk.

    Raises:
      UserError: config.train.local_every with a workdir that is a folder, or not below checkpoint_every.
    """
    if options.local_every and session is None:
        raise UserError(
            f"config.train.local_every={options.local_every} needs a workdir in an object store (s3:// or gs://); set "
            "config.train.checkpoint_every instead"
        )
    if options.local_every > options.checkpoint_every:
        raise UserError(
            f"config.train.local_every={options.local_every} must be at most config.train.checkpoint_every="
            f"{options.checkpoint_every}: checkpoints on the local disk are the more frequent ones"
        )


def create_state(
    start: RunStart,
    *,
    builder: StateBuilder,
    checkpoints: Checkpoints,
    terminal: Terminal,
    initialize: Callable[[nnx.Module], None] | None = None,
) -> tuple[TrainState, int, dict[str, Any]]:
    """Return (state, step, meta) of the checkpoint to resume from, or (fresh state, 0, {}); the former is announced."""
    back = start.step_to_go_back_to(newest_meta(checkpoints.folder))
    if back is not None:
        terminal.say(f"going back to step {back}; the metrics after it are dropped, later checkpoints are renamed")
    with terminal.working("building the model"):
        state, meta = checkpoints.restore(step=back) or (builder.init(initialize=initialize), {})
        step = int(state.step)
    if step:
        terminal.say(f"resuming from the checkpoint of step {step} in {checkpoints.folder.parent}")
    return state, step, meta


@contextlib.contextmanager
def create_steps(
    batches: Callable[[int], Iterator[dict[str, np.ndarray]]],
    *,
    state: TrainState,
    run: Run,
    start: RunStart,
) -> Iterator[TakeStep | None]:
    """Build what exists only if there are steps to do: the stream of batches, the compiled steps, history and profile.

    Nothing is left in the workdir before the step is compiled.

    Yields:
      A function (state, steps done) -> (state, outputs); None if a stop is requested before the first batch is there.
    """
    mesh, stop, position, workdir = run.builder.mesh, run.stop, run.position, start.workdir
    step, skipped = int(state.step), int(state.skipped)
    with contextlib.ExitStack() as stack:
        use = stack.enter_context
        stream = use(Prefetcher(batches(position.batch), mesh=mesh, start_step=step, offset=position.offset))
        with run.terminal.working("reading the first batch and compiling the step"):
            ready = everywhere(stream.ready(stop))
            compiled = (
                create_phases(stream.peek(), options=run.options, step=step, builder=run.builder) if ready else None
            )
        if compiled is None:
            yield None
            return
        flags = stop_flags(mesh)
        start.claim()
        run.goodput.started()
        history = use(create_history(run, start=start, step=step))
        use(run.begin(history, stream=stream, step=step, skipped=skipped))
        profile = use(Profile(workdir, options=run.options, say=run.terminal.say))

        def take(state: TrainState, step: int) -> tuple[TrainState, Outputs]:
            profile.before(step, settle=run.settle)
            with profile.step(step):
                return compiled.at(step)(state, stream.next(stop), flags[stop.requested])

        yield take


def create_phases(batch: dict[str, Any], *, options: TrainOptions, step: int, builder: StateBuilder) -> PhasedSteps:
    """Compile the step for each phase from `step` on; all processes must call it.

    Raises:
      UserError: the processes have lowered different programs, or do not come in time.
    """
    objective = builder.objective
    if options.unmasked_steps and not hasattr(objective, "phase"):
        raise UserError(
            f"config.train.unmasked_steps={options.unmasked_steps}, but this objective has no phase without masks; "
            "set it to 0"
        )

    def lower(phase: Hashable | None) -> jax.stages.Lowered:
        return lower_step(
            batch,
            builder=builder,
            phase=phase,
            skip_nonfinite=options.skip_nonfinite,
            compiler_options=compiled_with(builder.mesh, options=options),
        )

    def check(lowered: Sequence[jax.stages.Lowered]) -> None:
        if jax.process_count() > 1:
            same_programs([program.as_text() for program in lowered], timeout_s=options.preflight_timeout)

    return PhasedSteps(lower, objective=objective, steps=range(step, options.steps), check=check)


def compiled_with(mesh: Mesh, *, options: TrainOptions) -> dict[str, Any]:
    """Return the compiler options of the run's devices, see `start.collectives`."""
    return compiler_options(mesh.devices.flat[0].platform, chosen=options.compiler_options)


def create_goodput(workdir: Path) -> Goodput:
    """Continue the goodput of the run, on the first process only."""
    return Goodput(workdir / FILE if jax.process_index() == 0 else None)


def create_history(run: Run, *, start: RunStart, step: int) -> History:
    """Open metrics.jsonl, tensorboard/ and the sinks of config.train.sinks after `step`, on the first process only."""
    first, names = jax.process_index() == 0, run.options.sinks
    given: dict[str, Any] = {"workdir": start.workdir, "config": to_json(start.config), "say": run.terminal.say}
    return History(start.workdir, start_step=step, write=first, sinks=open_sinks(names, **given) if first else ())
