"""`twinreel pretrain`: train a video tower and a text tower with InfoNCE on a prepared data set."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.config import Config, load_config
from ..base.parser import Parser
from ..base.section import section
from ..engine.keeping.init_from import InitFrom
from ..engine.remote.place import shown, workdir_of
from ..engine.start.allocator import keep_freed_memory_on_cpus
from ..engine.start.flags import join_run
from .begin import CURRICULUM, Begun, begin, curriculum, fed, has_parameters, read_params
from .check_records import check_sound
from .evaluations import to_run

if TYPE_CHECKING:
    from ..data.batches.texts import Texts
    from ..engine.loop.train import TrainResult
    from ..zoo.spec import ModelSpec

DESCRIPTION = """Train a video tower and a text tower with InfoNCE on a prepared data set.

  twinreel pretrain --config few_clips --workdir runs/mine --data data/mine

The workdir holds everything of a run: config.json, tokenizer.meta.json, metrics.jsonl, tensorboard/ and checkpoints/.
Stop it in any way (Ctrl-C, SIGTERM, kill -9, a power cut); running the same command again resumes it from its newest
checkpoint, with the same batches. A workdir that holds a run of another config is refused, with the difference.
--workdir s3://bucket/runs/mine (or gs://) keeps all of this in an object store (docs/scale.md, "Workdirs in object
stores"); the run works in a local folder, which TWINREEL_STAGE may name.

--init begins a new run with the parameters of another checkpoint, of a bundle or of public weights (a folder, or
hf:ORGANISATION/NAME; see `twinreel convert --list`), and with their tokenizer; a table lists the parameters that were
loaded, resized, new or unused. A resumed run ignores it. A locked video tower and a new text tower (LiT):

  twinreel pretrain --config mine --workdir runs/lit --init runs/masked --init_parts '^video/.*' \\
      --config.optimizer.frozen='("^video/",)'

config.adapt trains few parameters of the towers, and what lies outside of them: --config.adapt.lora.rank=8 adds
low-rank updates to the attention layers; dora, adapters, prompts and bitfit are the other kinds (docs/finetuning.md,
"Training few parameters"). `twinreel merge` turns the result into plain weights.

The section evaluations of a config names what is measured during training: retrieval, zero-shot classification or a
benchmark, each with data, schedule and subset of its own. --config.evaluations={} turns all off.

A config may list stages that come first, such as c.curriculum = [["data.num_frames=1", "train.steps=2000"]]: each is a
run of its own below WORKDIR/stages, and begins with the parameters of the one before.

