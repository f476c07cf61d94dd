"""What a run takes over from its checkpoint, and in which ways the two show clips differently."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...base.errors import UserError
from ...base.section import section
from ...data.batches.mismatch import record_mismatches
from ...data.options import DataOptions, InputSpec
from ...engine.keeping.checkpoint import FOLDER, steps_in
from ...zoo.load import Located, locate
from ...zoo.merge import merged
from ...zoo.spec import ModelSpec
from ..examples.context import TaskContext

INHERITED = tuple(field.name for field in dataclasses.fields(InputSpec) if field.name != "decode")
"""Fields of `config.data` that take the checkpoint's value where the config leaves them open."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelChanges:
    """`config.model` of a fine-tuning run: what it changes of the checkpoint's towers, and how it computes them.

    Attributes:
      video: arguments of the video tower that differ from the checkpoint's (dropout, image_size, ...).
      text: the same of the text tower.
      audio: the same of the audio tower.
      remat: what the backward pass of every tower computes again, a policy of `models.layers.remat`.
      unroll: layers in one turn of the loop over them, in every tower; 0 = all, no loop.
      attention: what computes self-attention, as `config.model.attention` of `pretrain` (`zoo.spec.ModelOptions`).
    """

    video: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    text: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    audio: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    remat: str = "none"
    unroll: int = 1
    attention: str | Mapping[str, str] = "auto"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """The checkpoint with which a run begins.

    Attributes:
      spec: of its model.
      origin: `name` of its run or bundle, `step` (None for a bundle), `sha256` of its spec (hex): what identifies it,
        wherever it lies.
      located: where it lies; None on a resume, which does not read it.
    """

    spec: ModelSpec
    origin: dict[str, Any]
    located: Located | None = None

    def to_meta(self) -> dict[str, Any]:
        """Return JSON values from which `source_of` restores it; the tokenizer is in the run's own spec."""
        return {"origin": self.origin, "spec": self.spec.replace(tokenizer={}).to_dict()}


def source_of(init: str | Path, *, workdir: Path) -> tuple[Source, str]:
    """Find the checkpoint with which the run in `workdir` begins, or began.

    A run that has begun remembers it: the pretraining may have continued since, or moved, or be gone.

    Args:
      init: `--init`, a bundle, a workdir, a checkpoints folder or one checkpoint.
      workdir: of the fine-tuning run.

    Returns:
      The checkpoint, and a note for the user or "".

    Raises:
      UserError: no readable checkpoint, or one without a spec.
    """
    if not steps_in(workdir / FOLDER):
        return _found(locate(init)), ""
    own = locate(workdir)
    if "init" not in own.meta or "origin" not in own.meta["init"]:
        raise UserError(f"{workdir} holds checkpoints of another kind of run; choose another --workdir")
    kept = own.meta["init"]
    spec = ModelSpec.from_dict(kept["spec"], name=f"the spec in {own.path}")
    began = Source(spec=spec.replace(tokenizer=own.spec.tokenizer), origin=kept["origin"])
    try:
        given = _found(locate(init))
    except UserError:
        return began, f"{init} cannot be read; the run is resumed from its own checkpoints, which have all they need"
    assert given.located is not None
    newest = given.located.path != Path(init).absolute()  # of a run that may have continued, not one checkpoint
    same_step = newest or given.origin["step"] == began.origin["step"]
    return (began, "") if same_step and given.origin["sha256"] == began.origin["sha256"] else (given, "")


def _found(located: Located) -> Source:
    located = merged(located)  # a run updates plain weights
    folder = located.path.parent if located.meta else located.path
    name = folder.parent.name if folder.name == FOLDER else folder.name
    text = json.dumps(located.spec.to_dict(), sort_keys=True)
    origin = {"name": name, "step": located.meta.get("step"), "sha256": hashlib.sha256(text.encode()).hexdigest()}
    return Source(spec=located.spec, origin=origin, located=located)


def complete(config: Mapping[str, Any], *, source: Source) -> dict[str, Any]:
    """Return the config of the run: fields of the input that it leaves open come from the checkpoint.

    Args:
      config: the experiment; fields of `data` and `model` may be None or absent.
      source: the checkpoint; its identity becomes the section `init`, so that a workdir belongs to one.
    """
    data = _without_none(config.get("data") or {})
    own = {name: getattr(source.spec.input, name) for name in INHERITED if name not in data}
    if data.get("mixture"):
        raise UserError(
            "config.data.mixture: fine-tuning trains on one prepared folder; set config.data.dir (--data DIR) and "
            "leave the mixture out"
        )
    if not data.get("dir"):
        raise UserError(
            "config.data.dir is empty; give the prepared folder to train on (--data DIR). It is not taken from the "
            "checkpoint"
        )
    return {**config, "data": data | own, "model": _without_none(config.get("model") or {}), "init": source.origin}


