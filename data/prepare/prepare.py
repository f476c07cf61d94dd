"""`twinreel prepare`: decode the videos of a manifest, a CSV or a folder once, into record shards."""

import argparse
import dataclasses
import importlib.util
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ...base.errors import UserError, unknown
from ...base.parser import Parser
from ..machine import cores
from ..manifest import Clip, write_whole
from ..media.decode import DecodeOptions
from ..media.limits import Limits, check_limits
from ..paths import PathLike, file_name, is_remote
from ..prepare import sending
from ..sources.read import clean_captions, read_source
from .duplicates import MODES, refuse_counted
from .folder import COMPARED, file_sizes, finished, goes_on, only_one, source_hash
from .found import Found
from .layout import BUILDING, FORMAT, RECORDS_VERSION, SETTINGS
from .printing import print_done, print_found, print_rejects

if TYPE_CHECKING:  # at run time it would load tensorflow
    pass

WEBDATASET = "webdataset"  # the source that --shards belongs to

_DESCRIPTION = """\
Decode videos once into record shards that training reads.

SOURCE is one of
  a manifest    FILE.jsonl, one clip per line: clip_id, path, captions[], split and, where known,
                start_s, end_s, labels[], transcript, meta{}; paths are relative to the manifest. features
                {"rgb": "a.npy"} are precomputed ones, [rows, columns] each; with them, path may be ""
  a CSV         FILE.csv with the columns path,caption[,start_s,end_s,split,label]; several rows of one path and
                window are several captions of one clip; other columns are kept as meta
  a folder      each video or picture (a clip of one frame) with a .txt beside it that has one caption per line; or,
                if none has one, class folders: the folder's name is the label, and the caption. Top folders train,
                val, test are splits
  archives      WebDataset .tar files, as video2dataset and img2dataset write them: one, a folder of them, or a pattern
                such as 'shards/{00000..00099}.tar': KEY.mp4 with KEY.txt (caption), KEY.json, KEY.cls (label); a
                picture is a clip of one frame. Members are read in place, nothing is unpacked
  a benchmark   NAME --annotations DIR --videos DIR: its owners' own files; --list names the benchmarks,
                NAME --help explains one. Missing videos are counted: OUT/prepare.json has each split's coverage

Without any split in the source, 80 % of the clips go to train, 10 % to val, 10 % to test, by a hash of the path (or
of meta.group, where a clip has one): windows of one file stay in one split, and so does a clip when others come or go.

A clip that cannot be used (no such file, not decodable, no caption and no label) is listed in OUT/rejects.jsonl with
its reason. Clips that are the same, byte for byte as stored or nearly, are listed in OUT/duplicates.jsonl; --duplicates
drop leaves them out, --fail_on_leak refuses a clip of another split that is in train too.

The same command on a finished OUT does nothing; interrupted, it goes on where it was, shard by shard.
If the source has changed meanwhile, the shards whose clips have changed are made again.

Manifests, CSV files, archives, the videos that they name, and OUT may lie behind a URL: s3:// (pip install
'twinreel[s3]'), gs:// ('twinreel[gcs]'), https:// to read. An OUT behind a URL is built in the user's cache folder and
then sent, prepare.json last.

On a fleet:  twinreel prepare SOURCE --out DIR --beam_runner DataflowRunner --beam_options project=P,region=R,...
Apache Beam's workers then make the shards, the same to the last byte; they must reach SOURCE and OUT by the same paths.
"""


