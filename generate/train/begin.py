"""What a run of `generate train` begins with: data, tokenizer, the condition's tower, and the spec of the model."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...base.config import Config
from ...base.errors import UserError
from ...base.section import section
from ...data.options import DataOptions, InputSpec
from ...data.text.tokenizer import Tokenizer, tokenizer_from_meta
from ...data.text.words import WordTokenizer
from ...engine.keeping.checkpoint import FOLDER, newest_meta
from ...zoo.spec import ModelSpec
from ..models.condition import TowerOptions, condition_options
from ..models.generator import GeneratorSpec
from .options import LossOptions

if TYPE_CHECKING:
    from ...data.batches.records import Records
    from ...zoo.load import Located

META = "generator"
"""Where the meta of a checkpoint holds the spec of a generator."""
VALIDATION = "val"
"""The split that is measured during training, if there is one."""
_SECTIONS = ("autoencoder", "condition", "flow", "loss", "data", "optimizer", "train", "mesh")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Begun:
    """What a run begins with.

    Attributes:
      spec: of the generator.
      data: `config.data`, completed by the input of the condition's tower.
      records: the prepared data set.
      tokenizer: of its captions.
      loss: `config.loss`.
      tower: where the condition's tower lies; None of a condition that is trained with the flow, and of a run that has
        the tower in its checkpoints while its source is gone.
      clips: share of the training rows that are conditioned on their clips.
      captioned: only clips with a caption take part.
    """

    spec: GeneratorSpec
    data: DataOptions
    records: "Records"
    tokenizer: Tokenizer
    loss: LossOptions
    tower: "Located | None"
    clips: float
    captioned: bool = True

    def batches(self, step: int, *, seed: int) -> Any:
        """Return this process's training batches from `step` on."""
        import jax

        from ...data.batches.pipeline import train_batches

        where: dict[str, Any] = {"process_index": jax.process_index(), "process_count": jax.process_count()}
        if not self.captioned:
            where["label_names"] = ()
        return train_batches(self.data, tokenizer=self.tokenizer, seed=seed, start_step=step, **where)

    def validation(self, batch_size: int) -> Iterator[dict[str, np.ndarray]]:
        """Return this process's batches of the validation split."""
        import jax

        from ...data.batches.pipeline import eval_batches

        where: dict[str, Any] = {"process_index": jax.process_index(), "process_count": jax.process_count()}
        if not self.captioned:
            where["label_names"] = ()
        given = {"tokenizer": self.tokenizer, "split": VALIDATION, "batch_size": batch_size, "records": self.records}
        return eval_batches(self.data, **given, **where)

    @property
    def has_validation(self) -> bool:
        """Whether there are clips to measure on during training."""
        return VALIDATION in self.records.splits

    def of_frames(self, **changes: Any) -> "Begun":
        """Return the same for the first stage, which reads no text: clips without a caption take part.

        Args:
          **changes: fields of `config.data` with other values there.
        """
        return dataclasses.replace(
            self, data=self.data.replace(**changes), tokenizer=WordTokenizer(("a",)), captioned=False
        )

    def about_data(self) -> dict[str, Any]:
        """Return what a checkpoint says of the data."""
        return {"prepare": self.records.options, "name": self.records.folder.resolve().name}


