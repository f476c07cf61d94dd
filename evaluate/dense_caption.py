"""`twinreel caption --dense`: the events of films with times and captions, and those of a split against its spans."""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.errors import UserError, unknown
from ..base.parser import folder
from .caption_results import tell_captions

if TYPE_CHECKING:
    from ..data.batches.records import Records
    from ..data.media.clip import DecodedClip
    from ..encode.films.events import EventOptions
    from ..encode.predict.captioner import Captioner
    from ..encode.predict.dense_captioner import DenseCaptioner
    from .measures.meteor import Meteor

_OPTIONS = {
    "seconds": "seconds",
    "shortest": "shortest_s",
    "longest": "longest_s",
    "most": "most",
    "penalty": "penalty",
}


def add_event_flags(parser: argparse.ArgumentParser) -> None:
    """Add `--dense` and the flags that go with it."""
    group = parser.add_argument_group("events with times (--dense)")
    group.add_argument("--dense", action="store_true", help="cut films into events and describe each, with its times")
    group.add_argument("--shortest", type=float, metavar="S", help="seconds of an event at least; default: 1")
    group.add_argument("--longest", type=float, metavar="S", help="seconds of an event at most; default: no limit")
    group.add_argument("--most", type=int, metavar="N", help="events of a film at most; default: no limit")
    group.add_argument("--penalty", type=float, help="of a change of event: the higher, the fewer events; default: 2")
    group.add_argument("--seconds", type=float, help="of the moments whose embeddings are compared; default: 0.5")
    group.add_argument("--subtitles", metavar="DIR", help="write the events of each film as DIR/NAME.srt")


def check_event_flags(args: argparse.Namespace) -> "EventOptions | None":
    """Return how films are cut into events; None without `--dense`.

    Raises:
      UserError: a flag that needs `--dense`, `--subtitles` with `--data`, films or subtitle files that are not as they
        must be, or an option out of range.
    """
    given = {field: getattr(args, flag) for flag, field in _OPTIONS.items() if getattr(args, flag) is not None}
    if not args.dense:
        alone = [flag for flag in (*_OPTIONS, "subtitles") if getattr(args, flag) is not None]
        if alone:
            raise UserError(f"--{alone[0]} is about events; add --dense, or leave it out")
        return None
    from ..encode.films.events import EventOptions

    options = EventOptions(**given)
    if args.subtitles is not None and args.data:
        raise UserError("--subtitles goes with media files; with --data give --out DIR, whose page shows the events")
    missing = [file for file in args.files if not Path(file).is_file()]
    if missing:
        raise UserError(f"{len(missing)} of {len(args.files)} films are no files: {', '.join(missing[:10])}")
    if args.subtitles is not None:
        for target in subtitle_files(args.files, out=folder(args.subtitles, flag="--subtitles")):
            if target.exists():
                raise UserError(f"--subtitles would replace {target}; move it away, or give another folder")
    return options


def subtitle_files(files: Sequence[str], *, out: Path) -> list[Path]:
    """Return the subtitle file of each film: its name, with a number where several films have one name.

    >>> [path.name for path in subtitle_files(["a/x.mp4", "b/x.mkv"], out=Path("out"))]
    ['x.srt', 'x-2.srt']
    """
    found: list[Path] = []
    for file in files:
        stem, number = Path(file).stem, 2
        name = stem
        while out / f"{name}.srt" in found:
            name, number = f"{stem}-{number}", number + 1
        found.append(out / f"{name}.srt")
    return found


def run_dense(
    captioner: "Captioner", *, args: argparse.Namespace, options: "EventOptions", meteor: "Meteor | None"
) -> int:
    """Describe the events of `args.files`, or of the split `args.split` of `args.data`."""
    from ..encode.predict.dense_captioner import DenseCaptioner

    dense = DenseCaptioner(captioner, options=options)
    if args.files:
        _run_files(dense, args=args)
        return 0
    how = {"batch_size": args.batch_size, "seed": args.seed}
    results = caption_events_of_split(dense, data=args.data, split=args.split, meteor=meteor, **how)
    if results is not None:
        from .reports.dense_captions_page import write_dense_captions_page

        line = dense_caption_line(results["events"])
        tell_captions(results, args=args, line=line, write_page=write_dense_captions_page)
    return 0


