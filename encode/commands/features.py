"""`twinreel features`: vectors of the frames of clips, computed once, for towers that train on them."""

import argparse
import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import os
import re
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...base.errors import UserError, unknown
from ...base.parser import Parser
from ...zoo.digest import MADE_BY
from ..frames.describers import Describer, of_config, of_model, write_array

if TYPE_CHECKING:
    from ...data.manifest import Clip
    from ...data.options import InputSpec

ABOUT = "about.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
DESCRIPTION = """Compute a vector for each frame that a model sees of a clip, and write a manifest that names them.

  twinreel features clips.jsonl --model hf:facebook/dinov2-small --name dinov2 --out clips_dinov2.jsonl
  twinreel prepare clips_dinov2.jsonl --out data/mine
  twinreel pretrain --config mine --data data/mine --config.model.video.features=dinov2 ...

A tower whose image encoder is frozen then trains without running it: hours become minutes. --model is anything that
`twinreel encode` takes (public weights, a run, a bundle), or hog or sift (a bag of 256 visual words), classical
baselines without weights. --config takes the video tower of a config instead, with its changes.

Frames are drawn and scaled as the model's own evaluation does. The vectors go to a folder beside the new manifest, a
.npy file [frames, D] for each clip. Run the same command again after an interruption: clips that are done are kept."""


def main(argv: list[str]) -> int:
    """Run the verb."""
    parser = Parser(verb="features", description=DESCRIPTION)
    parser.add_argument("manifest", metavar="MANIFEST", help="a .jsonl file, see `twinreel prepare --help`")
    parser.add_argument("--model", default="", help="public weights, a run, a bundle; or hog, sift")
    parser.add_config(default="")
    parser.add_argument("--name", default="", help="of the features in the manifest; default: made of the model's")
    parser.add_argument("--out", required=True, metavar="FILE", help="the new manifest (.jsonl)")
    parser.add_argument("--frames", type=int, default=0, help="frames T of a clip; default: as the model has it")
    parser.add_argument("--fps", type=float, default=8.0, help="frames per second from which they are drawn; 0: all")
    parser.add_argument("--batch_size", type=int, default=4, help="clips at a time")
    parser.add_argument("--workers", type=int, default=0, help="processes that decode; 0 = one per core")
    parser.add_json()
    args, overrides = parser.parse(argv)
    if bool(args.model) == bool(args.config):
        raise UserError("give either --model MODEL or --config CONFIG, whose video tower computes the features")
    if overrides and not args.config:
        raise UserError(f"--config.{overrides[0].removeprefix('--config.')} changes a config; give --config CONFIG")
    _check_flags(args)
    describer, name = of_config(args.config, overrides) if args.config else (of_model(args.model), "")
    name = args.name or name or _name(args.model)
    decode = {"fps": args.fps or None, "short_side": 0}
    input = dataclasses.replace(describer.input, decode=decode)
    input = dataclasses.replace(input, num_frames=args.frames) if args.frames else input
    found = compute_features(
        Path(args.manifest),
        describer=dataclasses.replace(describer, input=input),
        name=name,
        out=Path(args.out),
        batch_size=args.batch_size,
        workers=args.workers,
    )
    print(json.dumps(found)) if args.json else _print_summary(found)
    return 0


