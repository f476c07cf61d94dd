"""The two stages of a generator's training, each a run of `engine.loop.train` in a workdir of its own."""

import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...base.config import Config, with_overrides
from ...base.errors import UserError
from ...engine.keeping.checkpoint import FOLDER, read_params, steps_in
from .begin import META, VALIDATION, Begun, begin

if TYPE_CHECKING:
    from flax import nnx

    from ...engine.loop.evaluation import Evaluation
    from ...engine.loop.train import TrainResult

FIRST = "config.first_stage"
AUTOENCODER = Path("stages") / "autoencoder"
"""Workdir of the first stage, below that of the run."""
_FIRST_SECTIONS = ("data", "optimizer", "train", "mesh", "sharding")
_MEASURED = 512  # clips that the statistics of the latents are measured on


def train_generator(
    config: Config, *, workdir: Path, resume_step: int | None = None, overwrite_config: bool = False
) -> "tuple[TrainResult, Path]":
    """Train a generator: the autoencoder first, then the flow over its latents; resume what `workdir` holds.

    Args:
      config: sections data, autoencoder, condition, flow, loss, optimizer, mesh and train, and seed; `first_stage`
        lists what differs in the first stage, such as `("train.steps=800", "data.num_frames=1")`.
      workdir: folder of the run.
      resume_step: go back to the checkpoint of this step, of the second stage.
      overwrite_config: continue in workdirs of another config or other data.

    Returns:
      The result of the last stage that was entered, and its workdir.

    Raises:
      UserError: a fault in the config or the data, before anything is computed.
    """
    from ...engine.loop.lock import writing_alone
    from ...engine.loop.options import TrainOptions
    from ...engine.start.preflight import on_all

    first, second = stages(config)
    limit_s = _section_field(TrainOptions, second, field="preflight_timeout")
    with writing_alone(workdir, timeout_s=limit_s, say=say):  # a second start is refused before it reads any data
        begun = on_all(
            "data", lambda: begin(second, workdir=workdir), timeout_s=limit_s, same=lambda made: _digest(made)
        )
        options = {"overwrite_config": overwrite_config}
        if not steps_in(workdir / FOLDER):
            say("stage 1 of 2: the autoencoder of frames")
            result = _first_stage(first, begun, workdir=workdir / AUTOENCODER, of=second, **options)
            if result.reason == "terminated":
                return result, workdir / AUTOENCODER
            say("stage 2 of 2: the flow over its latents")
        return _second_stage(second, begun, workdir=workdir, resume_step=resume_step, **options), workdir


def stages(config: Config) -> tuple[Config, Config]:
    """Return the configs of both stages.

    Raises:
      UserError: `config.first_stage` is no list of overrides, or one of them does not fit.
    """
    given = config.get("first_stage")
    if given is None or isinstance(given, str) or not all(isinstance(item, str) for item in given):
        raise UserError(
            f"{FIRST} is {given!r}; wanted a list of overrides for the autoencoder's run, such as "
            "('train.steps=800', 'data.num_frames=1', 'data.batch_size=64')"
        )
    for item in given:
        if item.removeprefix("--config.").split(".")[0] not in _FIRST_SECTIONS:
            raise UserError(
                f"{FIRST}: {item!r} changes none of the sections {', '.join(_FIRST_SECTIONS)}; set it for both"
            )
    try:
        first = with_overrides(config, tuple(given))
    except UserError as error:
        raise UserError(f"{FIRST}: {error}") from error
    with first.unlocked():
        for name in ("first_stage", "condition", "flow"):  # what it does not depend on may change afterwards
            if name in first:
                del first[name]
    return first, config


def _first_stage(config: Config, begun: Begun, *, workdir: Path, of: Config, overwrite_config: bool) -> "TrainResult":
    """Train the autoencoder as `config` says, which is `of` with the changes of the first stage."""
    from ...data.batches.identity import contents
    from ...engine.loop.evaluation import Evaluation
    from ...engine.loop.train import train
    from .autoencoder import AutoencoderObjective
    from .measure import mean_of_rows, painted

    usual = of.data.to_dict()
    changes = {name: value for name, value in config.data.to_dict().items() if value != usual.get(name)}
    begun = begun.of_frames(**changes)

    def measure(model: "nnx.Module", step: int) -> dict[str, float]:
        del step
        size = begun.data.feed.batch_size
        return mean_of_rows(model, batches=begun.validation, batch_size=size, function=painted)

    evaluations = [Evaluation(name=VALIDATION, run=measure, results=("psnr",))] if begun.has_validation else []
    try:
        return train(
            objective=AutoencoderObjective(begun.spec, options=begun.loss),
            batches=lambda step: _said(begun.batches(step, seed=config.seed)),
            workdir=workdir,
            config=config,
            meta={"objective": "autoencoder", META: begun.spec.to_dict()},
            evaluations=evaluations,
            identity=contents(begun.data.feed),
            overwrite_config=overwrite_config,
            readable=lambda: _read_ends(begun),
        )
    except UserError as error:
        if type(error) is not UserError:  # a divergence, a lost lock: they say what they are
            raise
        raise UserError(f"the autoencoder's stage, {FIRST}: {error}") from error


