"""The dimension legend, and array types made of it.

  B  global batch            P  patch side, pixels        D  width of a tower
  b  per-process batch       N  tokens per frame          K  attention heads
  T  frames                  L  text tokens               E  joint embedding
  H  frame height, pixels    S  audio samples             V  vocabulary
  W  frame width, pixels     F  mel bins                  C  colour channels (3: RGB)

A trailing comment such as `# [B,T,N,D]` states the shape after each change. Masks: True = real.
"""

from jaxtyping import Array, Bool, Float, Int, UInt8

Video = UInt8[Array, "B T H W C"]
"""Frames, RGB, 0..255."""
FrameMask = Bool[Array, "B T"]
"""True where a frame is real, False where it fills up a clip."""
Text = Int[Array, "B L"]
"""Token ids."""
TextMask = Bool[Array, "B L"]
"""True where a token is real, False where it is padding."""
Embedding = Float[Array, "B E"]
"""float32 rows of unit length in the joint space."""
FrameFeatures = Float[Array, "B T D"]
"""One token per frame (or per tubelet in time) for downstream heads."""
Scalar = Float[Array, ""]
"""A float32 scalar."""