def caption_events_of_split(
    dense: "DenseCaptioner",
    *,
    data: Path,
    split: str = "test",
    batch_size: int = 16,
    seed: int = 0,
    meteor: "Meteor | None" = None,
) -> dict[str, Any] | None:
    """Find and describe the events of the clips of a prepared split, and compare with their spans that have a text.

    Args:
      dense: the model, and how clips are cut into events.
      data: folder that `twinreel prepare` made.
      split: whose clips have spans with a text; those without are left out and counted.
      batch_size: moments and events at a time.
      seed: of sampling.
      meteor: the program that computes METEOR; None = without.

    Returns:
      JSON values: `events`, the figures of `measures.dense_captions.dense_caption_scores`; `protocol`; `clips`, of each
      its `clip_id`, `duration_s`, `events`, `references` (`start_s`, `end_s`, `caption`) and its own `SODA` (F1, with
      ROUGE-L). None on all processes but the first.

    Raises:
      UserError: no such folder or split, no span with a text in it, or no clip that can be read.
    """
    import jax

    from ..data.batches.records import Records

    records = Records(data)
    if split not in records.splits:
        raise unknown("split", split, records.splits)
    rows = records.rows(split)
    told = {i: found for i in range(len(rows)) if (found := _references(rows[i]))}
    if not told:
        raise UserError(
            f"no clip of split {split!r} in {data} has a span with a text to compare events with; give the manifest "
            'spans=[{"start_s": 0.0, "end_s": 2.5, "text": "a dog runs"}] and prepare it again, choose another '
            "--split, or leave --dense out"
        )
    clips = _read(records, split=split, chosen=list(told), sound=dense.captioner.hears)
    found = dict(dense.caption_clips(clips, batch_size=batch_size, seed=seed))
    if not found:
        raise UserError(f"none of the clips of split {split!r} can be read; prepare them again")
    if jax.process_index() != 0:
        return None
    shown = [{"clip_id": rows[i]["clip_id"], **one, "references": told[i]} for i, one in found.items()]
    figures = _figures(shown, meteor=meteor)
    shown = [one | {"SODA": round(own, 4)} for one, own in zip(shown, figures.pop("per_film"), strict=True)]
    protocol = {"dataset": records.folder.resolve().name, "split": split, "clips": len(found)}
    protocol |= {"clips_without_events": len(rows) - len(told), "damaged": len(told) - len(found)}
    protocol |= _protocol(dense, seed=seed) | ({"meteor": meteor.about} if meteor is not None else {})
    return {"events": figures, "protocol": protocol, "clips": shown}


