"""What the input of a run must deliver to each host."""

from typing import Any

from ..base.config import Config
from ..pretrain.synthetic import batch_like

_JPEG_BYTES_PER_SQUARE = 19e3 / 240**2  # per pixel of the squared short side: 19 kB at 240, measured (bench/README.md)
_STORED_SIDE = 256 / 224  # frames are stored larger than they are cropped


def input_rate(config: Config, *, hosts: int, step_s: float | None) -> dict[str, Any]:
    """Return the input that each host must deliver: clips of a step, their bytes, and rates if the step time is known.

    `decoded` is the integer data that goes to the chips. `jpeg` (an estimate) and `sound` (16-bit samples, as in the
    records) is the part of a record that is used; `stored`, their sum, is a lower bound for storage, as records are
    read whole.
    """
    row = batch_like(config, rows=1)
    clips = config.data.batch_size / hosts
    decoded = sum(value.nbytes for value in row.values())
    frames = row["video"].shape[1] if "video" in row else 0
    side = row["video"].shape[2] if frames else 0
    jpeg = frames * _JPEG_BYTES_PER_SQUARE * (side * _STORED_SIDE) ** 2
    sound = row["audio"].nbytes if "audio" in row else 0
    rate = None if step_s is None else clips / step_s
    return {
        "hosts": hosts,
        "clips_per_step": clips,
        "decoded_bytes_per_clip": decoded,
        "jpeg_bytes_per_clip": round(jpeg),
        "sound_bytes_per_clip": sound,
        "clips_per_s": rate,
        "frames_per_s": None if rate is None else rate * frames,
        "decoded_mb_per_s": None if rate is None else rate * decoded / 1e6,
        "stored_mb_per_s": None if rate is None else rate * (jpeg + sound) / 1e6,
    }
