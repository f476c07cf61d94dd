"""What a video tower makes of clips."""

from typing import NamedTuple

from jaxtyping import Array, Float

from ..shapes import FrameFeatures


class VideoOutputs(NamedTuple):
    """All outputs of one pass; what a program does not use is not computed in it.

    Attributes:
      vector: float32 `[B,D]`, of the whole clip.
      steps: `[B,T,D]`, a token for each time step; `features` of a tower.
      patches: `[B,T,N,W]`, the tokens of the patches of each time step; None of a tower that has none.
    """

    vector: Float[Array, "B D"]
    steps: FrameFeatures
    patches: Float[Array, "B T N W"] | None