def _references(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the spans of a clip that have a text, in order of time."""
    spans = [one for one in row.get("spans") or () if one["text"] and one["end_s"] > one["start_s"]]
    spans = sorted(spans, key=lambda one: (one["start_s"], one["end_s"]))
    return [{"start_s": one["start_s"], "end_s": one["end_s"], "caption": one["text"]} for one in spans]


def _read(records: "Records", *, split: str, chosen: list[int], sound: bool) -> "Iterator[tuple[int, DecodedClip]]":
    """Yield the clips that can be read, with the numbers of their records."""
    from ..data.batches.recorded import clip_of_record
    from .progress import track

    for index in track(chosen, what="describe events", total=len(chosen), batch_size=1, progress=True):
        try:
            clip = clip_of_record(records, split=split, index=index, sound=sound)
        except UserError:
            continue  # counted
        yield index, clip


def _figures(clips: Sequence[dict[str, Any]], *, meteor: "Meteor | None") -> dict[str, Any]:
    from .measures.captions import ptb_tokens
    from .measures.dense_captions import dense_caption_scores

    found, truth = (
        [[one | {"caption": ptb_tokens(one["caption"])} for one in clip[name]] for clip in clips]
        for name in ("events", "references")
    )
    if meteor is None:
        return dense_caption_scores(found, references=truth)
    with meteor as program:
        return dense_caption_scores(found, references=truth, meteor=program)


def _protocol(dense: "DenseCaptioner", *, seed: int) -> dict[str, Any]:
    from dataclasses import asdict

    captioner = dense.captioner
    about = {"model": captioner.source, "tokens": "Penn Treebank, without Java", "seed": seed}
    about |= {"protocol": "ActivityNet Captions (densevid_eval), SODA_c", "cut": "kernel temporal segmentation"}
    about |= {f"event_{name}": value for name, value in asdict(dense.options).items() if value is not None}
    return about | asdict(captioner.options)


def _run_files(dense: "DenseCaptioner", *, args: argparse.Namespace) -> None:
    """Describe films, print what is found, and write subtitles; JSON lines come film by film."""
    import jax
    from rich.console import Console
    from rich.progress import Progress

    first = jax.process_index() == 0
    targets = subtitle_files(args.files, out=Path(args.subtitles)) if args.subtitles is not None else []
    every = []
    with Progress(console=Console(stderr=True), transient=True, disable=not first) as bar:
        task = bar.add_task("", total=None)

        def tick(path: Path, done_s: float, length_s: float | None) -> None:
            bar.update(task, description=f"embed {path.name}", completed=done_s, total=length_s)

        how = {"batch_size": args.batch_size, "workers": args.workers, "seed": args.seed}
        for number, found in enumerate(dense.caption(args.files, tick=tick, **how)):
            every.append(found)
            if first and targets:
                write_event_subtitles(targets[number], events=found["events"])
            if first and args.json:
                print(json.dumps(found, ensure_ascii=False), flush=True)
    if first and not args.json:
        _print_table(every)


def write_event_subtitles(path: Path, *, events: Sequence[dict[str, Any]]) -> None:
    """Write events as a SubRip file; those with an empty caption are left out."""
    from ..data.clip import Sentence
    from ..data.subtitles import write_srt

    told = ((one["start_s"], one["end_s"], " ".join(one["caption"].split())) for one in events)
    said = [Sentence(start_s=start, end_s=end, text=text) for start, end, text in told if text]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_srt(path, sentences=said, start_s=0.0, end_s=float("inf"))


def _print_table(found: Sequence[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    from ..pages.timelines import clock

    table = Table("file", "start", "end", "caption")
    for film in found:
        for one in film["events"]:
            table.add_row(film["path"], clock(one["start_s"]), clock(one["end_s"]), one["caption"])
    Console(highlight=False, markup=False, soft_wrap=True).print(table)


def dense_caption_line(figures: dict[str, Any]) -> str:
    """Return the figures of events with captions as one line.

    >>> soda = {"ROUGE-L": {"precision": 0.5, "recall": 0.5, "F1": 0.5}}
    >>> part = {"BLEU-4": 0.25, "ROUGE-L": 0.5, "CIDEr-D": 1.0, "precision": 0.75, "recall": 0.6, "SODA": soda}
    >>> dense_caption_line(part | {"films": 40})
    'BLEU-4 25.0, ROUGE-L 50.0, CIDEr-D 100.0, precision 75.0, recall 60.0, SODA (ROUGE-L) 50.0 % of 40 clips'
    """
    names = ("BLEU-4", "ROUGE-L", "CIDEr-D", "METEOR", "precision", "recall")
    shown = [f"{name} {100 * figures[name]:.1f}" for name in names if name in figures]
    shown += [f"SODA ({name}) {100 * one['F1']:.1f}" for name, one in figures["SODA"].items()]
    return f"{', '.join(shown)} % of {figures['films']} clips"
