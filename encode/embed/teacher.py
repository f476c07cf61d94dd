"""A teacher beside a run: its embeddings of each batch become arrays of the batch.

It lies outside of the model that trains: no state, no optimizer and no checkpoint holds its parameters, and the step
sees its embeddings alone.
"""

import hashlib
import json
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ...base.errors import UserError

if TYPE_CHECKING:
    import jax

    from ...data.options import InputSpec
    from ...data.text.tokenizer import Tokenizer
    from ...zoo.load import Located
    from ...zoo.spec import ModelSpec
    from .teacher_tokens import TokenOptions

Batch = dict[str, np.ndarray]
SCALE = "teacher_scale"
"""Array of the batch: float32 `[b]`, the teacher's factor on cosines. Its embeddings are `teacher_<side>`."""


def locate_teacher(
    source: str, *, sides: tuple[str, ...], field: str, key: str = "source", joint: bool = True
) -> "Located":
    """Find a teacher and check that it has the towers; its parameters are not read.

    Args:
      source: a run, a checkpoint, a bundle or public weights.
      sides: which of its towers teach.
      field: the section of the config that names it, for messages.
      key: the field there that does.
      joint: it must have a joint space, as its embeddings are compared.

    Raises:
      UserError: nothing that can be read, a model without a joint space, or one that lacks a tower.
    """
    from ...zoo.load import locate

    try:
        found = locate(source)
    except UserError as error:
        raise UserError(f"{field}.{key}={source!r}: {error}") from error
    if joint and found.spec.embed_dim is None:
        raise UserError(
            f"{field}.{key}={source!r} is no dual tower: it has no joint space, and so no embeddings that could be "
            "compared; name a model of video and text"
        )
    for side in sides:
        if side not in found.spec.towers:
            raise UserError(
                f"{field}.{key}={source!r} has no {side} tower (it has: {', '.join(found.spec.towers)}); set "
                f"{field}.sides to what it has"
            )
    return found


