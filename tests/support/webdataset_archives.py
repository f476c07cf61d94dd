"""Writes archives as video2dataset lays them out, and reads their clips."""

import io
import json
import tarfile

from rich.console import Console

from twinreel.data.sources.notes import Notes
from twinreel.data.sources.webdataset import read

META = {"url": "https://x.org/1", "caption": "a dog runs", "key": "0000001", "status": "success", "error_message": None}


def pack(path, files):
    """Write an archive of `{name: bytes, str or dict}` with tarfile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as out:
        for name, contents in files.items() if isinstance(files, dict) else files:
            data = json.dumps(contents, indent=4) if isinstance(contents, dict) else contents
            data = data.encode() if isinstance(data, str) else data
            info = tarfile.TarInfo(name)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
    return path


def clips_of(source):
    notes = Notes()
    root, clips = read(str(source), notes=notes, console=Console(file=io.StringIO()))
    return root, {clip.clip_id: clip for clip in clips}, "\n".join(notes.lines())
