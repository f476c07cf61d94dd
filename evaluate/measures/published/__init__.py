"""The numbers that other projects' code prints for the same scores, quirks included, so that a paper can be reconciled.

Each file holds one project. A figure is exact where no tie decides it or the project settles ties by a rule; otherwise
the reading gives its bounds.
"""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from ....base.errors import UserError, unknown
from .clip4clip import clip4clip
from .clip_benchmark import clip_benchmark
from .collaborative_experts import collaborative_experts
from .frozen import frozen
from .internvideo1 import internvideo1
from .internvideo2 import internvideo2, internvideo2_clip
from .mmeb_v2 import mmeb_v2
from .mteb import mteb
from .open_clip import open_clip
from .pe import pe
from .reading import Reading

READINGS: dict[str, Callable[..., Reading]] = {
    "clip4clip": clip4clip,
    "clip-benchmark": clip_benchmark,
    "collaborative-experts": collaborative_experts,
    "frozen": frozen,
    "internvideo1": internvideo1,
    "internvideo2": internvideo2,
    "internvideo2-clip": internvideo2_clip,
    "mmeb-v2": mmeb_v2,
    "mteb": mteb,
    "open-clip": open_clip,
    "pe": pe,
}


def read_as(name: str, *, scores: np.ndarray, video_of_text: np.ndarray, **options: Any) -> Reading:
    """Read scores as the named project does.

    Args:
      name: a key of `READINGS`.
      scores: float [n,m], texts by videos.
      video_of_text: int [n], the video of each text.
      options: of that reading, such as `texts` and `reweight_scale` of "pe".

    Raises:
      UserError: an unknown name or option, or scores that do not fit.

    >>> read_as("clip4clip", scores=np.eye(2), video_of_text=np.arange(2)).figures["t2v"]["R1"]
    100.0
    """
    if name not in READINGS:
        raise unknown("reading", name, READINGS)
    known = [key for key in inspect.signature(READINGS[name]).parameters if key not in ("scores", "video_of_text")]
    for option in options:
        if option not in known:
            raise UserError(f"the reading {name!r} has no option {option!r}; its options: {', '.join(known) or 'none'}")
    return READINGS[name](scores, video_of_text=video_of_text, **options)


def describe(name: str) -> str:
    """Return one line on a reading: its project and what is peculiar to its figures, for `--help` and the report.

    >>> describe("internvideo1")
    'InternVideo1: dual softmax of scaled scores, then the metrics of CLIP4Clip.'
    """
    if name not in READINGS:
        raise unknown("reading", name, READINGS)
    return (READINGS[name].__doc__ or "").splitlines()[0]
