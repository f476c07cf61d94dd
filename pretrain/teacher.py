"""A teacher beside a run: its embeddings of each batch become arrays of the batch.

It lies outside of the model that trains: no state, no optimizer and no checkpoint holds its parameters, and the step
sees its embeddings alone.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..base.errors import UserError
from ..base.section import section
from .terms.distillation import FIELD, NAME, SCALE, DistillationOptions, check_width

if TYPE_CHECKING:
    import jax

    from ..base.config import Config
    from ..data.options import InputSpec
    from ..data.text.tokenizer import Tokenizer
    from ..zoo.load import Located
    from ..zoo.spec import ModelSpec

Batch = dict[str, np.ndarray]


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


def locate_teacher(options: DistillationOptions) -> "Located":
    """Find the teacher and check that it has the towers; its parameters are not read.

    Raises:
      UserError: nothing that can be read, a model without a joint space, or one that lacks a tower.
    """
    from ..zoo.load import locate

    try:
        found = locate(options.source)
    except UserError as error:
        raise UserError(f"{FIELD}.source={options.source!r}: {error}") from error
    if found.spec.embed_dim is None:
        raise UserError(
            f"{FIELD}.source={options.source!r} is no dual tower: it has no joint space, and so no embeddings that "
            "could be compared; name a model of video and text"
        )
    for side in options.sides:
        if side not in found.spec.towers:
            raise UserError(
                f"{FIELD}.source={options.source!r} has no {side} tower (it has: {', '.join(found.spec.towers)}); set "
                f"{FIELD}.sides to what it has"
            )
    return found


def teacher_like(options: DistillationOptions, *, rows: int) -> Batch:
    """Return arrays of the shapes that a teacher adds to a batch of `rows` rows."""
    width = locate_teacher(options).spec.embed_dim
    assert width is not None
    unit = np.full((rows, width), width**-0.5, np.float32)
    return {f"teacher_{side}": unit for side in options.sides} | {SCALE: np.ones(rows, np.float32)}


class Teacher:
    """A dual tower that embeds batches on this process's devices.

    It sees the frames of the batch, augmented as the run draws them (Beyer et al. 2022, arXiv:2106.05237), resized on
    the device to its own size (bilinear, antialiased) and drawn evenly to its own number of frames; its towers
    normalise pixels by their own mean and deviation. Texts are the token ids of the batch.

    Attributes:
      options: `config.loss.terms.distillation`.
      spec: what the teacher is.
      sha256: digest of its spec and parameters.
    """

    def __init__(
        self,
        options: DistillationOptions,
        *,
        student: "ModelSpec",
        tokenizer: "Tokenizer",
        parts: int = 1,
    ):
        """Read the teacher.

        Args:
          options: `config.loss.terms.distillation`.
          student: the model that trains.
          tokenizer: of the run.
          parts: in which a batch is embedded, one after another (`config.loss.microbatch`).

        Raises:
          UserError: a teacher that cannot be read, or that does not fit the model, its tokenizer or its input.
        """
        import jax
        from flax import nnx

        from ..data.transforms.preprocess import parse_video
        from ..zoo.load import load_model

        located = locate_teacher(options)
        self.options, self.spec, self._parts = options, located.spec, parts
        width = self.spec.embed_dim
        assert width is not None
        if options.embedding:
            check_width(width, spec=student)
        if "text" in options.sides:
            _check_texts(located, tokenizer=tokenizer, input=student.input)
        self._size = (0, 0)
        if "video" in options.sides:
            frames = parse_video(self.spec.input.eval_video, field=f"eval_video of {options.source}")
            self._size = (frames.height, frames.width)
            _check_frames(located, input=student.input)
        model = load_model(located)
        self.sha256 = _digest(model, spec=self.spec)
        self._graph, state = nnx.split(model)
        self._state, self._mesh = state, None
        self._embed = jax.jit(self._embedded)

    def __call__(self, batch: Batch) -> Batch:
        """Return the batch with `teacher_video` and `teacher_text` [b,F] and `teacher_scale` [b], float32."""
        import jax

        wanted = ("video", "video_mask") if "video" in self.options.sides else ()
        wanted += ("text", "text_mask") if "text" in self.options.sides else ()
        rows = {key: batch[key] for key in wanted if key in batch}
        count = len(next(iter(rows.values())))
        size = count // self._parts if count % self._parts == 0 else count
        place = self._placed(size)
        found = []
        with jax.set_mesh(self._mesh):
            for start in range(0, count, size):
                part = {key: jax.device_put(value[start : start + size], place) for key, value in rows.items()}
                found.append(jax.device_get(self._embed(self._state, part)))
        return batch | {key: np.concatenate([one[key] for one in found]) for key in found[0]}

    def _placed(self, rows: int) -> Any:
        """Put the parameters on as many of this process's devices as share `rows` rows; return where the rows go."""
        import jax
        from jax.sharding import NamedSharding, PartitionSpec

        from ..engine.sharding.mesh import BATCH_AXES, make_mesh

        devices = jax.local_devices()
        devices = devices[: math.gcd(rows, len(devices))]
        if self._mesh is None or self._mesh.size != len(devices):
            self._mesh = make_mesh(devices=devices)
            self._state = jax.device_put(self._state, NamedSharding(self._mesh, PartitionSpec()))
        return NamedSharding(self._mesh, PartitionSpec(BATCH_AXES))

    def _embedded(self, state: Any, rows: "dict[str, jax.Array]") -> "dict[str, jax.Array]":
        import jax.numpy as jnp
        from flax import nnx

        model, made = nnx.merge(self._graph, state), {}
        if "video" in self.options.sides:
            video, mask = self._frames(rows["video"]), rows.get("video_mask")
            made["teacher_video"] = model.encode_video(video, **({} if mask is None else {"mask": mask}))
        if "text" in self.options.sides:
            made["teacher_text"] = model.encode_text(rows["text"], mask=rows["text_mask"])
        count = next(iter(rows.values())).shape[0]
        return made | {SCALE: jnp.broadcast_to(model.scale, (count,))}

    def _frames(self, video: "jax.Array") -> "jax.Array":
        """Draw the teacher's number of frames evenly, and resize them."""
        import jax
        import jax.numpy as jnp

        count, times = self.spec.input.num_frames, video.shape[1]
        if count != times:
            video = video[:, ((np.arange(count) + 0.5) * times / count).astype(np.int32)]
        if video.shape[2:4] == self._size:
            return video
        shape = (*video.shape[:2], *self._size, 3)
        resized = jax.image.resize(video.astype(jnp.float32), shape, "linear", antialias=True)
        return jnp.clip(jnp.round(resized), 0, 255).astype(jnp.uint8)


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
    return Teacher(options, student=spec, tokenizer=tokenizer, parts=config.loss.get("microbatch", 1))


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