def prepare(
    source: PathLike,
    *,
    out: PathLike,
    fps: float | None = 8.0,
    short_side: int = 256,
    jpeg_quality: int = 92,
    audio: bool = True,
    max_seconds: float = 600.0,
    max_pixels: int = 2**26,
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
    found: Found | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Decode the clips of a source into the folder `out`, unless that has been done.

    Args:
      source: manifest (.jsonl), CSV or folder; see `read_source`.
      out: the folder to make, or a URL to which it is sent once it is built.
      fps: frames per second to keep; 0 or None = every frame.
      short_side: pixels of the frames' shorter side, 0 = as in the file; smaller pictures are not enlarged.
      jpeg_quality: 1 to 100.
      audio: whether to keep the sound (16 kHz mono).
      max_seconds: longest clip that is accepted, in seconds.
      max_pixels: largest picture (width * height in the file) that is accepted.
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
      found: the clips, where they have been read already; `source` is then only a name.
      console: where the tables go; None = standard output.

    Returns:
      What is written to `out/prepare.json`: options, counts per split, bytes, reasons of rejection.

    Raises:
      UserError: a fault in the source or the options, another result in `out`, or too many unusable clips.
    """
    url = os.fspath(out).rstrip("/") if is_remote(out) else ""
    out, console = sending.staging_folder(url) if url else Path(out), console or Console()
    options = DecodeOptions(
        fps=float(fps or 0),
        short_side=short_side,
        jpeg_quality=jpeg_quality,
        audio=audio,
        max_seconds=max_seconds,
        max_pixels=max_pixels,
    )
    _check_options(options, workers=workers, max_bad_fraction=max_bad_fraction, shard_clips=shard_clips)
    check_limits(clip_timeout=clip_timeout, clip_memory_gb=clip_memory_gb)
    _check_beam(beam_runner, beam_options)
    root, clips = (found.root, found.clips) if found else read_source(source)
    missing = found.missing if found else []
    clips, dropped, from_labels = clean_captions(_choose(clips, splits))
    _check_captions(clips, source=source)
    sizes = file_sizes(clips, root=root)
    wanted = {
        "version": FORMAT,
        "records_version": RECORDS_VERSION,
        "options": dataclasses.asdict(options)
        | {"splits": sorted({clip.split for clip in clips}), "drop_duplicates": duplicates == "drop"},
        "shard_clips": shard_clips,
        "source": file_name(source),
        "source_sha256": source_hash([*clips, *missing], sizes={clip.path: -1 for clip in missing} | sizes),
        "captions": {"empty_dropped": dropped, "from_labels": from_labels},
    }
    with only_one(out):
        done = sending.finished(url, wanted, overwrite=overwrite) if url else None
        if done is not None:
            print_done(console, done, out=url)
            if fail_on_leak:
                refuse_counted(done["duplicates"], folder=url)
            return done
        overwrite = overwrite or bool(url)  # what is behind the URL has been looked at; the local folder is only ours
        done = finished(out, wanted, overwrite=overwrite)
        settings = {
            "sizes": sizes,
            "options": options,
            "limits": Limits(clip_timeout=clip_timeout, clip_memory_gb=clip_memory_gb),
            "workers": workers or (1 if beam_runner else cores()),
            "max_bad_fraction": max_bad_fraction,
            "shard_clips": shard_clips,
            "duplicates": (duplicates, fail_on_leak),
        }
        fleet = (beam_runner, tuple(beam_options)) if beam_runner else None
        with sending.sent(out, url=url):
            if done is not None:
                print_done(console, done, out=out)
                shutil.rmtree(out / BUILDING, ignore_errors=True)  # a build that was killed at its very end leaves it
                if fail_on_leak:
                    from .settle import check_leaks

                    check_leaks(out)
                return done
            return _build(
                clips,
                root=root,
                out=out,
                wanted=wanted,
                console=console,
                settings=settings,
                fleet=fleet,
                begun=goes_on(out, wanted, overwrite=overwrite, console=console),
                finish=found.finish if found else lambda folder, report: report,
            )


def _build(
    clips: list[Clip],
    *,
    root: PathLike,
    out: Path,
    wanted: dict[str, Any],
    console: Console,
    settings: dict[str, Any],
    fleet: tuple[str, tuple[str, ...]] | None,
    begun: bool,
    finish: Callable[[Path, dict[str, Any]], dict[str, Any]],
) -> dict[str, Any]:
    """Build the folder, write prepare.json last, print what was found."""
    from ..prepare import (
        builder,  # here, because it loads tensorflow: --help and faults in the source do not wait for it
    )
    from .maker import BeamRunner
    from .repair import repair
    from .settle import Treatment
    from .shards import writing
    from .summary import TooManyRejects

    told = {key: wanted[key] for key in COMPARED}
    if not begun:
        planned = {key: settings[key] for key in ("sizes", "options", "shard_clips")}
        with writing(out / BUILDING):
            damaged = repair(out, shards=builder.plan_build(clips, **planned), wanted=told)
        if damaged:
            console.print(f"damaged, made again: {', '.join(damaged[:3])}{' ...' * (len(damaged) > 3)}", style="yellow")
        else:
            builder.begin(out)
    with writing(out / BUILDING / SETTINGS):
        write_whole(out / BUILDING / SETTINGS, parts=[json.dumps(told, indent=2), "\n"])
    runner = BeamRunner(name=fleet[0], options=fleet[1]) if fleet else None
    mode, fail_on_leak = settings.pop("duplicates")
    treatment = Treatment(mode=mode, fail_on_leak=fail_on_leak)
    try:
        summary = builder.build(clips, root=root, out=out, runner=runner, treatment=treatment, **settings)
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
        write_whole(out / "prepare.json", parts=[json.dumps(report, indent=2, ensure_ascii=False), "\n"])
    builder.end(out)
    print_found(console, summary, report, out=out)
    print_rejects(console, summary)
    return report


def _check_captions(clips: list[Clip], *, source: PathLike) -> None:
    """Refuse a source that has no text at all: decoding it would only list every clip as rejected."""
    if not any(clip.captions for clip in clips):
        raise UserError(
            f"none of the {len(clips)} clips of {str(source)!r} has a caption or a label; fill in captions or labels. "
            "In a folder: put a .txt with captions beside each video, or the videos into class folders"
        )


def _choose(clips: list[Clip], splits: Sequence[str]) -> list[Clip]:
    known = {clip.split for clip in clips}
    for split in splits:
        if split not in known:
            raise unknown("split (--splits)", split, known)
    return [clip for clip in clips if clip.split in splits] if splits else clips


def _check_options(options: DecodeOptions, *, workers: int, max_bad_fraction: float, shard_clips: int) -> None:
    """Refuse values that make no sense, by the name of the flag."""
    for name, value, good, wanted in (
        ("fps", options.fps, 0 <= (options.fps or 0) <= 1000, "0 (every frame) or frames per second up to 1000"),
        (
            "short_side",
            options.short_side,
            0 <= options.short_side <= 16384,
            "0 (as in the file) or pixels up to 16384",
        ),
        ("jpeg_quality", options.jpeg_quality, 1 <= options.jpeg_quality <= 100, "1 to 100"),
        ("max_seconds", options.max_seconds, options.max_seconds > 0, "more than 0 seconds"),
        ("max_pixels", options.max_pixels, options.max_pixels > 0, "1 or more pixels"),
        ("workers", workers, 0 <= workers <= 1024, "0 (one per core) or a number of processes up to 1024"),
        ("max_bad_fraction", max_bad_fraction, 0 <= max_bad_fraction <= 1, "a share from 0 to 1"),
        ("shard_clips", shard_clips, shard_clips >= 0, "0 (by the number of clips) or a number of clips"),
    ):
        if not good:
            raise UserError(f"--{name} is {value}, wanted {wanted}")


def _check_beam(runner: str, options: Sequence[str]) -> None:
    if options and not runner:
        raise UserError(f"--beam_options {','.join(options)} has no --beam_runner; name one, as DirectRunner")
    if runner and importlib.util.find_spec("apache_beam") is None:
        raise UserError(f"--beam_runner {runner} needs Apache Beam: pip install 'twinreel[beam]'")


def main(argv: list[str]) -> int:
    """Run `twinreel prepare SOURCE --out DIR [flags]`."""
    from ..prepare import benchmark

    parser = Parser(verb="prepare", description=_DESCRIPTION)
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a manifest (.jsonl), a .csv, a folder of videos, .tar archives, or a benchmark",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to make, or a URL (s3://bucket/folder)")
    parser.add_argument("--fps", type=float, default=8.0, help="frames per second to keep; 0 keeps every frame")
    parser.add_argument("--short_side", type=int, default=256, help="pixels of the shorter side; 0 = as in the file")
    parser.add_argument("--jpeg_quality", type=int, default=92, help="1 to 100")
    parser.add_argument(
        "--audio", action=argparse.BooleanOptionalAction, default=True, help="keep the sound, 16 kHz mono"
    )
    parser.add_argument("--max_seconds", type=float, default=600.0, help="longest clip that is accepted")
    parser.add_argument("--max_pixels", type=int, default=2**26, help="largest picture (width * height) accepted")
    parser.add_argument("--splits", metavar="A,B", help="prepare only these splits")
    parser.add_argument(
        "--workers",
        type=int,
        default=0,
        help="decoding processes; 0 = one per core (with Beam: per shard in work, 0 = one)",
    )
    parser.add_argument("--max_bad_fraction", type=float, default=0.05, help="share of clips that may be unusable")
    parser.add_argument(
        "--shard_clips",
        type=int,
        default=0,
        metavar="N",
        help="clips of a shard, the unit in which an interrupted build goes on; 0 = 64 to 1024, by their number",
    )
    parser.add_argument(
        "--beam_runner",
        default="",
        metavar="NAME",
        help="make the shards on Apache Beam: DirectRunner ...",
    )
    parser.add_argument(
        "--beam_options",
        action="append",
        metavar="K=V,...",
        help="the runner's own options, passed on as --K=V; may be given several times",
    )
    parser.add_argument(
        "--clip_timeout", type=float, default=60.0, help="seconds that one second of a clip may take; 0 = no limit"
    )
    parser.add_argument(
        "--clip_memory_gb", type=float, default=4.0, help="memory of a decoding process in GB; 0 = no limit"
    )
    words = "clips that are the same or nearly: list them in duplicates.jsonl, drop them too, or do not look"
    parser.add_argument("--duplicates", default="report", choices=MODES, help=words)
    words = "fail if a clip of another split has a duplicate in train"
    parser.add_argument("--fail_on_leak", action="store_true", help=words)
    parser.add_argument(
        "--shards", metavar="PATTERN", help="archives of `prepare webdataset`: 'dir/{00000..00099}.tar'"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a result that has other options")
    benchmark.add_flags(parser)
    if benchmark.explained(argv):
        return 0
    args, _ = parser.parse(argv)
    fields: dict[str, Any] = vars(args)
    fields["splits"] = [name.strip() for name in (args.splits or "").split(",") if name.strip()]
    fields["beam_options"] = [o.strip() for given in args.beam_options or () for o in given.split(",") if o.strip()]
    fields["source"] = _archives(fields["source"], shards=fields.pop("shards"))
    named = benchmark.take_flags(fields)
    if named is None:
        prepare(fields.pop("source"), **fields)
    else:
        benchmark.prepare_benchmark(fields.pop("source"), **named, **fields)
    return 0


def _archives(source: str, *, shards: str | None) -> str:
    """The source, where `webdataset --shards PATTERN` is another way to say PATTERN."""
    if (source == WEBDATASET) != (shards is not None):
        raise UserError(
            f"SOURCE is {source!r}: --shards PATTERN and SOURCE {WEBDATASET!r} go together; "
            "give both, or the pattern as SOURCE"
        )
    return source if shards is None else shards
