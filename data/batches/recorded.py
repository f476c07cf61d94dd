"""Prepared records as decoded clips, for what looks at clips in parts."""

from google.protobuf.message import DecodeError

from ..media.clip import DecodedClip
from ..options import SAMPLE_RATE
from .records import Record, Records, damaged_record


def clip_of_record(records: Records, *, split: str, index: int, sound: bool = False) -> DecodedClip:
    """Return a record as the clip that was decoded: all frames with their times and, if asked for, the sound.

    Each frame is as `Record.frames` returns it.

    Raises:
      UserError: the record cannot be read.
    """
    row = records.rows(split)[index]
    duration = float(row["duration_s"])
    try:
        record = Record(records.read(split, [index])[0])
        times = record.timestamps_s
        if not len(times) or len(times) != row["num_frames"]:
            raise ValueError(f"{len(times)} frames instead of {row['num_frames']}")
        encoded = record.frames(range(len(times)))
        audio = None
        if sound:
            audio = record.sound(start_s=0.0, end_s=duration, samples=round(duration * SAMPLE_RATE))
    except (DecodeError, IndexError, ValueError) as error:
        raise damaged_record(split, index, str(error)) from error
    size = {"height": row["height"], "width": row["width"]}
    heard = audio if audio is not None and len(audio) else None
    return DecodedClip(encoded=encoded, timestamps_s=times, **size, audio=heard, duration_s=duration)
