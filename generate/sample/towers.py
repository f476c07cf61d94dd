"""Dual towers that look at generated clips: the one that judges, and the one that ranks candidates."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float32

from ...base.errors import UserError
from ...encode.embed.encoder import Encoder, load
from ...encode.media.files import frames_graph
from ...engine.step.state import split_model
from .painter import Clips, Painter

_TOWER = "condition/tower/"


def load_tower(path: str | Path, *, painter: Painter, flag: str) -> Encoder:
    """Open a dual tower on the devices of a generator.

    Args:
      path: as `twinreel.load` takes it.
      painter: the generator.
      flag: where the path was given, for errors.

    Raises:
      UserError: no model there, or no dual tower of video and text.
    """
    tower = load(path, mesh=painter.mesh)
    if not {"video", "text"} <= set(tower.spec.towers):
        raise UserError(f"{flag} {path} has the towers {', '.join(tower.spec.towers)}; wanted video and text")
    return tower


def conditioning(painter: Painter) -> dict[str, Any]:
    """Return the parameters of the tower that conditions a generator, by path; {} of one that reads texts itself."""
    params = split_model(painter.model)
    return {path.removeprefix(_TOWER): value for path, value in params.items() if path.startswith(_TOWER)}


def same_tower(tower: Encoder, other: Mapping[str, Any]) -> bool:
    """Tell whether a tower has the parameters `other`: some stand in both in one shape, and all of those are equal."""
    own = split_model(tower.model)
    shared = [path for path in other if path in own and own[path].shape == other[path].shape]
    return bool(shared) and all(np.array_equal(np.asarray(own[path]), np.asarray(other[path])) for path in shared)


def embedded(tower: Encoder, video: Clips) -> Float32[np.ndarray, "n E"]:
    """Embed clips by a tower, resized to its frames; of another number of frames it gets evenly spread ones."""
    times, height, width, _ = frames_graph(tower.input).shape[-4:]
    chosen = ((np.arange(times) + 0.5) * video.shape[1] / times).astype(int)
    video = video[:, chosen]
    if video.shape[2:4] != (height, width):
        video = np.stack(
            [[cv2.resize(f, (width, height), interpolation=cv2.INTER_AREA) for f in clip] for clip in video]
        )
    return tower.encode_video_arrays(video)
