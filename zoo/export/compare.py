"""What an export wrote, and two models on the same random input: the largest difference of their embeddings."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ...base.errors import UserError
from ...data.transforms.preprocess import parse_video
from ...engine.step.state import join
from ...models.layers.norm import unit_rows
from ..build import abstract
from ..spec import ADAPTERS, ModelSpec

TOLERANCE = 1e-4
"""Of unit rows in float32; a larger difference is an error."""
_ROWS = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """One comparison after writing.

    Attributes:
      name: of what was compared.
      difference: the largest absolute one; 0 = bit for bit.
    """

    name: str
    difference: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Written:
    """What an export wrote.

    Attributes:
      title: of the format.
      checks: what was compared after writing.
      notes: what the user should know.
      usage: lines of Python that load the folder; `FOLDER` stands for it.
    """

    title: str
    checks: Sequence[Check]
    notes: Sequence[str]
    usage: str


Model = tuple[ModelSpec, Mapping[str, Any]]
"""A spec and its parameters."""


def refuse_heads(spec: ModelSpec) -> None:
    """Raise UserError for a model with a head: a fine-tuned one, or one whose heads score texts with clips."""
    if spec.joint_heads:
        raise UserError(
            f"this model has the head {', '.join(spec.joint_heads)} (config.model.heads), for which other formats have "
            "no place; share it as a bundle: `twinreel.load(MODEL).save(FOLDER)`"
        )
    if spec.heads:
        raise UserError(
            f"this model has the head {', '.join(spec.heads)}, and export takes encoders; label files with it: "
            "`twinreel predict`"
        )


def refuse_added(spec: ModelSpec) -> None:
    """Raise UserError for a model with prompts or adapters, which are no part of any public model."""
    added = {name: side for side, tower in spec.towers.items() for name in tower.get(ADAPTERS, {})}
    if added:
        listed = ", ".join(f"{name} ({side} tower)" for name, side in added.items())
        raise UserError(
            f"this model has {listed} from config.adapt, which cannot become part of plain weights; choose --format "
            "stablehlo, which holds any model, or adapt it by lora, dora or bitfit"
        )


def largest_difference(first: Model, second: Model) -> list[Check]:
    """Encode the same random clips, texts and sound with both models, in float32.

    Raises:
      UserError: embeddings further apart than `TOLERANCE`.
    """
    spec = _whole_frames(first[0])
    checks = []
    models = [built(*one) for one in (first, second)]
    for side, inputs in random_inputs(spec, rows=_ROWS).items():
        rows = [np.asarray(encoded(model, side, *inputs)) for model in models]
        checks.append(checked(f"{side} embeddings", *rows))
    return checks


@functools.partial(nnx.jit, static_argnums=1)
def encoded(model: Any, side: str, *inputs: np.ndarray) -> jax.Array:
    """Return unit rows, in one compiled program."""
    return encoder(model, side)(*inputs)


def checked(name: str, ours: np.ndarray, theirs: np.ndarray) -> Check:
    """Compare unit rows.

    Raises:
      UserError: they are further apart than `TOLERANCE`.
    """
    apart = float(np.max(np.abs(ours - theirs)))
    if not apart <= TOLERANCE:
        raise UserError(
            f"{name} of what was written are up to {apart:.2g} from those of the model, more than {TOLERANCE:g}; "
            "nothing was exported. This is a fault of twinreel; report it with the model's spec.json"
        )
    return Check(name=name, difference=apart)


def built(spec: ModelSpec, params: Mapping[str, Any]) -> Any:
    """Build a model that computes in float32 with these parameters; no initial values are drawn.

    Raises:
      UserError: the parameters lack one of the model's.
    """
    graph, state = nnx.split(abstract(in_float32(spec)))
    flat = nnx.to_flat_state(state)
    missing = [join(path) for path, _ in flat if join(path) not in params]
    if missing:
        raise UserError(f"the parameters lack {missing[0]!r} ({len(missing)} in all), which the model's spec describes")
    filled = [(path, value.replace(jnp.asarray(params[join(path)]))) for path, value in flat]
    return nnx.merge(graph, nnx.from_flat_state(filled))


def in_float32(spec: ModelSpec) -> ModelSpec:
    """Return the spec with towers that compute in float32."""
    towers = {}
    for side, tower in spec.towers.items():
        towers[side] = {key: value for key, value in tower.items() if key != "dtype"}
        if "image" in tower:
            towers[side]["image"] = {key: value for key, value in tower["image"].items() if key != "dtype"}
    return spec.replace(towers=towers)


def random_inputs(spec: ModelSpec, *, rows: int) -> dict[str, tuple[np.ndarray, ...]]:
    """Return random input of each tower, modality -> arrays as `encoder` takes them."""
    return dict(_random_inputs(spec, rows=rows))


def _random_inputs(spec: ModelSpec, *, rows: int) -> Iterator[tuple[str, tuple[np.ndarray, ...]]]:
    rng, given = np.random.default_rng(0), spec.input
    video = spec.towers.get("video", {})
    if video.get("family") == "features":
        times = max(given.num_frames, 1)
        real = np.arange(times)[None] <= rng.integers(0, times, (rows, 1))
        yield "video", (rng.normal(size=(rows, times, video["input_width"])).astype(np.float32), real)
    elif video:
        frames = rng.integers(0, 256, (rows, *clip_shape(spec)), dtype=np.uint8)
        if is_naflex(spec):  # one row of all patches, as `models.layers.patch_sequences` reads it
            columns = frames.shape[2] // frames.shape[3] - 1
            frames[:, :, 0, 0], frames[:, :, 0, 1] = (1, 0, 0), (columns % 256, columns // 256, 0)
        yield "video", (frames,)
    if "text" in spec.towers:
        length, words = given.context_length, int(spec.towers["text"].get("vocab_size", 2))
        mask = np.arange(length)[None] <= rng.integers(1, length, (rows, 1))
        yield "text", (rng.integers(0, words, (rows, length), dtype=np.int32), mask)
    if "audio" in spec.towers:
        sound = rng.integers(-(2**13), 2**13, (rows, given.audio_samples), dtype=np.int16)
        yield "audio", (sound, np.full(rows, given.audio_samples, np.int32))


def is_naflex(spec: ModelSpec) -> bool:
    """Tell whether frames reach the model as sequences of patches."""
    image = spec.towers.get("video", {}).get("image", {})
    return bool(image.get("naflex")) and "naflex(" in spec.input.eval_video


def _whole_frames(spec: ModelSpec) -> ModelSpec:
    """Return the spec with ordinary frames of the size of training, which every form of a model takes."""
    if not is_naflex(spec):
        return spec
    size = spec.towers["video"]["image"]["image_size"]
    return spec.replace(input=dataclasses.replace(spec.input, eval_video=f"resize({size},{size})"))


def clip_shape(spec: ModelSpec) -> tuple[int, int, int, int]:
    """Return the shape (T,H,W,3) of the clips that the model takes."""
    frames = parse_video(spec.input.eval_video, field="config.data.eval_video")
    return max(spec.input.num_frames, 1), frames.height, frames.width, 3


def encoder(model: Any, side: str) -> Any:
    """Return the function from arrays to unit rows, of a dual tower or of an encoder alone."""
    if hasattr(model, "encode_video"):
        return {
            "video": lambda video, mask=None: model.encode_video(video, mask=mask),
            "text": lambda text, mask: model.encode_text(text, mask=mask),
            "audio": lambda audio, lengths: model.encode_audio(audio, lengths=lengths),
        }[side]
    tower = getattr(model, side)
    return {
        "video": lambda video, *mask: unit_rows(tower(video, **({"mask": mask[0]} if mask else {}))),
        "text": lambda text, mask: unit_rows(tower(text, mask=mask)),
        "audio": lambda audio, lengths: unit_rows(tower(audio, lengths=lengths)),
    }[side]
