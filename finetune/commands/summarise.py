"""`twinreel summarise`: the shots of films that are worth keeping, as a film, key frames and a page."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ... import __version__
from ...base.errors import UserError
from ...base.parser import Parser, folder
from .predict import check_files

if TYPE_CHECKING:
    from ...encode.embed.film import FilmModel
    from ...encode.films.summary import Summary, SummaryOptions

DESCRIPTION = """Summarise films of any length: write their best shots as one film, with key frames and a storyboard.

  twinreel summarise runs/demo/pretrain film.mp4 --out summaries
  twinreel summarise hf:openai/clip-vit-base-patch32 a.mp4 b.mkv --out summaries --share 0.1
  twinreel summarise runs/summaries film.mp4 --out summaries          (a run of `finetune --config demo_summarise`)

For each film summaries/NAME/ has summary.mp4 (pictures and sound, cut to the frame and encoded again), keyframes/ (a
JPEG of each shot in it), index.html (the storyboard: open it in a browser) and summary.json (all shots with times and
scores).

Shots end where the embeddings of moments change (kernel temporal segmentation). A model that was fine-tuned on
annotators' scores or summaries scores the shots. With any other model nothing is trained: a shot's score is what it
adds to the representation of the film, so frequent content counts, and repeated content counts once. A knapsack chooses
shots within the share of the length."""


def main(argv: list[str]) -> int:
    """Run the verb."""
    parser = Parser(verb="summarise", description=DESCRIPTION)
    parser.add_argument("model", metavar="MODEL", help="a run, a checkpoint, a bundle, or public weights")
    parser.add_argument("files", nargs="+", metavar="FILE", help="films")
    parser.add_argument("--out", required=True, metavar="DIR", help="a folder for each film is written below it")
    parser.add_argument("--share", type=float, help="length of a summary, as a share of the film's; default: 0.15")
    parser.add_argument("--shortest", type=float, metavar="S", help="seconds of a shot at least; default: 1")
    parser.add_argument("--penalty", type=float, help="of a change of shot: the higher, the fewer shots; default: 2")
    parser.add_argument("--seconds", type=float, help="of the moments that a model without a head embeds; default: 0.5")
    parser.add_argument("--batch_size", type=int, default=8, help="moments at a time")
    parser.add_argument("--workers", type=int, default=0, help="processes that decode; 0 = one per core")
    parser.add_json()
    args, _ = parser.parse(argv)
    for name, least in (("batch_size", 1), ("workers", 0)):
        if getattr(args, name) < least:
            raise UserError(f"--{name} must be at least {least}, got {getattr(args, name)}")
    check_files(args.files)
    targets = _targets(args.files, out=folder(args.out, flag="--out"))
    given = {"share": args.share, "seconds": args.seconds, "shortest_s": args.shortest, "penalty": args.penalty}
    changes = {name: value for name, value in given.items() if value is not None}
    model, options = open_summariser(args.model, changes=changes)
    found = []
    for file, target in zip(args.files, targets, strict=True):
        summary = _summarised(model, Path(file), options=options, args=args)
        found.append(_written(summary, out=target, protocol=_protocol(model, options=options)) | {"out": str(target)})
    if args.json:
        print(json.dumps({"films": found}, ensure_ascii=False))
    else:
        _print(found)
    return 0


def open_summariser(name: str, *, changes: dict[str, Any]) -> "tuple[FilmModel, SummaryOptions]":
    """Load a model that summarises films: an `Encoder`, or a predictor of task "summarise".

    Args:
      name: a run, a checkpoint, a bundle, or public weights.
      changes: fields of `SummaryOptions` that are not as the model, or their defaults, have them.

    Raises:
      UserError: nothing readable there, a model of another task or without frames, or an option out of range.
    """
    import dataclasses

    from ...encode.embed.encoder import Encoder
    from ...encode.films.summary import SummaryOptions
    from ...encode.predict.load import load
    from ...encode.predict.timeline import TimelinePredictor

    SummaryOptions(**changes)  # mistakes first: loading a model takes a while
    model = load(name)
    if isinstance(model, TimelinePredictor) and model.task == "summarise":
        if "seconds" in changes:
            raise UserError(f"--seconds: the model of {name} has moments of its own; leave --seconds out")
        return model, dataclasses.replace(model.summary_options, **changes)
    if not isinstance(model, Encoder):
        raise UserError(
            f"{name} is a model of task {', '.join(model.spec.task_heads)}, which scores no shots; give one of task "
            "'summarise' (`twinreel finetune --config demo_summarise`), or a pretrained one"
        )
    if model.spec.towers.get("video", {}).get("family") in (None, "features"):
        raise UserError(f"{name} takes no frames, so it cannot summarise films; give a model with a video tower")
    return model, SummaryOptions(**changes)


def _targets(files: Sequence[str], *, out: Path) -> list[Path]:
    """Return a folder for each film: its name, with a number where several films have one name."""
    found: list[Path] = []
    for file in files:
        name, number = Path(file).stem, 2
        while out / name in found:
            name, number = f"{Path(file).stem}-{number}", number + 1
        found.append(out / name)
    return found


def _protocol(model: "FilmModel", *, options: "SummaryOptions") -> dict[str, Any]:
    from ...encode.embed.encoder import Encoder

    plain = isinstance(model, Encoder)
    about = {"twinreel": __version__, "model": getattr(model, "source", ""), "share": options.share}
    about |= {"scores": "what a shot adds to the film's representation" if plain else "learned from annotators"}
    about |= {"shortest_shot_s": options.shortest_s, "penalty": options.penalty}
    return about | ({"moment_s": options.seconds} if plain else {})


def _summarised(model: "FilmModel", path: Path, *, options: "SummaryOptions", args: Any) -> "Summary":
    from rich.console import Console
    from rich.progress import Progress

    from ...encode.films.summary import summarise_file

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"embed {path.name}", total=None)

        def tick(done_s: float, length_s: float | None) -> None:
            bar.update(task, completed=done_s, total=length_s)

        how = {"batch_size": args.batch_size, "workers": args.workers}
        return summarise_file(model, path, options=options, tick=tick, **how)


def _written(summary: "Summary", *, out: Path, protocol: dict[str, Any]) -> dict[str, Any]:
    from rich.console import Console

    from ..reports.storyboard import write_storyboard

    with Console(stderr=True).status("key frames") as status:
        return write_storyboard(summary, out=out, protocol=protocol, tick=status.update)


def _print(found: Sequence[dict[str, Any]]) -> None:
    for one in found:
        kept = sum(shot["chosen"] for shot in one["shots"])
        print(
            f"{one['path']}: {one['summary_s']:.1f} of {one['duration_s']:.1f} s, {kept} of {len(one['shots'])} shots"
        )
        print(f"  {Path(one['out']) / 'summary.mp4'}\n  {Path(one['out']) / 'index.html'}")