def compute_features(
    manifest: Path, *, describer: Describer, name: str, out: Path, batch_size: int = 4, workers: int = 0
) -> dict[str, Any]:
    """Describe the frames of all clips of a manifest, and write a manifest with their features.

    Args:
      manifest: of the clips.
      describer: what gives the vectors.
      name: of the features.
      out: the new manifest; vectors are written to the folder `OUT.NAME/` next to it.
      batch_size: clips described at a time.
      workers: processes that decode; 0 = one per core.

    Returns:
      JSON values: `manifest` (the new one), `name`, `clips`, `described` (how many), `shape` of a clip's vectors, and
      `failed`, what was wrong with clips that cannot be decoded.

    Raises:
      UserError: no such manifest, features of that name by another model in the folder, or no clip can be decoded.
    """
    from ...data.manifest import read_manifest, write_manifest

    if not _NAME.fullmatch(name):
        raise UserError(f"--name {name!r} is no name of features: letters, digits and ., _ or -, such as dinov2")
    if out.suffix != ".jsonl" or out.is_dir():
        raise UserError(f"--out {out} must be the new manifest, a file whose name ends in .jsonl")
    clips = read_manifest(manifest)
    if not any(clip.path for clip in clips):
        raise UserError(
            f"no clip of {manifest} has a path, so there are no frames to describe; give a manifest of files"
        )
    folder = out.parent / f"{out.stem}.{name}"
    _claim(folder, about=describer.about | {"input": dataclasses.asdict(describer.input)}, name=describer.name)
    files = {clip.clip_id: folder / _file_name(clip) for clip in clips if clip.path}
    todo = [clip for clip in clips if clip.path and not files[clip.clip_id].is_file()]
    decoded = functools.partial(_decoded, input=describer.input, root=manifest.parent, workers=workers)
    failed = _write_all(todo, describer=describer, files=files, decoded=decoded, folder=folder, batch_size=batch_size)
    if failed and not any(path.is_file() for path in files.values()):
        raise UserError(f"no clip of {manifest} can be decoded; the first: {failed[0]}")
    moved = (_moved(clip, old=manifest.parent, new=out.parent) for clip in clips)
    made_by = {name: describer.about["weights"]} if "weights" in describer.about else {}
    described = (_with_features(clip, name=name, files=files, root=out.parent, made_by=made_by) for clip in moved)
    write_manifest(out, clips=described)
    done = [path for path in files.values() if path.is_file()]
    shape = np.load(done[0], mmap_mode="r", allow_pickle=False).shape if done else (0, 0)
    counts = {"clips": len(clips), "described": len(done), "shape": list(shape)}
    return {"manifest": str(out), "name": name, **counts, "failed": failed}


def _check_flags(args: argparse.Namespace) -> None:
    """Raise UserError for a number out of its range."""
    for flag, least in (("frames", 0), ("fps", 0), ("batch_size", 1), ("workers", 0)):
        if not least <= getattr(args, flag) < float("inf"):
            raise UserError(f"--{flag}={getattr(args, flag)} must be a number of at least {least}")


def _write_all(
    todo: "Sequence[Clip]",
    *,
    describer: Describer,
    files: dict[str, Path],
    decoded: Callable[..., Generator[Any]],
    folder: Path,
    batch_size: int,
) -> list[str]:
    """Describe clips and write their files; return what was wrong with those that cannot be decoded."""
    describe, failed = describer.describe, []
    if describer.prepare is not None:
        with contextlib.closing(decoded(todo)) as found:
            describe = describer.prepare((frames for _, frames in found if not isinstance(frames, str)), folder)
    with contextlib.closing(decoded(todo, progress=True)) as found:
        whole = _good(found, failed=failed)
        while batch := list(itertools.islice(whole, batch_size)):
            frames = np.stack([one for _, one in batch])
            padding = np.zeros((batch_size - len(batch), *frames.shape[1:]), np.uint8)  # one shape, one compilation
            vectors = np.asarray(describe(np.concatenate([frames, padding])), np.float32)
            for (clip, _), rows in zip(batch, vectors, strict=False):
                write_array(files[clip.clip_id], rows)
    return failed


def _good(found: Iterator[Any], *, failed: list[str]) -> Iterator[Any]:
    """Yield clips with their frames; add to `failed` those without."""
    for clip, frames in found:
        if isinstance(frames, str):
            failed.append(f"{clip.path}: {frames}")
        else:
            yield clip, frames


