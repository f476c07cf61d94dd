"""The clip as an MP4 file: as the model sees it, with its relevance beside it, over time below it, and its sound."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ..base.errors import UserError
from ..data.media.cut import Part, sound_of
from ..data.media.write import write_film
from ..data.options import InputSpec
from .clip import pictures
from .explain import Explanation
from .heat import beside, strip, top_of


def write_overlay(
    explanation: Explanation, *, spec: InputSpec, out: Path, tick: Callable[[float], object] = lambda _: None
) -> None:
    """Write the film: every decoded frame, with the relevance of the time step in which it lies.

    Args:
      explanation: of a clip.
      spec: what the model takes.
      out: the file; it appears whole or not at all.
      tick: called with the seconds that are written, again and again.

    Raises:
      UserError: the same file as the clip.
    """
    clip = explanation.clip
    if out.exists() and out.samefile(clip.path):
        raise UserError(f"{out} would replace the film that is explained; give another --out")
    sound = sound_of([Part(source=clip.path, start_s=0.0, end_s=clip.duration_s)])
    write_film(out, pictures=_frames(explanation, spec=spec), sound=sound, tick=tick)


def _frames(explanation: Explanation, *, spec: InputSpec) -> Iterator[tuple[float, float, np.ndarray]]:
    clip, edges = explanation.clip, explanation.step_edges_s
    cells, values = explanation.parts["patches"].values, explanation.parts["frames"].values
    top = top_of(cells)
    starts = clip.decoded.timestamps_s.astype(np.float64)
    ends = np.append(starts[1:], max(clip.duration_s, float(starts[-1]) + 1e-2))
    for frame, start, end in zip(pictures(spec, clip=clip), starts.tolist(), ends.tolist(), strict=True):
        step = int(np.clip(np.searchsorted(edges, start, side="right") - 1, 0, len(cells) - 1))
        both = beside(frame, cells=cells[step], top=top)
        yield start, end, np.concatenate([both, strip(both.shape[1], edges=edges, values=values, time_s=start)])
