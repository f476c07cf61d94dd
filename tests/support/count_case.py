"""Sets of texts and videos to count, and the options that count them on fake devices in small tiles."""

import jax
import numpy as np

from twinreel.evaluate.counting.count import CountOptions

FIELDS = ("above", "equal", "right")


def on_devices(*, tile_bytes=0, gallery_bytes=1 << 20, devices=8, **more):
    return CountOptions(
        host_pairs=0, tile_bytes=tile_bytes, gallery_bytes=gallery_bytes, devices=jax.devices()[:devices], **more
    )


def case(seed, *, videos, captions, width=24, kinds=0, uncaptioned=0, spread=1.0):
    """Videos of one to `captions` captions; with `kinds`, all rows are one of so many, and texts repeat.

    `spread` is the distance of videos from one row that they have in common.
    """
    rng = np.random.default_rng(seed)
    captioned = rng.permutation(videos)[: videos - uncaptioned]
    index = rng.permutation(np.concatenate([captioned, rng.choice(captioned, (captions - 1) * videos // 2)]))
    if kinds:
        video = rng.normal(size=(kinds, width)).astype(np.float32)[rng.integers(0, kinds, videos)]
        number = rng.integers(0, kinds, len(index))
        text = rng.normal(size=(kinds, width)).astype(np.float32)[number]
    else:
        video = (rng.normal(size=width) * (spread != 1) + spread * rng.normal(size=(videos, width))).astype(np.float32)
        text, number = (
            video[index] + rng.normal(size=(len(index), width)).astype(np.float32),
            np.arange(len(index)) // 2,
        )
    return {"text": text, "video": video, "video_of_text": index, "same_text": number}