def _decoded(
    clips: "Sequence[Clip]", *, input: "InputSpec", root: Path, workers: int, progress: bool = False
) -> Generator[tuple["Clip", np.ndarray | str]]:
    """Yield each clip with its frames uint8 [T,H,W,3], or with the reason why it has none."""
    from rich.console import Console
    from rich.progress import track

    from ...data.machine import cores
    from ...data.media.decode import DecodeError
    from ...data.media.workers import Job, decode_in_order
    from ...data.paths import join
    from ..media.files import decode_options, frames_of

    options = decode_options(input)
    jobs = (
        Job(path=join(os.fspath(root), clip.path), options=options, start_s=clip.start_s, end_s=clip.end_s)
        for clip in clips
    )
    results = decode_in_order(jobs, workers=min(workers or cores(), max(len(clips), 1)))
    shown = track(clips, "features", console=Console(stderr=True), disable=not progress, transient=True)
    with contextlib.closing(results):
        for clip in shown:
            result = next(results)
            yield clip, str(result) if isinstance(result, DecodeError) else frames_of(input, clip=result)


def _claim(folder: Path, *, about: dict[str, Any], name: str) -> None:
    """Make the folder of the features, or check that those in it are the same kind; `name` is informational."""
    from ...base.config import difference
    from ...data.manifest import write_whole

    folder.mkdir(parents=True, exist_ok=True)
    about = json.loads(json.dumps(about, default=str))
    file = folder / ABOUT
    if not file.is_file():
        write_whole(file, parts=[json.dumps({"model": name} | about, indent=1)])
        return
    before = json.loads(file.read_text(encoding="utf-8"))
    different = difference(before, {"model": before.get("model")} | about)
    if different:
        raise UserError(
            f"{folder} holds features that differ (in it -> now: {'; '.join(different)}); choose another --name or "
            "--out, or delete the folder"
        )


def _file_name(clip: "Clip") -> str:
    """Return a name that any file system takes, and that changes with what the clip shows."""
    key = json.dumps([clip.clip_id, clip.path, clip.start_s, clip.end_s])
    return hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()[:24] + ".npy"


def _moved(clip: "Clip", *, old: Path, new: Path) -> "Clip":
    """Return a clip whose paths are relative to the folder of another manifest."""
    from ...data.paths import is_plain

    def path(name: str) -> str:
        plain = name and is_plain(name) and not Path(name).is_absolute()
        return Path(os.path.relpath(old / name, new)).as_posix() if plain else name

    features = {name: path(file) for name, file in clip.features.items()}
    return dataclasses.replace(clip, path=path(clip.path), features=features)


def _with_features(clip: "Clip", *, name: str, files: dict[str, Path], root: Path, made_by: dict[str, str]) -> "Clip":
    """Return a clip with its features, and with the weights that made them."""
    file = files.get(clip.clip_id)
    if file is None or not file.is_file():
        return clip
    features = clip.features | {name: file.relative_to(root).as_posix()}
    meta = clip.meta | ({MADE_BY: clip.meta.get(MADE_BY, {}) | made_by} if made_by else {})
    return dataclasses.replace(clip, features=features, meta=meta)


def _print_summary(found: dict[str, Any]) -> None:
    counts = f"{found['described']} of {found['clips']} clips with features of shape {found['shape']}"
    print(f"{found['manifest']}: {counts}", file=sys.stderr)
    for line in found["failed"][:10]:
        print(f"  not decoded: {line}", file=sys.stderr)
    if len(found["failed"]) > 10:
        print(f"  and {len(found['failed']) - 10} more", file=sys.stderr)


def _name(model: str) -> str:
    """Make a name of features from that of a model: lower case letters, digits and _."""
    last = model.split("@")[0].rstrip("/").rsplit("/", 1)[-1].lower()
    made = "".join(c if c.isascii() and c.isalnum() else "_" for c in last).strip("_")
    if not made:
        raise unknown("--name", model, ["dinov2"])
    return made
