"""Stretches of films and pictures without faces, for showing: made by a process of its own with limits."""

import json
import os
import subprocess
import sys
from pathlib import Path

from av.error import FFmpegError

from ...base.errors import UserError
from .clip import DecodeOptions
from .cut import cut
from .decode import decode_clip
from .limits import Limits, confine
from .place import DecodeError

_WRONG = 3  # exit status of a process that says on standard output what is wrong


def show_apart(
    source: Path,
    *,
    out: Path,
    start_s: float | None = None,
    end_s: float | None = None,
    blur_faces: str,
    limits: Limits,
    seconds: float = 120.0,
) -> None:
    """Write a stretch of a film as MP4, or a picture as JPEG, with faces blurred.

    Args:
      source: a film, or a picture.
      out: the file; it appears whole or not at all.
      start_s: of a film, in seconds from its first picture; None = `source` is a picture.
      end_s: end of the stretch.
      blur_faces: ONNX file of the detector, see `faces`.
      limits: `clip_memory_gb` holds.
      seconds: how long it may take.

    Raises:
      DecodeError: the source cannot be decoded there, or not within the limits.
    """
    given = {"source": str(source), "out": str(out), "start_s": start_s, "end_s": end_s, "blur_faces": blur_faces}
    text = json.dumps(given | {"memory_gb": limits.clip_memory_gb})
    command = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import main; main({text!r})"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    given_all = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "text": True, "env": environment}
    try:
        done = subprocess.run([sys.executable, "-c", command], timeout=seconds, **given_all)
    except subprocess.TimeoutExpired as error:
        raise DecodeError(f"took longer than {seconds:g} s to decode") from error
    if done.returncode == _WRONG:
        raise DecodeError(*json.loads(done.stdout))
    if done.returncode:
        raise DecodeError("the decoder crashed", f"exit status {done.returncode}")


def main(text: str) -> None:
    """Do what `show_apart` is asked for: the main of its process."""
    given = json.loads(text)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # output of libraries must not mix with the answer
    confine(memory_gb=given.pop("memory_gb"))
    try:
        _show(**given)
    except DecodeError as error:
        wrong = [error.reason, error.detail]
    except (UserError, FFmpegError, OSError) as error:
        wrong = ["cannot be shown", str(error)]
    except MemoryError:
        wrong = ["cannot be shown", "there is not enough memory for it"]
    else:
        return
    answers.write(json.dumps(wrong))
    answers.close()
    sys.exit(_WRONG)


def _show(*, source: str, out: str, start_s: float | None, end_s: float | None, blur_faces: str) -> None:
    if start_s is not None and end_s is not None:
        cut(Path(source), out=Path(out), start_s=start_s, end_s=end_s, blur_faces=blur_faces)
        return
    options = DecodeOptions(fps=None, short_side=0, audio=False, blur_faces=blur_faces)
    temporary = Path(f"{out}.tmp")
    temporary.write_bytes(decode_clip(source, options=options).encoded[0])
    temporary.replace(out)