def run_spec(
    source: Source, *, model: ModelChanges, data: DataOptions, prepare: Mapping[str, Any], seed: int
) -> ModelSpec:
    """Return the checkpoint's towers with the run's changes, and the run's input; no heads yet.

    Args:
      source: the checkpoint.
      model: `config.model`.
      data: `config.data`.
      prepare: options of the prepared data set (`prepare.json`).
      seed: of the run.

    Raises:
      UserError: a change of a tower that the checkpoint lacks.
    """
    towers = {side: dict(arguments) for side, arguments in source.spec.towers.items()}
    for side in ("video", "text", "audio"):
        changes = dict(getattr(model, side))
        if changes and side not in towers:
            raise UserError(
                f"config.model.{side} changes a tower that the checkpoint lacks (it has: {', '.join(towers)})"
            )
        if side in towers:
            towers[side] = _changed(towers[side], by=changes)
    return ModelSpec(
        towers=towers,
        input=data.input.as_prepared(prepare),
        tokenizer=source.spec.tokenizer,
        origin={"made_by": "finetune", "init": source.origin, "seed": seed},
    )


def ask_checkpoint(task: Any, *, source: Source, context: TaskContext, workdir: Path) -> None:
    """Let a task that continues the head of the checkpoint ask the checkpoint about its clips, once."""
    from ...encode.predict.predictor import Predictor
    from ...zoo.load import load_model
    from ..kinds.incremental import FILE

    ask = getattr(task, "ask_checkpoint", None)
    if ask is None:
        return

    def predictor() -> Predictor:
        if source.located is None:
            raise UserError(
                f"{workdir / FILE} is missing or of other clips, and a resumed run no longer reads --init; start anew "
                "elsewhere"
            )
        frames = source.spec.input.num_frames
        if frames != context.data.input.num_frames:
            raise UserError(
                f"config.data.num_frames={context.data.input.num_frames}, but the classifier that is extended takes "
                f"{frames}; set it to that"
            )
        return Predictor(spec=source.spec, model=load_model(source.located), mesh=context.mesh)

    ask(predictor, file=workdir / FILE)


def model_changes(config: Mapping[str, Any]) -> ModelChanges:
    """Read `config.model` of a completed config.

    Raises:
      UserError: a field that does not exist (the nearest is named).
    """
    return section(ModelChanges, config["model"], name="model")


def mismatches(
    data: DataOptions, *, source: Source, prepare: Mapping[str, Any], rows: Sequence[Mapping[str, Any]] = ()
) -> list[str]:
    """Return one sentence for each way in which the run shows clips unlike the pretraining, or trains unlike it tests.

    Args:
      data: `config.data`.
      source: the checkpoint.
      prepare: options of the prepared data set (`prepare.json`).
      rows: lines of clips.jsonl of the train split.
    """
    before = source.spec.input
    found = [
        f"config.data.{key}={getattr(data.input, key)!r}, but the checkpoint was pretrained with "
        f"{getattr(before, key)!r}"
        for key in ("num_frames", "eval_sampling", "pixel_mean", "pixel_std")
        if getattr(data.input, key) != getattr(before, key)
    ]
    sampling = data.augment.train_sampling
    if sampling and _family(sampling) != _family(data.input.eval_sampling):
        found.append(
            f"config.data.train_sampling={sampling!r} but eval_sampling={data.input.eval_sampling!r}: "
            "clips are trained and evaluated at different rates or spans"
        )
    return found + record_mismatches(
        trained=before.decode,
        prepared=prepare,
        rows=rows,
        num_frames=data.input.num_frames,
        sound=bool(data.input.audio_seconds),
    )


def _changed(tower: Mapping[str, Any], *, by: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a tower with changes; sections such as `image` are changed field by field."""
    changed = dict(tower)
    for key, value in by.items():
        inner = changed.get(key)
        if isinstance(value, Mapping) and isinstance(inner, Mapping):
            changed[key] = _changed(inner, by=value)
        else:
            changed[key] = value
    return changed


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a section without the fields that are None, in its subsections too."""
    return {
        key: _without_none(value) if isinstance(value, Mapping) else value
        for key, value in values.items()
        if value is not None
    }


def _family(sampler: str) -> str:
    """Samplers of one family look at a clip alike: `uniform` and `uniform_jitter`, `dense(2)` and `middle`."""
    name = sampler.split("_")[0].split("(")[0]
    return "dense" if name in ("first", "middle") else name