def _second_stage(
    config: Config, begun: Begun, *, workdir: Path, resume_step: int | None, overwrite_config: bool
) -> "TrainResult":
    from ...data.batches.identity import contents
    from ...engine.loop.train import train
    from ...engine.loop.workdir import checkpoint_content
    from .flow import FlowObjective

    identity = contents(begun.data.feed)
    if begun.tower is not None:
        identity |= {"condition.source": checkpoint_content(begun.tower.path)}
    return train(
        objective=FlowObjective(begun.spec, options=begun.loss, clips=begun.clips),
        batches=lambda step: _said(begun.batches(step, seed=config.seed)),
        workdir=workdir,
        config=config,
        meta={"objective": "rectified flow", META: begun.spec.to_dict(), "data": begun.about_data()},
        evaluations=_flow_evaluations(begun),
        initialize=lambda model: fill_generator(model, begun=begun, stage=workdir / AUTOENCODER),
        identity=identity,
        resume_step=resume_step,
        overwrite_config=overwrite_config,
        readable=lambda: _read_ends(begun),
    )


def _flow_evaluations(begun: Begun) -> "list[Evaluation]":
    from ...engine.loop.evaluation import Evaluation
    from .measure import flow_error, mean_of_rows

    def measure(model: "nnx.Module", step: int) -> dict[str, float]:
        del step
        size = begun.data.feed.batch_size
        return mean_of_rows(model, batches=begun.validation, batch_size=size, function=flow_error)

    found = Evaluation(name=VALIDATION, run=measure, results=("velocity_error",))
    return [found] if begun.has_validation else []


def fill_generator(model: "nnx.Module", *, begun: Begun, stage: Path) -> None:
    """Fill the parts of a fresh generator that are not trained: autoencoder, statistics of its latents, tower.

    Args:
      model: the generator.
      begun: the run.
      stage: workdir of the autoencoder's run.
    """
    import jax
    from rich.console import Console

    from ...engine.keeping.transfer import fill_planned, plan_transfer, shapes
    from ...engine.remote.place import url_of
    from .measure import latent_statistics

    # Of several processes none has a whole copy of what they have just saved behind a URL.
    place = stage if jax.process_count() == 1 else url_of(stage) or stage
    inner = {
        path.removeprefix("autoencoder/"): value
        for path, value in read_params(place).items()
        if path.startswith("autoencoder/")
    }
    options = begun.spec.autoencoder_options
    found = latent_statistics(inner, options=options, videos=_videos(begun))
    found |= {f"autoencoder/{path}": value for path, value in inner.items()}
    parts = ["autoencoder/.*", "latent_(mean|std)"]
    if begun.tower is not None:
        found |= {f"condition/tower/{path}": value for path, value in begun.tower.params().items()}
        parts.append("condition/tower/.*")
    plan = plan_transfer(found, target=shapes(model), parts=parts, name=str(stage), flag=FIRST)
    if jax.process_index() == 0:
        Console(stderr=True, soft_wrap=True, highlight=False).print(plan.table())
    fill_planned(model, plan=plan)


def _videos(begun: Begun) -> Iterator[np.ndarray]:
    """Yield training clips, evenly spread, as evaluation shows them, the same on all processes."""
    from ...data.batches.pipeline import eval_batches

    feed = begun.data.feed
    clips = begun.records.rows(feed.train_split)
    given = {"tokenizer": begun.tokenizer, "split": feed.train_split, "records": begun.records, "batch_size": 16}
    only = np.unique(np.linspace(0, len(clips) - 1, min(len(clips), _MEASURED)).astype(np.int64))
    for batch in eval_batches(begun.data, only=only, **given):
        if batch["valid"].any():
            yield batch["video"][batch["valid"]]


def _said(batches: Any) -> Any:
    """Say how the records of a run are ordered."""
    say(batches.order)
    return batches


def _read_ends(begun: Begun) -> None:
    from ...data.batches.ends import read_ends

    read_ends(begun.data)


def _digest(begun: Begun) -> str:
    return json.dumps([begun.spec.to_dict(), dataclasses.asdict(begun.loss)], sort_keys=True, default=str)


def _section_field(options: Any, config: Config, *, field: str) -> Any:
    from ...base.section import field_of

    return field_of(options, config.train, field=field)


def say(text: str) -> None:
    """Print a line on standard error, on the first process."""
    import jax

    if jax.process_index() == 0:
        print(text, file=sys.stderr)


__all__: Sequence[str] = ("AUTOENCODER", "fill_generator", "stages", "train_generator")