`twinreel launch` starts several processes of it, here or on a cluster. By hand: the same command on each host, with
--coordinator HOST:PORT --num_processes P --process_id p (TPU pods and SLURM: --distributed alone)."""


def main(argv: list[str]) -> int:
    """Run the verb."""
    parser = Parser(verb="pretrain", description=DESCRIPTION)
    parser.add_config()
    parser.add_run()
    parser.add_argument("--init", default="", help="begin with the parameters of this model")
    parser.add_argument(
        "--init_parts",
        nargs="+",
        metavar="REGEX",
        help="regexes over whole paths: what comes from it; default all that it has",
    )
    parser.add_distributed()
    args, overrides = parser.parse(argv)
    keep_freed_memory_on_cpus()  # before any library starts threads
    if args.data:
        overrides.append(f"data.dir={args.data}")
    workdir = workdir_of(args.workdir)
    config = load_config(args.config, overrides=overrides)
    workdir = workdir_of(args.workdir, process=join_run(args))
    parts = tuple(args.init_parts) if args.init_parts else None
    how = {"parts": parts, "read": read_params, "adapts": True}
    start = InitFrom(checkpoint=Path(args.init), **how) if args.init else None
    result, place = pretrain_stages(
        config, workdir=workdir, start=start, resume_step=args.resume_step, overwrite_config=args.overwrite_config
    )
    print(f"step {result.step}: {result.reason}; checkpoint in {shown(place)}/checkpoints", file=sys.stderr)
    return args.stopped_status if result.reason == "terminated" else 0


def pretrain_stages(
    config: Config,
    *,
    workdir: Path,
    start: InitFrom | None = None,
    resume_step: int | None = None,
    overwrite_config: bool = False,
) -> "tuple[TrainResult, Path]":
    """`pretrain` after the stages of `config.curriculum`, each a run of its own that begins with the one before.

    A stage is a list of overrides of the config: frames from few to many, small pictures first, images before films.
    They lie in `workdir/stages/1`, `2` ...; an interrupted one is resumed, finished ones are not entered again.

    Args:
      config: the experiment, which is the last stage.
      workdir: folder of the run.
      start: of the first stage.
      resume_step: of the last stage.
      overwrite_config: continue in workdirs of another config or other data.

    Returns:
      The result of the last stage that was entered, and its workdir.
    """
    stages, options = curriculum(config), {"overwrite_config": overwrite_config}
    for number, stage in enumerate([] if has_parameters(workdir) else stages, start=1):
        place = workdir / "stages" / str(number)
        warn_of_stage(number, stages=len(stages))
        result = pretrain(stage, workdir=place, start=start, **options)
        if result.reason == "terminated":
            return result, place
        start = InitFrom(checkpoint=place, read=read_params, flag=CURRICULUM, parts_flag="")
    return pretrain(config, workdir=workdir, start=start, resume_step=resume_step, **options), workdir


def pretrain(
    config: Config,
    *,
    workdir: Path,
    start: InitFrom | None = None,
    resume_step: int | None = None,
    overwrite_config: bool = False,
) -> "TrainResult":
    """Train a dual tower as `config` says; resume if `workdir` holds an unfinished run of it.

    Args:
      config: sections data, model, loss, optimizer, mesh, train and evaluations, and seed.
      workdir: folder of the run.
      start: the checkpoint whose parameters a new run begins with; not looked at on a resume.
      resume_step: go back to the checkpoint of this step.
      overwrite_config: continue although the workdir was started with another config or other data.

    Returns:
      The engine's result: the trained model, its step and why the loop ended.
    """
    from ..engine.loop.lock import writing_alone
    from ..engine.loop.options import TrainOptions
    from ..engine.loop.train import train
    from ..engine.start.preflight import on_all
    from .objective import make_objective
    from .teacher import make_teacher, sha256_of, taught, teacher_content

    limit_s = section(TrainOptions, config.train, name="train").preflight_timeout
    with writing_alone(workdir, timeout_s=limit_s, say=warn):  # a second start is refused before it reads any data
        begun = on_all(
            "data", lambda: begin(config, workdir=workdir, start=start), timeout_s=limit_s, same=Begun.to_json
        )
        data, tokenizer = begun.data, begun.tokenizer
        words = {"vocab_size": tokenizer.vocab_size, "special_ids": tokenizer.special_ids}
        objective = make_objective(begun.config, data=data, **words)
        spec = objective.spec.replace(tokenizer=tokenizer.to_meta(), origin=run_origin(begun))
        warn(objective.check_batch_size(data.feed.batch_size))
        if "audio" in spec.towers and data.feed.dir and not data.feed.mixture:
            warn(check_sound(begun.records, split=data.feed.train_split))
        for note in (note for one in begun.evaluations for note in one.warnings):
            warn(note)
        known = {"spec": spec, "tokenizer": tokenizer}
        teacher = on_all("teacher", lambda: make_teacher(begun.config, **known), timeout_s=limit_s, same=sha256_of)
        return train(
            objective=objective,
            batches=lambda step: taught(stream(begun, step=step, spec=spec, workdir=workdir), teacher=teacher),
            workdir=workdir,
            config=config,
            meta=run_meta(begun, spec=spec),
            evaluations=to_run(begun.evaluations, spec=spec, tokenizer=tokenizer),
            initialize=None if begun.start is None else begun.start.fill,
            identity=begun.identity | teacher_content(teacher),
            resume_step=resume_step,
            overwrite_config=overwrite_config,
            readable=lambda: try_reading(begun, spec=spec),
        )


def run_origin(begun: Begun) -> dict[str, Any]:
    """Return where the model of a run comes from, for its spec."""
    return {"made_by": "pretrain", "seed": begun.config.seed, **begun.origin}


def run_meta(begun: Begun, *, spec: "ModelSpec") -> dict[str, Any]:
    """Return what the checkpoints of a run say of its model and data."""
    records, mixture = begun.records, sorted(begun.data.feed.mixture)
    return {
        "objective": "contrastive",
        "spec": spec.to_dict(),
        "data": {"prepare": records.options, "name": records.folder.name, "mixture": mixture},
    } | ({} if begun.start is None else {"init": begun.start.to_meta()})


def stream(begun: Begun, *, step: int, spec: "ModelSpec", workdir: Path) -> Any:
    """Return this process's batches from `step` on; what the run begins with is kept in `workdir`."""
    import jax

    from ..data.batches.pipeline import train_batches
    from .terms.captioning import caption_targets

    batches = train_batches(
        fed(begun.data, towers=spec.towers),
        targets=caption_targets(begun.data, spec=spec),
        tokenizer=begun.tokenizer,
        seed=begun.config.seed,
        start_step=step,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    if jax.process_index() == 0:
        begun.keep(workdir)
        print(batches.order, file=sys.stderr)
        say_truncated(batches.texts, context_length=begun.data.input.context_length)
    return batches


def try_reading(begun: Begun, *, spec: "ModelSpec") -> None:
    """Read first and last clips, of the training and of each evaluation; raises UserError where that fails."""
    from ..data.batches.ends import read_ends

    read_ends(begun.data)
    for one in begun.evaluations:
        one.try_reading(fed(begun.data, towers=spec.towers), tokenizer=begun.tokenizer)


def warn_of_stage(number: int, *, stages: int) -> None:
    """Say on standard error which stage begins, on the first process."""
    import jax

    if jax.process_index() == 0:
        print(f"stage {number} of {stages} before the run itself", file=sys.stderr)


def warn(text: str) -> None:
    """Print a warning on standard error, on the first process; nothing for ""."""
    import jax

    if text and jax.process_index() == 0:
        print(f"warning: {text}", file=sys.stderr)


def say_truncated(texts: "Texts", *, context_length: int) -> None:
    """Say on standard error how many texts the context cuts, and how long the longest is."""
    from ..data.text.lengths import truncation_note

    note = truncation_note(**texts.lengths._asdict(), context_length=context_length)
    if note:
        print(f"{note}; set config.data.context_length to keep more", file=sys.stderr)
