"""Decode the videos of a source once, into a folder of record shards."""

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from ...base.errors import UserError, unknown
from ..layout import APPENDING, BUILDING, FORMAT, INPUTS, RECORDS_VERSION, SETTINGS
from ..machine import cores
from ..manifest import Clip, write_jsonl, write_whole
from ..media.decode import DecodeOptions
from ..media.limits import Limits, check_limits
from ..paths import PathLike, file_name, is_remote
from ..prepare import sending
from ..sources.captions import CaptionCounts, clean_captions
from ..sources.notes import Notes
from ..sources.read import Listing, read_source
from .append import PART, append_to, recover
from .checks import check_beam, check_options, form
from .duplicates import refuse_counted
from .folder import KEPT, finished, only_one, resumes
from .found import Found
from .inputs import Inputs, State, contents_by_path, list_hash, load_states, read_inputs, source_hash, to_lines
from .joining import ensure_index
from .printing import print_changed, print_done, print_found, print_notes, print_rejects


def prepare(
    source: PathLike,
    *,
    out: PathLike,
    fps: float | None = 8.0,
    short_side: int = 256,
    frames_as: str = "jpeg",
    jpeg_quality: int | None = None,
    segment: int | None = None,
    crf: int | None = None,
    audio: bool = True,
    max_seconds: float = 600.0,
    max_pixels: int = 2**26,
    crop_faces: str = "",
    splits: Sequence[str] = (),
    workers: int = 0,
    max_bad_fraction: float = 0.05,
    shard_clips: int = 0,
    beam_runner: str = "",
    beam_options: Sequence[str] = (),
    clip_timeout: float = 60.0,
    clip_memory_gb: float = 4.0,
    duplicates: str = "report",
    fail_on_leak: bool = False,
    overwrite: bool = False,
    append: bool = False,
    found: Found | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Decode the clips of a source into the folder `out`, unless that has been done.

    Args:
      source: manifest (.jsonl), CSV or folder; see `read_source`.
      out: the folder to make, or a URL to which it is sent once it is built; with Beam, its workers send the shards.
      fps: frames per second to keep; 0 or None = every frame.
      short_side: pixels of the frames' shorter side, 0 = as in the file; smaller pictures are not enlarged.
      frames_as: "jpeg" stores a JPEG file for each frame, "h264" segments of H.264: less room, more time to decode.
      jpeg_quality: of "jpeg", 1 to 100; None = 92.
      segment: of "h264", frames from one key picture to the next, 1 to 64; None = 8.
      crf: of "h264", constant rate factor of libx264, 1 (best) to 51; None = 18.
      audio: whether to keep the sound (16 kHz mono).
      max_seconds: longest clip that is accepted, in seconds.
      max_pixels: largest picture (width * height in the file) that is accepted.
      crop_faces: ONNX file of OpenCV's face detector YuNet; frames become squares of `short_side` pixels with the face,
        and clips without a face are rejected. "" = frames stay whole.
      splits: the splits to prepare; () = all.
      workers: decoding processes; 0 = one per core; with Beam: of each shard that is being made, 0 = one.
      max_bad_fraction: share of the clips, 0 to 1, that may turn out unusable before the build fails.
      clip_timeout: seconds that one second of a clip may take to decode; 0 = no limit.
      clip_memory_gb: memory of a decoding process in GB; 0 = no limit.
      shard_clips: clips of a shard, the unit in which an interrupted build goes on; 0 = 64 to 1024, by their number.
      beam_runner: name of the Apache Beam runner that makes the shards; "" = this machine, without Beam.
      beam_options: the runner's options, `name=value` or `name`.
      duplicates: `report` lists clips that are the same or nearly in duplicates.jsonl, `drop` leaves them out of the
        records as well (train gives way to other splits, later clips to earlier ones), `keep` does not look.
      fail_on_leak: whether to fail when a clip of another split has a duplicate in train.
      overwrite: replace what an earlier run with other options left in `out`, whole or not.
      append: whether the source comes on top of those that are in `out`, whose shards stay as they are. Of duplicates
        that are dropped, the clips that are there stay.
      found: the clips, where they have been read already; `source` is then only a name.
      console: where the tables go; None = standard output.

    Returns:
      What is written to `out/prepare.json`: options, counts per split, bytes, reasons of rejection; with `append`, of
      the whole, and `parts` of each source.

    Raises:
      UserError: a fault in the source or the options, another result in `out`, or too many unusable clips.
    """
    url = os.fspath(out).rstrip("/") if is_remote(out) else ""
    out, console = sending.staging_folder(url, append=append) if url else Path(out), console or Console()
    if append and overwrite:
        raise UserError("--append keeps what --out holds, and --overwrite replaces it; give one of them")
    place = out / APPENDING / PART if append else out  # where the source is prepared
    options = DecodeOptions(
        fps=float(fps or 0),
        short_side=short_side,
        **form(frames_as, jpeg_quality=jpeg_quality, segment=segment, crf=crf),
        audio=audio,
        max_seconds=max_seconds,
        max_pixels=max_pixels,
        crop_faces=str(crop_faces),
    )
    check_options(options, workers=workers, max_bad_fraction=max_bad_fraction, shard_clips=shard_clips)
    check_limits(clip_timeout=clip_timeout, clip_memory_gb=clip_memory_gb)
    check_beam(beam_runner, beam_options)
    read = _read(source, found=found, splits=splits, place=place, url="" if append else url, console=console)
    settings = {
        "options": options,
        "limits": Limits(clip_timeout=clip_timeout, clip_memory_gb=clip_memory_gb),
        "workers": workers or (1 if beam_runner else cores()),
        "max_bad_fraction": max_bad_fraction,
        "shard_clips": shard_clips,
        "duplicates": {"mode": duplicates, "fail_on_leak": fail_on_leak},
    }
    inputs, wanted = read.inputs, read.wanted(source, settings=settings)
    given = {
        "root": read.root,
        "known": read.known,
        "wanted": wanted,
        "console": console,
        "settings": settings,
        "fleet": (beam_runner, tuple(beam_options)) if beam_runner else None,
        "far": f"{url}/{APPENDING if append else BUILDING}" if url and beam_runner else "",
        "finish": found.finish if found else lambda folder, report: report,
    }
    if not append:
        return _into(out, inputs, url=url, overwrite=overwrite, **given)
    settings["duplicates"]["before"] = out
    ids = (clip.clip_id for clip in inputs.clips)
    build = lambda part: _into(part, inputs, url="", overwrite=True, **given)  # noqa: E731
    return append_to(out, wanted=wanted, clip_ids=ids, build=build, console=console, url=url)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Read:
    """A source as it was read.

    Attributes:
      root: folder of the clips' paths.
      inputs: its clips with the states of their files.
      known: states of files that earlier builds looked at.
      missing: clips of a benchmark without a file.
      notes: what was corrected in the source.
      captions: how captions were cleaned.
    """

    root: PathLike
    inputs: Inputs
    known: dict[str, State]
    missing: Sequence[Clip]
    notes: Notes
    captions: CaptionCounts

    def wanted(self, source: PathLike, *, settings: dict[str, Any]) -> dict[str, Any]:
        """Return what decides whether a finished folder is what is asked for: options and hashes of the source."""
        splits = sorted({clip.split for clip in self.inputs.clips})
        further = {"splits": splits, "drop_duplicates": settings["duplicates"]["mode"] == "drop"}
        return {
            "version": FORMAT,
            "records_version": RECORDS_VERSION,
            "options": settings["options"].to_dict() | further,
            "shard_clips": settings["shard_clips"],
            "source": file_name(source),
            "source_notes": self.notes.counts(),
            "list_sha256": list_hash([*self.inputs.clips, *self.missing]),
            "source_sha256": source_hash([*self.inputs.clips, *self.missing], contents=self.inputs.contents()),
            "captions": dataclasses.asdict(self.captions),
        }


def _read(
    source: PathLike, *, found: Found | None, splits: Sequence[str], place: Path, url: str, console: Console
) -> _Read:
    """Read the source, unless its clips were found already, and look at its files."""
    listing = Listing(root=found.root, clips=found.clips, notes=Notes()) if found else read_source(source)
    clips, captions = clean_captions(_choose(listing.clips, splits), notes=listing.notes)
    _check_captions(clips, source=source, notes=listing.notes, console=console)
    known = load_states(place, url=url)
    inputs = read_inputs(clips, root=listing.root, known=known, notes=listing.notes)
    print_notes(console, listing.notes)
    missing = found.missing if found else []
    return _Read(root=listing.root, inputs=inputs, known=known, missing=missing, notes=listing.notes, captions=captions)


def _into(
    out: Path,
    inputs: Inputs,
    *,
    url: str,
    overwrite: bool,
    known: dict[str, State],
    wanted: dict[str, Any],
    console: Console,
    settings: dict[str, Any],
    **build: Any,
) -> dict[str, Any]:
    """Build the folder unless it is what is wanted; one behind a URL is sent there."""
    fail_on_leak = settings["duplicates"]["fail_on_leak"]
    with only_one(out):
        done = sending.finished(url, wanted, overwrite=overwrite) if url else None
        if done is not None:
            sending.remove_sent(out, done=done)
            print_done(console, done, out=url)
            if fail_on_leak:
                refuse_counted(done["duplicates"], folder=url)
            return done
        recover(out)
        overwrite = overwrite or bool(url)  # what is behind the URL has been looked at; the local folder is only ours
        done = finished(out, wanted, overwrite=overwrite)
        with sending.sent(out, url=url):
            if done is not None:
                _finish_again(out, done, inputs=inputs, known=known, fail_on_leak=fail_on_leak)
                if "before" not in settings["duplicates"]:
                    print_done(console, done, out=out)
                return done
            begun = resumes(out, wanted, overwrite=overwrite, console=console)
            of = {"known": known, "wanted": wanted, "console": console, "settings": settings}
            return _build(inputs, out=out, begun=begun, **of, **build)


def _finish_again(
    out: Path, done: dict[str, Any], *, inputs: Inputs, known: dict[str, State], fail_on_leak: bool
) -> None:
    """Do what is left to do in a finished folder, and give one of an earlier version its index."""
    shutil.rmtree(out / BUILDING, ignore_errors=True)  # a build that was killed at its very end leaves it
    ensure_index(out, done=done)
    states = known | inputs.states if "parts" in done else inputs.states  # those of other sources are known as well
    if to_lines(known) != to_lines(states):
        with contextlib.suppress(OSError):  # it only saves reading the files again
            write_jsonl(out / INPUTS, lines=to_lines(states))
    if fail_on_leak:
        from .settle import check_leaks

        check_leaks(out)


def _build(
    inputs: Inputs,
    *,
    root: PathLike,
    out: Path,
    known: dict[str, State],
    wanted: dict[str, Any],
    console: Console,
    settings: dict[str, Any],
    fleet: tuple[str, tuple[str, ...]] | None,
    far: str,
    begun: bool,
    finish: Callable[[Path, dict[str, Any]], dict[str, Any]],
) -> dict[str, Any]:
    """Build the folder, write prepare.json last, print what was found."""
    from ..prepare import (
        builder,  # here, because it loads tensorflow: --help and faults in the source do not wait for it
    )
    from .maker import BeamRunner
    from .settle import Treatment
    from .shards import writing
    from .summary import TooManyRejects

    if not begun:
        _begin(inputs, out=out, known=known, wanted=wanted, console=console, settings=settings)
    with writing(out / BUILDING / SETTINGS):
        write_whole(out / BUILDING / SETTINGS, parts=[json.dumps({key: wanted[key] for key in KEPT}, indent=2), "\n"])
        write_jsonl(out / BUILDING / INPUTS, lines=to_lines(inputs.states))
    runner = BeamRunner(name=fleet[0], options=fleet[1]) if fleet else None
    treatment = Treatment(**settings.pop("duplicates"))
    files = {"contents": inputs.contents(), "root": root, "out": out, "far": far}
    try:
        summary = builder.build(inputs.clips, **files, runner=runner, treatment=treatment, **settings)
    except TooManyRejects as error:
        print_rejects(console, error.summary)
        raise
    report = wanted | {
        "counts": summary.counts(),
        "bytes": summary.bytes,
        "shards": summary.shards,
        "rejected": dict(summary.reasons.most_common()),
        "notes": dict(summary.notes.most_common()),
        "duplicates": summary.duplicates,
    }
    report = finish(out, report)
    with writing(out / "prepare.json"):
        write_jsonl(out / INPUTS, lines=to_lines(inputs.states))
        write_whole(out / "prepare.json", parts=[json.dumps(report, indent=2, ensure_ascii=False), "\n"])
    builder.end(out)
    done = "appended to" if treatment.before else "prepared"
    print_found(console, summary, report, out=treatment.before or out, done=done)
    print_rejects(console, summary)
    return report


def _begin(
    inputs: Inputs,
    *,
    out: Path,
    known: dict[str, State],
    wanted: dict[str, Any],
    console: Console,
    settings: dict[str, Any],
) -> None:
    """Begin a build: with the shards of a finished folder that are as they should be, or with none."""
    from ..prepare import builder
    from .repair import repair
    from .shards import writing

    planned = {key: settings[key] for key in ("options", "shard_clips")}
    shards, before = (
        builder.plan_build(inputs.clips, contents=contents, **planned)
        for contents in (inputs.contents(), contents_by_path(inputs.clips, known))
    )
    print_changed(console, out=out, known=known, states=inputs.states)
    with writing(out / BUILDING):
        again = repair(out, shards=shards, before=before, wanted=wanted)
    if again:
        console.print(f"made again: {', '.join(again[:3])}{' ...' * (len(again) > 3)}", style="yellow")
    else:
        builder.begin(out)


def _check_captions(clips: list[Clip], *, source: PathLike, notes: Notes, console: Console) -> None:
    """Refuse a source that has no text at all: decoding it would only list every clip as rejected."""
    if not any(clip.captions or clip.questions for clip in clips):
        print_notes(console, notes)
        raise UserError(
            f"none of the {len(clips)} clips of {str(source)!r} has a caption, a label or a question; fill in one "
            "of them. In a folder: put a .txt with captions beside each video, or the videos into class folders"
        )


def _choose(clips: list[Clip], splits: Sequence[str]) -> list[Clip]:
    known = {clip.split for clip in clips}
    for split in splits:
        if split not in known:
            raise unknown("split (--splits)", split, known)
    return [clip for clip in clips if clip.split in splits] if splits else clips
