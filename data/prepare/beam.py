"""Shards made on Apache Beam: one element of the pipeline is one shard, made as `prepare` makes it without Beam.

The workers put the shards into the build's own folder, so they must reach it, and the videos, by the same paths as the
launching machine: in a shared file system, or behind a URL (far_build.py). An element is a place in `plan.jsonl`, not
the clips themselves: runners limit the size of a job's description. Each worker decodes in processes of its own, as
`prepare` does: a decoder that crashes takes no worker with it.
"""

import concurrent.futures
import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import apache_beam
from apache_beam.metrics.metric import Metrics
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.runner import PipelineState

from ...base.errors import UserError
from ...data import remote
from ..manifest import make_clip, to_json
from ..media.decode import DecodeOptions
from ..media.limits import Limits
from ..paths import is_remote
from .far_build import open_build
from .maker import BeamRunner, ShardMaker
from .shards import BuildFolder, Shard, ShardReport, writing

PLAN = "plan.jsonl"
_LOOK_S, _LOOK_FAR_S = 1.0, 10.0  # how often the progress bar looks for new shards, in a folder and behind a URL
# What goes by the name DirectRunner first tries Prism, a program that it would have to download.
_LOCAL = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"


def make(
    shards: Sequence[Shard], *, maker: ShardMaker, runner: BeamRunner, advance: Callable[[int], None]
) -> Generator[ShardReport, None, None]:
    """Make the shards on Beam; yield their reports when the pipeline is done.

    Args:
      shards: those to make.
      maker: how each worker makes a shard.
      runner: the Beam runner and its options.
      advance: called with the number of clips whenever shards are finished.

    Raises:
      UserError: there is no such runner, it does not take these options, or it failed. What is finished is kept.
    """
    if not shards:
        return
    maker.work.drop(shards)
    settings = {
        "folder": maker.work.address,
        "root": os.fspath(maker.root) if is_remote(maker.root) else str(Path(maker.root).absolute()),
        "options": dataclasses.asdict(maker.options),
        "limits": dataclasses.asdict(maker.limits),
        "workers": maker.workers,
    }
    with _failing(runner):
        pipeline = apache_beam.Pipeline(runner=_runner(runner.name), options=_options(runner))
        _ = (
            pipeline
            | "Shards" >> apache_beam.Create(_write_plan(shards, work=maker.work))
            | "Spread" >> apache_beam.Reshuffle()
            | "Make" >> apache_beam.Map(make_one, **settings)
        )
        look_s = _LOOK_FAR_S if is_remote(maker.work.address) else _LOOK_S
        _run(pipeline, lambda waiting: _finished(waiting, work=maker.work, advance=advance), shards, look_s=look_s)
    maker.work.refresh(shards)
    for shard in shards:
        report = maker.work.report(shard)
        if report is None:
            raise UserError(
                f"the Beam runner {runner.name!r} ended, and shard {shard.name} is not in {maker.work.address!r}; "
                "its workers must reach --out by the same path or URL as this machine. "
                "Run the same command again to resume"
            )
        yield report


def make_one(
    place: tuple[int, int], *, folder: str, root: str, options: dict[str, Any], limits: dict[str, Any], workers: int
) -> int:
    """Make the shard whose line of the plan has this first byte and size (on a worker); return its number of clips."""
    line = json.loads(_read_part(f"{folder}/{PLAN}", *place))
    clips = [make_clip(fields, where=f"{PLAN}, byte {place[0]}") for fields in line["clips"]]
    shard = Shard(split=line["split"], number=line["number"], clips=clips, key=line["key"])
    with open_build(folder) as work:
        work.refresh([shard])
        if work.report(shard) is None:  # a runner may ask twice
            limited = {"options": DecodeOptions(**options), "limits": Limits(**limits)}
            maker = ShardMaker(work=work, root=root, workers=workers, **limited)
            for _ in maker.make([shard], advance=Metrics.counter("twinreel", "clips").inc):
                pass
    return len(clips)


def _read_part(path: str, begin: int, size: int) -> bytes:
    """Read `size` bytes of a file or of what is behind a URL."""
    if is_remote(path):
        with remote.open_slice(path, offset=begin, size=size) as part:
            return part.read()
    with Path(path).open("rb") as file:
        file.seek(begin)
        return file.read(size)


def _write_plan(shards: Sequence[Shard], *, work: BuildFolder) -> list[tuple[int, int]]:
    """Write the shards to plan.jsonl; return first byte and size of each line."""
    places = []
    with writing(work.folder / PLAN), (work.folder / PLAN).open("wb") as file:
        for shard in shards:
            line = {"split": shard.split, "number": shard.number, "key": shard.key}
            written = file.write(json.dumps(line | {"clips": [to_json(clip) for clip in shard.clips]}).encode() + b"\n")
            places.append((file.tell() - written, written))
    work.publish(PLAN)
    return places


def _run(
    pipeline: apache_beam.Pipeline,
    look: Callable[[list[Shard]], list[Shard]],
    waiting: Sequence[Shard],
    *,
    look_s: float,
) -> None:
    """Run the pipeline to its end, and look after the shards meanwhile."""
    waiting = list(waiting)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        ended = pool.submit(lambda: pipeline.run().wait_until_finish())
        while not concurrent.futures.wait([ended], timeout=look_s).done:
            waiting = look(waiting)
        look(waiting)
        state = ended.result()
    if state != PipelineState.DONE:
        raise RuntimeError(f"it ended in the state {state}")


def _finished(waiting: Sequence[Shard], *, work: BuildFolder, advance: Callable[[int], None]) -> list[Shard]:
    """Report the shards that are finished by now; return the others."""
    still, reported = [], work.reported()
    for shard in waiting:
        if shard.name in reported:
            advance(len(shard.clips))
        else:
            still.append(shard)
    return still


def _runner(name: str) -> Any:
    return _LOCAL if name.lower() in ("direct", "directrunner") else name


def _options(runner: BeamRunner) -> PipelineOptions:
    # Not checked by name: an option may be known to the runner's own service only. Beam warns of what it does not use.
    return PipelineOptions([f"--{option.removeprefix('--')}" for option in runner.options])


@contextlib.contextmanager
def _failing(runner: BeamRunner) -> Iterator[None]:
    """Turn what a runner raises into a UserError."""
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # runners raise anything; Beam's option parser exits
        lines = str(error).strip().splitlines() or [repr(error)]
        raise UserError(
            f"the Beam runner {runner.name!r} failed: {lines[-1]}; what is finished is kept: "
            "correct --beam_runner or --beam_options, or what the runner reports, and run the same command again"
        ) from error
