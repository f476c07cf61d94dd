"""The frames of a clip on their way from JPEG to pixels: geometry is noted as long as nothing has been decoded."""

import dataclasses
from collections.abc import Callable, Sequence

from ..tf_cpu import tf

Number = int | tf.Tensor  # int32 scalar
LUMA = (0.299, 0.587, 0.114)  # Rec. 601


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frames:
    """Frames of one clip, encoded (with a window to cut and a size to resize to) or decoded.

    Attributes:
      jpegs: T string scalars; () once decoded.
      decoded: T tensors uint8 [height,width,3], or () while encoded.
      window: top, left, height, width in pixels of the JPEG picture.
      height: of the frames as they stand, pixels; differs from the window's while a resize is pending.
      width: likewise.
      source: height and width of the JPEG picture, pixels.
    """

    jpegs: tuple[tf.Tensor, ...] = ()
    decoded: tuple[tf.Tensor, ...] = ()
    window: tuple[Number, Number, Number, Number] = (0, 0, 0, 0)
    height: Number
    width: Number
    source: tuple[Number, Number] = (0, 0)
    resized: bool = False

    @classmethod
    def of_jpegs(cls, jpegs: Sequence[tf.Tensor], *, height: Number, width: Number) -> "Frames":
        """Begin with T JPEG files of `height` x `width` pixels."""
        window = (0, 0, height, width)
        return cls(jpegs=tuple(jpegs), window=window, height=height, width=width, source=(height, width))

    def crop(self, y: Number, x: Number, height: Number, width: Number) -> "Frames":
        """Cut a part out: before decoding where no resize stands before it."""
        if self.jpegs and not self.resized:
            window = (self.window[0] + y, self.window[1] + x, height, width)
            return dataclasses.replace(self, window=window, height=height, width=width)
        parts = tuple(tf.slice(frame, [y, x, 0], [height, width, 3]) for frame in self.decode().decoded)
        return Frames(decoded=parts, height=height, width=width)

    def resize(self, height: Number, width: Number) -> "Frames":
        """Resize bilinearly (pixel centres at halves)."""
        if self.jpegs and not self.resized:
            return dataclasses.replace(self, height=height, width=width, resized=True)
        frames = self.decode()
        same = (frames.height == height) & (frames.width == width)
        resized = tf.cond(
            tf.convert_to_tensor(same),
            lambda: list(frames.decoded),
            lambda: [_resize(frame, height, width) for frame in frames.decoded],
        )
        return Frames(decoded=tuple(resized), height=height, width=width)

    def apply(self, function: Callable[[tf.Tensor], tf.Tensor]) -> "Frames":
        """Apply a function uint8 [T,H,W,3] -> uint8 [T,H,W,3]."""
        frames = self.decode()
        decoded = tf.unstack(function(tf.stack(frames.decoded)), num=len(frames.decoded))
        return Frames(decoded=tuple(decoded), height=frames.height, width=frames.width)

    def apply_if(self, condition: tf.Tensor, function: Callable[[tf.Tensor], tf.Tensor]) -> "Frames":
        """Apply a function uint8 [H,W,3] -> uint8 [H,W,3] to each frame if `condition` (bool scalar) holds."""
        frames = self.decode()
        decoded = tf.cond(condition, lambda: [function(f) for f in frames.decoded], lambda: list(frames.decoded))
        return Frames(decoded=tuple(decoded), height=frames.height, width=frames.width)

    def video(self) -> tf.Tensor:
        """Return uint8 [T,height,width,3]."""
        return tf.stack(self.decode().decoded)

    def decode(self) -> "Frames":
        """Decode what is still encoded: the window only, and at a fraction of its size where that is enough."""
        if not self.jpegs:
            return self
        if not self.resized:
            decoded = _decode(self.jpegs, self.window, ratio=1)
            return Frames(decoded=tuple(decoded), height=self.height, width=self.width)
        branches: list[Callable[[], list[tf.Tensor]]] = [lambda: _decode(self.jpegs, self.window, ratio=1)]
        branches += [lambda r=r: self._decode_and_resize(ratio=r) for r in (1, 2, 4, 8)]
        decoded = tf.switch_case(self._branch(), branches)
        return Frames(decoded=tuple(decoded), height=self.height, width=self.width)

    def _branch(self) -> tf.Tensor:
        """0: the window has the size that is wanted; 1 + i: decode at 1/2**i, the most that leaves enough pixels."""
        same = (self.window[2] == self.height) & (self.window[3] == self.width)
        shrink = tf.minimum(self.window[2] // self.height, self.window[3] // self.width)
        return tf.where(same, 0, 1 + tf.reduce_sum(tf.cast(shrink >= tf.constant([2, 4, 8]), tf.int32)))

    def _decode_and_resize(self, *, ratio: int) -> list[tf.Tensor]:
        window = self.window
        if ratio > 1:
            # The scaled picture has ceil(side / ratio) pixels; the window's edges go to the nearest of them.
            top, left, bottom, right = window[0], window[1], window[0] + window[2], window[1] + window[3]
            top, left, bottom, right = ((2 * edge + ratio) // (2 * ratio) for edge in (top, left, bottom, right))
            bottom = tf.minimum(bottom, (self.source[0] + ratio - 1) // ratio)
            right = tf.minimum(right, (self.source[1] + ratio - 1) // ratio)
            window = (top, left, bottom - top, right - left)
        return [_resize(frame, self.height, self.width) for frame in _decode(self.jpegs, window, ratio=ratio)]


def flip_lr(frame: tf.Tensor) -> tf.Tensor:
    """Mirror a frame [H,W,3] left and right."""
    return tf.reverse(frame, [1])


def grey(frame: tf.Tensor) -> tf.Tensor:
    """Make a frame uint8 [H,W,3] grey, still with three channels."""
    luma = tf.linalg.matvec(tf.cast(frame, tf.float32), tf.constant(LUMA))
    return tf.repeat(tf.expand_dims(_to_uint8(luma), -1), 3, axis=-1)


def jitter(video: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    """Scale brightness, contrast (about the clip's mean grey) and saturation of uint8 [T,H,W,3] by factors [3]."""
    brightness, contrast, saturation = tf.unstack(factors, num=3)
    pixels = tf.cast(video, tf.float32)
    to_grey = tf.tile(tf.constant(LUMA)[:, None], [1, 3])  # [3,3]: every channel becomes the luma
    colours = brightness * contrast * (saturation * tf.eye(3) + (1.0 - saturation) * to_grey)
    mean = tf.tensordot(tf.reduce_mean(pixels, axis=[0, 1, 2]), tf.constant(LUMA), 1)
    moved = tf.linalg.matmul(tf.reshape(pixels, [-1, 3]), colours) + (1.0 - contrast) * brightness * mean
    return tf.reshape(_to_uint8(moved), tf.shape(video))


def _decode(jpegs: Sequence[tf.Tensor], window: Sequence[Number], *, ratio: int) -> list[tf.Tensor]:
    crop = tf.stack(list(window))
    # The accurate DCT is as fast as the other with SIMD, and the result equals that of other libjpeg-turbo users.
    return [
        tf.image.decode_and_crop_jpeg(jpeg, crop, channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE")
        for jpeg in jpegs
    ]


def _resize(frame: tf.Tensor, height: Number, width: Number) -> tf.Tensor:
    size = tf.stack([height, width])
    resized = tf.raw_ops.ResizeBilinear(images=frame[None], size=size, half_pixel_centers=True)[0]
    return tf.cast(resized + 0.5, tf.uint8)  # between the least and the largest pixel: nothing to clip


def _to_uint8(pixels: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.clip_by_value(pixels, 0.0, 255.0) + 0.5, tf.uint8)
