"""Write clips to a folder of ArrayRecord shards that TFDS reads, fed by decoding processes or by Apache Beam workers.

    DIR/twinreel_clips/2.0.0/   dataset_info.json, features.json, twinreel_clips-<split>.array_record-0000i-of-0000n
    DIR/clips.jsonl             one line per record, in record order within each split
    DIR/rejects.jsonl           one line per clip that could not be used, with the reason
    DIR/duplicates.jsonl        one line per pair of clips that are the same, or nearly

During the build the shards lie in `DIR/.building`, each complete (shards.py), so that running the same command again
resumes an interrupted build. TFDS's GeneratorBasedBuilder cannot resume: it holds all records back until the last clip
is decoded, and chooses the shard boundaries by bytes, which are known only then. So the shards are written here, with
TFDS's features and format, and its metadata by its own `write_metadata` (assemble.py).
"""

import contextlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.progress import Progress

from ...base.errors import UserError
from ..layout import APPENDING, BUILDING, ELSEWHERE, INPUTS, NAME, RECORDS_VERSION, RESULTS, SETTINGS
from ..manifest import Clip, write_jsonl
from ..media.decode import DecodeOptions
from ..media.limits import Limits
from ..paths import PathLike
from .assemble import assemble, take_back
from .far_build import make_build
from .maker import BeamRunner, ShardMaker
from .record import features
from .settle import Treatment, settle
from .shards import Shard, plan
from .summary import SplitCount, Summary, check, progress_bar


def build(
    clips: Sequence[Clip],
    *,
    contents: Mapping[str, str],
    root: PathLike,
    out: Path,
    options: DecodeOptions,
    limits: Limits,
    workers: int,
    max_bad_fraction: float,
    shard_clips: int = 0,
    runner: BeamRunner | None = None,
    far: str = "",
    progress: bool = True,
    treatment: Treatment | None = None,
) -> Summary:
    """Decode the clips and write their records to `out`; what an interrupted build has finished is not made again.

    Args:
      clips: clips with a split each; those without a caption are rejected.
      contents: what stands for the contents of the file at each path of the clips (`Inputs.contents`).
      root: folder to which their paths are relative.
      out: folder for the result.
      options: what to keep of each clip.
      limits: time and memory that a clip may take.
      workers: decoding processes (with Beam, of each shard that is being made).
      max_bad_fraction: share of all clips that may be rejected.
      shard_clips: clips of a shard; 0 = `clips_per_shard`.
      runner: the Beam runner that makes the shards; None = this process and its decoding processes.
      far: URL at which the runner's workers put the shards; "" = in `out`. Then `out` gets what describes them, and
        `sending.send` puts them in their places.
      progress: whether to show a progress bar.
      treatment: how duplicates are treated; None = they are reported.

    Raises:
      TooManyRejects: more than `max_bad_fraction` of the clips were rejected; rejects.jsonl lists them.
      UserError: no clip of some split can be used, or the disk cannot be written to. What is finished is kept.
    """
    work = make_build(out / BUILDING, url=far)
    take_back(work, out=out)
    _remove(out, names=_results(out))
    shards = plan_build(clips, contents=contents, options=options, shard_clips=shard_clips)
    work.clear(shards, also=[SETTINGS, INPUTS])
    work.refresh(shards)
    summary = Summary(total=len(clips), splits={shard.split: SplitCount() for shard in shards})
    maker = ShardMaker(work=work, root=root, options=options, limits=limits, workers=workers)
    try:
        with progress_bar(shown=progress) as bar:
            _make_all(shards, maker=maker, runner=runner, summary=summary, bar=bar, max_bad_fraction=max_bad_fraction)
        check(summary, max_bad_fraction=max_bad_fraction, least=0)
        rule = treatment or Treatment()
        summary.duplicates = settle(shards, work=work, out=out, treatment=rule, summary=summary)
        summary.shards = assemble(shards, work=work, out=out, name=NAME, version=RECORDS_VERSION, features=features())
    except UserError:
        with contextlib.suppress(OSError):  # a full disk may be what the error is about
            write_jsonl(out / "rejects.jsonl", lines=summary.rejects + summary.dropped)
        raise
    return summary


def plan_build(
    clips: Sequence[Clip], *, contents: Mapping[str, str], options: DecodeOptions, shard_clips: int = 0
) -> list[Shard]:
    """Return the shards of a build; for the arguments see `build`."""
    settings = {"records": RECORDS_VERSION, "options": options.to_dict()}
    return plan(clips, contents=contents, settings=settings, shard_clips=shard_clips)


def begin(out: Path) -> None:
    """Remove what an earlier build left in `out`, whole or not; prepare.json, which vouches for the rest, first."""
    (out / "prepare.json").unlink(missing_ok=True)
    (out / BUILDING).mkdir(exist_ok=True)  # if the rest is cut short, this tells whose it was
    _remove(out, names=[*_results(out), APPENDING])
    _remove(out / BUILDING, names=[path.name for path in (out / BUILDING).iterdir()])


def end(out: Path) -> None:
    """Remove the folder in which the shards were made: the build is whole."""
    shutil.rmtree(out / BUILDING, ignore_errors=True)


def _results(out: Path) -> list[str]:
    """What an earlier build, and what was appended to it, may have left."""
    return [*RESULTS, ELSEWHERE, *(path.name for path in out.glob(f"{NAME}_*"))]


def _remove(folder: Path, *, names: Sequence[str]) -> None:
    for path in (folder / name for name in names):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _make_all(
    shards: Sequence[Shard],
    *,
    maker: ShardMaker,
    runner: BeamRunner | None,
    summary: Summary,
    bar: Progress,
    max_bad_fraction: float,
) -> None:
    """Make the shards that are not finished, and fill the summary."""
    todo = []
    for shard in shards:
        if (report := maker.work.report(shard)) is None:
            todo.append(shard)
        else:
            summary.add(report)
    if summary.seen:
        bar.console.print(f"resuming: {summary.seen:,} of {summary.total:,} clips are done")
    task = bar.add_task("decoding", total=summary.total, completed=summary.seen)
    if runner is None:
        reports = maker.make(todo, advance=lambda: bar.advance(task))
    else:
        from ..prepare import beam  # here, because not everyone has Beam

        reports = beam.make(todo, maker=maker, runner=runner, advance=lambda count: bar.advance(task, count))
    with contextlib.closing(reports):
        for report in reports:
            summary.add(report)
            check(summary, max_bad_fraction=max_bad_fraction)