def begin(config: Config, *, workdir: Path) -> Begun:
    """Open the data, find the tower and describe the generator.

    Args:
      config: the experiment.
      workdir: of the run; one that has checkpoints knows its tokenizer.

    Raises:
      UserError: a section is missing or has a fault, data or a tower that cannot be read, or sizes that do not fit.
    """
    from ...data.batches.pipeline import make_tokenizer
    from ...data.batches.records import Records
    from ...encode.media.files import frames_graph

    for name in _SECTIONS:
        if name not in config:
            raise UserError(f"this config has no section {name!r}, so it trains no generator; take demo_generate")
    options = condition_options(config.condition.to_dict())
    known = newest_meta(workdir / FOLDER).get(META)
    located, tower = _tower(options, known=known)
    data = _data(config.data.to_dict(), tower=tower)
    records = Records(data.feed.dir, cache_dir=data.feed.cache_dir, cache_gb=data.feed.cache_gb)
    data = dataclasses.replace(data, input=data.input.as_prepared(records.options))
    if tower is not None:
        tokenizer = tokenizer_from_meta(dict(tower.tokenizer))
        condition: dict[str, Any] = {"kind": "tower", "spec": tower.to_dict()}
    else:
        tokenizer = tokenizer_from_meta(dict(known["tokenizer"])) if known else make_tokenizer(data)
        condition = {"kind": "text", **dataclasses.asdict(options), "vocab_size": tokenizer.vocab_size}
    shape = frames_graph(data.input).shape
    if len(shape) != 4 or shape[1] != shape[2]:
        raise UserError(f"config.data.eval_video={data.input.eval_video!r} must give one square view of a clip")
    spec = GeneratorSpec(
        input=data.input,
        size=shape[1],
        autoencoder=config.autoencoder.to_dict(),
        flow=config.flow.to_dict(),
        condition=condition,
        tokenizer=tokenizer.to_meta(),
        origin={"made_by": "generate", "seed": config.seed, "tower": "" if located is None else str(located.path)},
    )
    loss = section(LossOptions, config.loss, name="loss")
    clips = options.clips if isinstance(options, TowerOptions) else 0.0
    return Begun(spec=spec, data=data, records=records, tokenizer=tokenizer, loss=loss, tower=located, clips=clips)


def _tower(options: Any, *, known: Mapping[str, Any] | None) -> "tuple[Located | None, ModelSpec | None]":
    """Find the tower that the condition names; return where it lies and its spec.

    Args:
      options: of the condition.
      known: the spec of the generator in a checkpoint of the run, which has the tower's parameters as well.

    Raises:
      UserError: nothing readable there, no text tower, no tokenizer, or a tower that takes features.
    """
    from ...zoo.load import locate
    from ...zoo.merge import merged

    if not isinstance(options, TowerOptions):
        return None, None
    try:
        found = merged(locate(options.source))
    except UserError:
        if known is None or known["condition"]["kind"] != "tower":
            raise
        return None, ModelSpec.from_dict(known["condition"]["spec"], name="the spec of the condition's tower")
    if found.spec.embed_dim is None or not {"video", "text"} <= set(found.spec.towers) or not found.spec.tokenizer:
        raise UserError(
            f"config.condition.source={options.source!r} is no dual tower of video and text with a tokenizer; name one "
            "that `twinreel pretrain` or `twinreel convert` made"
        )
    if found.spec.features:
        raise UserError(
            f"config.condition.source={options.source!r} takes precomputed features, and a generator needs frames; "
            "name a model with an image tower"
        )
    return found, found.spec


def _data(fields: Mapping[str, Any], *, tower: ModelSpec | None) -> DataOptions:
    """Return `config.data`; a tower's own input takes the place of what the config leaves open (None or absent).

    Raises:
      UserError: fields that do not fit the tower's input, or several folders.
    """
    if fields.get("mixture"):
        raise UserError("config.data.mixture: a generator trains on one prepared folder; set config.data.dir (--data)")
    given = {key: value for key, value in fields.items() if value is not None}
    if not given.get("dir"):
        raise UserError("config.data.dir is empty; give the prepared data set with --data DIR")
    if tower is None:
        return DataOptions.of(given)
    names = [field.name for field in dataclasses.fields(InputSpec) if field.name not in ("decode", "audio_seconds")]
    own = {name: getattr(tower.input, name) for name in names}
    for name in ("num_frames", "context_length", "text", "mask_frames"):
        if name in given and given[name] != own[name]:
            raise UserError(
                f"config.data.{name}={given[name]!r}, but the tower of config.condition.source takes {own[name]!r}; "
                "leave the field out (None), or name another tower"
            )
    return DataOptions.of({**own, **given})
