"""The teacher of `config.loss.terms.distillation`, see `encode.embed.teacher`."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..base.section import section
from ..encode.embed.teacher import SCALE, Batch, Taught, Teacher, locate_teacher
from ..zoo.build import argument_of
from .terms.distillation import FIELD, NAME, DistillationOptions, check_width

if TYPE_CHECKING:
    from ..base.config import Config
    from ..data.text.tokenizer import Tokenizer
    from ..encode.embed.teacher_tokens import TokenOptions
    from ..zoo.spec import ModelSpec


def teacher_options(loss: Mapping[str, Any]) -> DistillationOptions | None:
    """Return `config.loss.terms.distillation`, None where it is absent or its weight is 0.

    Args:
      loss: `config.loss`.

    Raises:
      UserError: a field that is unknown or out of its range.
    """
    fields = (loss.get("terms") or {}).get(NAME)
    if fields is None:
        return None
    options = section(DistillationOptions, fields, name=f"loss.terms.{NAME}")
    return options if options.weight else None


def embeds(options: DistillationOptions) -> bool:
    """Tell whether the embeddings of the teacher are compared."""
    return bool(options.embedding or options.similarity)


def token_options(options: DistillationOptions, *, spec: "ModelSpec") -> "TokenOptions | None":
    """Return which tokens of the teacher are compared; None if none are.

    Args:
      options: of the term.
      spec: of the model that trains.
    """
    if not options.tokens:
        return None
    from ..encode.embed.teacher_tokens import TokenOptions
    from ..zoo.build import abstract

    head, layout = spec.joint_heads[NAME], abstract(spec).video.patch_layout
    given = {"layers": head.get("layers", 1), "width": head["width"], "ratio": options.token_ratio}
    return TokenOptions(patch=layout.patch, tubelet=layout.tubelet, **given)


def tokens_like(options: DistillationOptions, *, model: Mapping[str, Any], num_frames: int, rows: int) -> Batch:
    """Return arrays of the shapes of the tokens that a teacher adds to a batch; {} if none are compared.

    Args:
      options: of the term.
      model: `config.model`.
      num_frames: T.
      rows: of the batch.
    """
    if not options.tokens:
        return {}
    from ..encode.embed.teacher_tokens import PLACES, TOKENS
    from ..models.layer_tokens import kept_places

    head = model["heads"][NAME]
    side, patch, tubelet = (
        argument_of(model["video"], side="video", field=field) or 1 for field in ("image_size", "patch", "tubelet")
    )
    places = (side // patch) ** 2
    count = kept_places(places, ratio=options.token_ratio)
    shape = (rows, num_frames // tubelet, count, head.get("layers", 1), head["width"])
    at = np.broadcast_to(np.arange(count, dtype=np.int32), (rows, count))
    return {TOKENS: np.ones(shape, np.float32), PLACES: np.ascontiguousarray(at)}


def teacher_like(options: DistillationOptions, *, rows: int) -> Batch:
    """Return arrays of the shapes of the embeddings that a teacher adds to a batch of `rows` rows."""
    if not embeds(options):
        return {}
    width = locate_teacher(options.source, sides=options.sides, field=FIELD).spec.embed_dim
    assert width is not None
    unit = np.full((rows, width), width**-0.5, np.float32)
    return {f"teacher_{side}": unit for side in options.sides} | {SCALE: np.ones(rows, np.float32)}


def make_teacher(config: "Config", *, spec: "ModelSpec", tokenizer: "Tokenizer") -> Teacher | None:
    """Return the teacher of a run, None if it has none.

    Args:
      config: the experiment.
      spec: of the model that trains.
      tokenizer: of the run.

    Raises:
      UserError: see `Teacher`.
    """
    options = teacher_options(config.loss.to_dict())
    if options is None:
        return None
    if options.embedding:
        width = locate_teacher(options.source, sides=options.sides, field=FIELD).spec.embed_dim
        assert width is not None
        check_width(width, spec=spec)
    given = {"sides": options.sides, "input": spec.input, "tokenizer": tokenizer, "field": FIELD}
    given |= {"embeds": embeds(options), "tokens": token_options(options, spec=spec)}
    return Teacher(options.source, **given, parts=config.loss.get("microbatch", 1))


def sha256_of(teacher: Teacher | None) -> str:
    """Return the digest of a teacher, "" if there is none."""
    return "" if teacher is None else teacher.sha256


def teacher_content(teacher: Teacher | None) -> dict[str, Any]:
    """Return the content of the place that `source` names, by config field, for `engine.loop.train`."""
    if teacher is None:
        return {}
    return {f"loss.terms.{NAME}.source": {"kind": "model", "sha256": teacher.sha256[:12]}}


def taught(batches: Iterator[Batch], *, teacher: Teacher | None) -> Iterator[Batch]:
    """Return batches with the embeddings of a teacher, if there is one."""
    return batches if teacher is None else Taught(batches, teacher=teacher)
