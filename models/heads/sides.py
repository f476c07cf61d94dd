"""What a head that sees both sides of a pair takes of texts and of clips."""

from typing import NamedTuple

from jaxtyping import Array, Bool, Float, Int


class Texts(NamedTuple):
    """Texts as the text tower gives them.

    Attributes:
      embedding: float32 `[n,E]`, rows of unit length.
      tokens: `[n,L,D]`, the tower's tokens; None for a head that does not see words.
      mask: bool `[n,L]`, True where a token is real.
      ids: int32 `[n,L]`, the texts as token ids; None for a head that does not read them itself.
    """

    embedding: Float[Array, "n E"]
    tokens: Float[Array, "n L D"] | None = None
    mask: Bool[Array, "n L"] | None = None
    ids: Int[Array, "n L"] | None = None


class Clips(NamedTuple):
    """Clips as the video tower gives them.

    Attributes:
      tokens: `[m,T,D]`, the tower's time tokens.
      frames: float32 `[m,T,E]`, these tokens in the joint space, not normalised.
      mask: bool `[m,T]`, True where a frame is real; None = all are.
      patches: `[m,T,N,W]`, the tower's tokens of the patches of each time step; None for a head that does not see them.
      sound: `[m,N,S]`, the audio tower's tokens; None for a head that does not hear.
      sound_mask: bool `[m,N]`, True where a token of sound is real; no one is where a clip has no sound.
    """

    tokens: Float[Array, "m T D"]
    frames: Float[Array, "m T E"]
    mask: Bool[Array, "m T"] | None = None
    patches: Float[Array, "m T N W"] | None = None
    sound: Float[Array, "m N S"] | None = None
    sound_mask: Bool[Array, "m N"] | None = None
