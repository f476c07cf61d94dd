"""Messages between a decoding process and its parent: one line of JSON, then raw bytes.

Not pickle: the process reads untrusted media files, so the parent must not execute its answers.
"""

import dataclasses
import json
import os
from typing import Any, BinaryIO

import numpy as np

from ..paths import PathLike
from .decode import DecodedClip, DecodeError, DecodeOptions
from .fingerprint import Fingerprint


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """One clip to decode; see `decode_clip`.

    Attributes:
      sound_only: decode the sound of a sound file or a film alone, see `decode_sound`; the clip has no pictures then.
        Without `start_s` it begins with the first sample of the track.
    """

    path: PathLike
    options: DecodeOptions
    start_s: float | None = None
    end_s: float | None = None
    sound_only: bool = False


def send_job(pipe: BinaryIO, *, job: Job) -> None:
    """Write a job."""
    _send(pipe, header=dataclasses.asdict(job) | {"path": os.fspath(job.path)})


def receive_job(pipe: BinaryIO) -> Job:
    """Read a job; EOFError at the end of the input."""
    header = _receive(pipe)
    fields: dict[str, Any] = header | {"options": DecodeOptions(**header["options"])}
    return Job(**fields)


def send_answer(pipe: BinaryIO, *, answer: DecodedClip | DecodeError) -> None:
    """Write a decoded clip, or the error."""
    if isinstance(answer, DecodeError):
        _send(pipe, header={"reason": answer.reason, "detail": answer.detail})
        return
    sound = b"" if answer.audio is None else answer.audio.astype("<i2").tobytes()
    parts = [answer.timestamps_s.astype("<f4").tobytes(), sound, *answer.encoded]
    kept = ("height", "width", "duration_s", "notes", "silent", "source", "stated_s")
    header = {key: getattr(answer, key) for key in kept}
    header["fingerprint"] = None if answer.fingerprint is None else dataclasses.asdict(answer.fingerprint)
    _send(pipe, header=header | {"has_audio": answer.audio is not None, "sizes": [len(part) for part in parts]})
    for part in parts:
        pipe.write(part)
    pipe.flush()


def receive_answer(pipe: BinaryIO) -> DecodedClip | DecodeError:
    """Read an answer.

    Raises:
      EOFError: the process ended before the answer was complete.
      ValueError: the message is no answer.
    """
    header = _receive(pipe)
    if "reason" in header:
        return DecodeError(header["reason"], header["detail"])
    stamps, sound, *encoded = [_exactly(pipe, size=size) for size in header["sizes"]]
    return DecodedClip(
        encoded=encoded,
        timestamps_s=np.frombuffer(stamps, "<f4").copy(),
        height=header["height"],
        width=header["width"],
        audio=np.frombuffer(sound, "<i2").copy() if header["has_audio"] else None,
        duration_s=header["duration_s"],
        notes=tuple(header["notes"]),
        silent=header["silent"],
        source=header["source"],
        stated_s=header["stated_s"],
        fingerprint=None if header["fingerprint"] is None else _fingerprint(**header["fingerprint"]),
    )


def _fingerprint(*, sha256: str, phash: list[str], motion: list[str]) -> Fingerprint:
    return Fingerprint(sha256=sha256, phash=tuple(phash), motion=tuple(motion))


def _send(pipe: BinaryIO, *, header: dict[str, Any]) -> None:
    pipe.write(json.dumps(header).encode() + b"\n")
    pipe.flush()


def _receive(pipe: BinaryIO) -> dict[str, Any]:
    line = pipe.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    return json.loads(line)


def _exactly(pipe: BinaryIO, *, size: int) -> bytes:
    part = pipe.read(size)
    if len(part) < size:
        raise EOFError
    return part