class Taught:
    """Batches with the embeddings of a teacher; all else of them stays."""

    def __init__(self, batches: Iterator[Batch], *, teacher: Teacher):
        """Wrap batches."""
        self._batches, self._teacher = batches, teacher

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        return self._teacher(next(self._batches))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batches, name)


def _digest(model: Any, *, spec: "ModelSpec") -> str:
    from ..engine.step.state import split_model

    found = hashlib.sha256(json.dumps(spec.to_dict(), sort_keys=True).encode())
    for path, value in sorted(split_model(model).items()):
        found.update(path.encode())
        found.update(np.asarray(value).tobytes())
    return found.hexdigest()


def _check_texts(located: "Located", *, tokenizer: "Tokenizer", input: "InputSpec") -> None:
    """Raise UserError unless the teacher reads the token ids of the run."""
    spec = located.spec
    if not spec.tokenizer or dict(spec.tokenizer) != tokenizer.to_meta():
        raise UserError(
            f"the text tower of the teacher {located.path} has another tokenizer than the run, so it cannot read the "
            f"token ids of the batches; set {FIELD}.sides=('video',), or train with the teacher's tokenizer "
            "(config.data.tokenizer)"
        )
    most, given = spec.input.context_length, input.context_length
    if given > most or (given != most and spec.towers["text"].get("padding_seen")):
        raise UserError(
            f"the teacher {located.path} reads texts of {most} tokens, the run config.data.context_length={given}; set "
            f"it to that, or {FIELD}.sides=('video',)"
        )


def _check_frames(located: "Located", *, input: "InputSpec") -> None:
    """Raise UserError for frames that the teacher cannot take."""
    if input.mask_frames and not located.spec.input.mask_frames:
        raise UserError(
            f"config.data.mask_frames=True, but the teacher {located.path} was made for clips without padding; set it "
            "to False, or take another teacher"
        )
    if located.spec.features.get("video") or located.spec.towers["video"]["family"] == "features":
        raise UserError(
            f"the video tower of the teacher {located.path} takes vectors that were computed before, not frames; take "
            "another teacher"
        )
