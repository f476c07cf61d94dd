"""What gives a vector for each frame of a clip: the image tower of a model, or a classical descriptor."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...base.errors import UserError

if TYPE_CHECKING:
    from ...data.options import InputSpec

CLASSICAL = ("hog", "sift")
"""Descriptors that need no weights."""

Describe = Callable[[np.ndarray], np.ndarray]
"""uint8 [b,T,H,W,3] -> float32 [b,T',D]."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Describer:
    """What gives a vector for each frame.

    Attributes:
      input: how frames are drawn and scaled.
      about: what identifies it, JSON values: `weights`, a hash of those of its image tower, or the `model` hog or sift.
      name: what it was called, a path or the name of public weights.
      describe: uint8 [b,T,H,W,3] -> float32 [b,T',D].
      prepare: called once with the frames of clips before the first is described (visual words), with the folder.
    """

    input: "InputSpec"
    about: dict[str, Any]
    name: str
    describe: Describe
    prepare: Callable[[Iterator[np.ndarray], Path], Describe] | None = None


def of_model(name: str) -> Describer:
    """Return what a model, or a classical descriptor, gives."""
    if name in CLASSICAL:
        return _classical(name)
    from ...engine.keeping.transfer import shapes
    from ...zoo.digest import weights_sha256
    from ...zoo.load import load_model, locate

    located = locate(name)
    if "video" not in located.spec.towers:
        raise UserError(f"{name} has no video tower (it has: {', '.join(located.spec.towers)}); give another --model")
    video = load_model(located).video
    return Describer(
        input=located.spec.input,
        about={"weights": weights_sha256(shapes(video), tower="")},
        name=str(located.path),
        describe=_describe(video),
    )


def of_config(name: str, overrides: list[str]) -> tuple[Describer, str]:
    """Return what the video tower of a config gives, with the name of its features there."""
    from flax import nnx

    from ...base.config import load_config
    from ...data.options import DataOptions
    from ...engine.keeping.transfer import fill, plan_transfer, position_resizers, shapes
    from ...zoo.build import build
    from ...zoo.digest import weights_sha256
    from ...zoo.sources import find_sources
    from ...zoo.spec import ModelSpec

    config = load_config(name, overrides=overrides)
    found = find_sources(config.model.to_dict(), data=config.data.to_dict())
    if found is None or "video" not in found.towers:
        raise UserError(f"config {name!r} has no config.model.video.source, from which its image tower comes")
    input = DataOptions.of(config.data.to_dict() | dict(found.input)).input
    spec = ModelSpec(towers={"video": found.model["video"]}, input=input)
    model = build(spec, rngs=nnx.Rngs(0))
    video = {path: value for path, value in found.params().items() if path.startswith("video/")}
    plan = plan_transfer(video, target=shapes(model), parts=None, name=found.name, resizers=position_resizers(model))
    fill(model, values=plan.values)
    about = {"weights": weights_sha256(video, tower="video/")}
    made = Describer(input=input, about=about, name=found.name, describe=_describe(model.video))
    return made, spec.features.get("video", "")


def _describe(tower: Any) -> Describe:
    """Return the vectors of a tower's frames: its image tower's where it has one, else its tokens in time."""
    import jax
    from flax import nnx

    graph, state = nnx.split(tower)

    @jax.jit
    def vectors(state: Any, video: Any) -> Any:
        model = nnx.merge(graph, state)
        if not hasattr(model, "image"):
            return model.features(video)
        rows, times = video.shape[:2]
        return model.image(video.reshape(rows * times, *video.shape[2:])).reshape(rows, times, -1)

    return lambda video: np.asarray(vectors(state, video))


def _classical(name: str) -> Describer:
    from ...data.options import InputSpec
    from . import descriptors

    def over_frames(one: Callable[[np.ndarray], np.ndarray]) -> Describe:
        return lambda video: np.stack([one(frames) for frames in video])

    def words_first(clips: Iterator[np.ndarray], folder: Path) -> Describe:
        file = folder / "words.npy"
        if not file.is_file():
            write_array(file, descriptors.visual_words(clips))
        return over_frames(functools.partial(descriptors.sift, words=np.load(file, allow_pickle=False)))

    input = InputSpec(eval_video="resize_short(224)|center_crop(224)")
    describe = over_frames(descriptors.hog)
    return Describer(
        input=input,
        about={"model": name},
        name=name,
        describe=describe,
        prepare=words_first if name == "sift" else None,
    )


def write_array(file: Path, array: np.ndarray) -> None:
    """Write a .npy file whole or not at all."""
    temporary = file.with_suffix(".tmp")
    with temporary.open("wb") as out:
        np.save(out, array, allow_pickle=False)
    temporary.replace(file)