class Teacher:
    """A dual tower that embeds batches on this process's devices.

    It sees the frames of the batch, augmented as the run draws them (Beyer et al. 2022, arXiv:2106.05237), resized on
    the device to its own size (bilinear, antialiased) and drawn evenly to its own number of frames; its towers
    normalise pixels by their own mean and deviation. Texts are the token ids of the batch.

    Attributes:
      sides: which of its towers teach.
      spec: what the teacher is.
      sha256: digest of its spec and parameters.
    """

    def __init__(
        self,
        source: str,
        *,
        sides: tuple[str, ...],
        input: "InputSpec",
        tokenizer: "Tokenizer",
        field: str,
        key: str = "source",
        parts: int = 1,
        embeds: bool = True,
        tokens: "TokenOptions | None" = None,
    ):
        """Read the teacher.

        Args:
          source: a run, a checkpoint, a bundle or public weights.
          sides: which of its towers teach: "video", "text" or both.
          input: of the run.
          tokenizer: of the run.
          field: the section of the config that names the teacher, for messages.
          key: the field there that does.
          parts: in which a batch is embedded, one after another.
          embeds: its embeddings are wanted.
          tokens: which of its tokens are wanted, see `teacher_tokens`; None = none.

        Raises:
          UserError: a teacher that cannot be read, or that does not fit the tokenizer or the input of the run.
        """
        import jax
        from flax import nnx

        from ...data.transforms.preprocess import parse_video
        from ...zoo.load import load_model
        from .teacher_tokens import check_tokens

        located = locate_teacher(source, sides=sides, field=field, key=key, joint=embeds)
        self.sides, self.spec, self._parts = sides, located.spec, parts
        if "text" in sides:
            _check_texts(located, tokenizer=tokenizer, input=input, field=field)
        self._size = (0, 0)
        if "video" in sides:
            frames = parse_video(self.spec.input.eval_video, field=f"eval_video of {source}")
            self._size = (frames.height, frames.width)
            _check_frames(located, input=input)
        model = load_model(located)
        self._embeds, self._tokens = embeds, tokens
        if tokens is not None:
            check_tokens(located, model=model, options=tokens, field=field)
        self.sha256 = _digest(model, spec=self.spec)
        self._graph, state = nnx.split(model)
        self._state, self._mesh = state, None
        self._embed = jax.jit(self._embedded)

    def __call__(self, batch: Batch) -> Batch:
        """Return the batch with `teacher_video` and `teacher_text` [b,F], `teacher_scale` [b], float32, and tokens."""
        import jax

        wanted = ("video", "video_mask") if "video" in self.sides else ()
        wanted += ("text", "text_mask") if "text" in self.sides else ()
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

        from ...engine.sharding.mesh import BATCH_AXES, make_mesh

        devices = jax.local_devices()
        devices = devices[: math.gcd(rows, len(devices))]
        if self._mesh is None or self._mesh.size != len(devices):
            self._mesh = make_mesh(devices=devices)
            self._state = jax.device_put(self._state, NamedSharding(self._mesh, PartitionSpec()))
        return NamedSharding(self._mesh, PartitionSpec(BATCH_AXES))

    def _embedded(self, state: Any, rows: "dict[str, jax.Array]") -> "dict[str, jax.Array]":
        import jax.numpy as jnp
        from flax import nnx

        from .teacher_tokens import visible_tokens

        model, made = nnx.merge(self._graph, state), {}
        if self._tokens is not None:
            made |= visible_tokens(model.video, rows["video"], options=self._tokens)
        if not self._embeds:
            return made
        if "video" in self.sides:
            video, mask = self._frames(rows["video"]), rows.get("video_mask")
            made["teacher_video"] = model.encode_video(video, **({} if mask is None else {"mask": mask}))
        if "text" in self.sides:
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
    from ...engine.step.state import split_model

    found = hashlib.sha256(json.dumps(spec.to_dict(), sort_keys=True).encode())
    for path, value in sorted(split_model(model).items()):
        found.update(path.encode())
        found.update(np.asarray(value).tobytes())
    return found.hexdigest()


def _check_texts(located: "Located", *, tokenizer: "Tokenizer", input: "InputSpec", field: str) -> None:
    """Raise UserError unless the teacher reads the token ids of the run."""
    spec = located.spec
    if not spec.tokenizer or dict(spec.tokenizer) != tokenizer.to_meta():
        raise UserError(
            f"the text tower of the teacher {located.path} has another tokenizer than the run, so it cannot read the "
            f"token ids of the batches; set {field}.sides=('video',), or train with the teacher's tokenizer "
            "(config.data.tokenizer)"
        )
    most, given = spec.input.context_length, input.context_length
    if given > most or (given != most and spec.towers["text"].get("padding_seen")):
        raise UserError(
            f"the teacher {located.path} reads texts of {most} tokens, the run config.data.context_length={given}; set "
            f"it to that, or {field}.sides=('video',)"
        )


def _check_frames(located: "Located", *, input: "InputSpec") -> None:
    """Raise UserError for frames that the teacher cannot take."""
    if input.mask_frames and not located.spec.input.mask_frames:
        raise UserError(
            f"config.data.mask_frames=True, but the teacher {located.path} was made for clips without padding; set it "
            "to False, or take another teacher"
        )
    frames = located.spec.input.num_frames
    if input.mask_frames and frames != input.num_frames:
        raise UserError(
            f"the teacher {located.path} takes {frames} frames, the run config.data.num_frames={input.num_frames}; "
            "with config.data.mask_frames=True the same frames must be real to both: set num_frames to the teacher's"
        )
    if located.spec.features.get("video") or located.spec.towers["video"]["family"] == "features":
        raise UserError(
            f"the video tower of the teacher {located.path} takes vectors that were computed before, not frames; take "
            "another teacher"
        )
