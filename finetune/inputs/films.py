"""Films of a data set for tasks that look at them window by window, as `predict` looks at files."""

from collections.abc import Iterator
from typing import Any

import jax
from rich.console import Console
from rich.progress import track

from ...base.errors import UserError
from ...data.batches.recorded import clip_of_record
from ...data.media.clip import DecodedClip
from ...encode.media.film_windows import clip_windows
from ...encode.predict.steps import StepPredictor, WindowTokens
from ..examples.clips import LabelledClips
from ..examples.context import TaskContext


def film_tokens(
    predictor: StepPredictor, *, context: TaskContext, clips: LabelledClips, progress: bool = False
) -> Iterator[WindowTokens]:
    """Yield the time tokens of the windows of all films that can be read; a film's number is that of its record.

    Args:
      predictor: the model.
      context: of the run.
      clips: the films.
      progress: draw a progress bar on standard error, on the first process.
    """
    chosen: Any = clips.indices.tolist()
    if progress and jax.process_index() == 0:
        chosen = track(chosen, "score the films", console=Console(stderr=True), transient=True)
    windows = clip_windows(_recorded(context, clips=clips, chosen=chosen), seconds=predictor.seconds)
    return predictor.tokens(windows, batch_size=context.data.feed.batch_size)


def _recorded(
    context: TaskContext, *, clips: LabelledClips, chosen: Iterator[int]
) -> Iterator[tuple[int, DecodedClip]]:
    """Yield the films of prepared records with their numbers; damaged ones are left out."""
    for index in chosen:
        try:
            clip = clip_of_record(context.records, split=clips.split, index=index)
        except UserError:
            continue
        yield index, clip
