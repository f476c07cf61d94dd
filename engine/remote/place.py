"""Where a workdir behind a URL lies on this machine: its stage, a local folder that the engine works in."""

import hashlib
import os
import re
from pathlib import Path

from ...base.errors import UserError
from ...data.remote import EXTRAS

ROOT = "TWINREEL_STAGE"
"""Environment variable: the folder of all stages; by default twinreel/workdirs in the user's cache folder."""
_URL = re.compile(r"(?i)([a-z][a-z0-9+.-]+):/+(.*)")
_STAGES: dict[Path, str] = {}  # stages of this process -> URL


def url_in(text: str | Path) -> str | None:
    """Return the s3:// or gs:// URL that a path or a string means, without a slash at its end; None if it is none.

    A `Path` of a URL, which has lost a slash, is understood as well.

    >>> url_in("s3://bucket/run/"), url_in(Path("gs://bucket/run")), url_in("runs/mine"), url_in("hf:me/model")
    ('s3://bucket/run', 'gs://bucket/run', None, None)
    """
    match = _URL.fullmatch(str(text))
    if not match or match[1].lower() not in EXTRAS:
        return None
    return f"{match[1].lower()}://{match[2].rstrip('/')}"


def workdir_of(text: str, *, process: int = 0, flag: str = "--workdir") -> Path:
    """Return the folder in which this process works for a workdir: the folder itself, or the stage of a URL.

    Args:
      text: a folder, or an s3:// or gs:// URL.
      process: the number of this process in its run; each has a stage of its own, also on one machine.
      flag: the flag that names the workdir, for messages.

    Raises:
      UserError: a URL of another kind.
    """
    url = url_in(text)
    if url is not None:
        if "/" not in url.partition("://")[2]:
            raise UserError(f"{flag} must be a folder in a bucket, got {text!r}; wanted for example {url}/run1")
        folder = stages() / f"{_short(url)}" / f"process-{process}"
        _STAGES[folder] = url
        return folder
    if "://" in text:
        raise UserError(
            f"{flag} must be a folder, or an s3:// or gs:// URL, got {text!r}; mount other stores as a file system"
        )
    return Path(text)


def url_of(folder: Path) -> str | None:
    """Return the URL that a folder is the stage of, or lies in the stage of; None for any other folder."""
    folder = folder.absolute()
    for stage, url in _STAGES.items():
        if folder.is_relative_to(stage):
            inside = folder.relative_to(stage).as_posix()
            return url if inside == "." else f"{url}/{inside}"
    return None


def shown(folder: Path) -> str:
    """Return what a message calls a workdir: its URL if it has one."""
    return url_of(folder) or str(folder)


def stages() -> Path:
    """Return the folder of all stages."""
    return Path(os.environ.get(ROOT) or cache() / "workdirs").absolute()


def cache() -> Path:
    """Return the folder of twinreel in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "twinreel"


def _short(url: str) -> str:
    """A name for a URL that people recognise and no other URL has."""
    last = re.sub(r"[^A-Za-z0-9._-]+", "_", url.rpartition("/")[2])[:40]
    return f"{last}-{hashlib.sha256(url.encode()).hexdigest()[:12]}"
