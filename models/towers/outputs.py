"""What a video tower makes of clips, and the part that such towers share."""

from typing import NamedTuple

from flax import nnx
from jaxtyping import Array, Float

from ..layers.draws import RowKeys
from ..shapes import FrameFeatures, FrameMask, Video


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


class ClipTower(nnx.Module):
    """A video tower of which one pass, `outputs`, gives all: its vectors and its time tokens are parts of that."""

    def outputs(
        self,
        video: Video | FrameFeatures,
        *,
        mask: FrameMask | None = None,
        keys: RowKeys | None = None,
        drop_patches: bool = True,
    ) -> VideoOutputs:
        """Encode clips; a subclass has it.

        Args:
          video: clips, uint8 RGB 0..255 `[B,T,H,W,3]`; of some towers, vectors `[B,T,C]`.
          mask: bool `[B,T]`, True where a frame is real; None = all are.
          keys: one key for each clip; turns dropout and patch dropout on.
          drop_patches: False turns patch dropout off all the same (unmasked tuning).
        """
        raise NotImplementedError

    def features(
        self,
        video: Video | FrameFeatures,
        *,
        mask: FrameMask | None = None,
        keys: RowKeys | None = None,
        drop_patches: bool = True,
    ) -> FrameFeatures:
        """Return a token for each time step, `[B,T,D]`; for the arguments see `outputs`."""
        return self.outputs(video, mask=mask, keys=keys, drop_patches=drop_patches).steps

    def __call__(
        self,
        video: Video | FrameFeatures,
        *,
        mask: FrameMask | None = None,
        keys: RowKeys | None = None,
        drop_patches: bool = True,
    ) -> Float[Array, "B D"]:
        """Return a vector of each clip, float32; for the arguments see `outputs`."""
        return self.outputs(video, mask=mask, keys=keys, drop_patches=drop_patches).vector
