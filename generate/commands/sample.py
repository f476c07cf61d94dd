"""`twinreel generate sample`: clips from texts, or like given clips."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...base.errors import UserError
from ...base.parser import Parser
from ...base.text_lines import text_lines
from .drawing import about, add_choice, add_drawing, check_choice, out_folder, solver_of

if TYPE_CHECKING:
    from ..sample.choice import Best
    from ..sample.painter import Clips, Painter

DESCRIPTION = """Generate clips with a model of `twinreel generate train`.

  twinreel generate sample runs/painter --text "a large red square falls, then a small blue star turns" --out clips
  twinreel generate sample runs/painter --texts captions.txt --count 4 --seed 7 --out clips
  twinreel generate sample runs/painter --texts captions.txt --best_of 8 --rank_by runs/demo/pretrain --out clips
  twinreel generate sample runs/painter --like film.mp4 other.mp4 --out clips

OUT receives an MP4 file for each clip, samples.json (which text, number and seed made which file) and index.html, a
page with all clips in motion. The words should be those of the captions that the model was trained on.
--best_of N --rank_by MODEL generates N clips in place of each, with the seeds from --seed on, and keeps the one that a
dual tower finds nearest to the text.
--like needs a model that is conditioned on the embeddings of a dual tower (config.condition.kind="tower"): it generates
clips that the tower embeds like the given ones. From Python: `twinreel.generate.sample.painter.load_painter(MODEL)`."""


def main(argv: list[str]) -> int:
    """Run the verb."""
    parser = Parser(verb="generate sample", description=DESCRIPTION)
    parser.add_argument("model", metavar="MODEL", help="a workdir of `twinreel generate train`, or one checkpoint")
    parser.add_argument("--text", action="append", default=[], help="what a clip shows; may be given repeatedly")
    parser.add_argument("--texts", metavar="FILE", help="a file with a text on each line")
    parser.add_argument("--like", nargs="+", default=[], metavar="FILE", help="media files to generate clips like")
    parser.add_argument("--count", type=int, default=1, help="clips of each text or file")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the clips and the page")
    parser.add_argument("--workers", type=int, default=0, help="processes that decode; 0 = one per core")
    add_drawing(parser)
    add_choice(parser)
    parser.add_json()
    args, _ = parser.parse(argv)
    texts = _texts(args)
    solver = solver_of(args)
    check_choice(args)
    if args.like and args.rank_by:
        raise UserError("--rank_by compares clips with texts, of which --like has none; leave --best_of and it out")
    if args.count < 1:
        raise UserError(f"--count must be at least 1, got {args.count}")
    from ..sample.painter import load_painter

    painter, names = load_painter(args.model, progress=not args.json), texts or [str(path) for path in args.like]
    how: dict[str, Any] = {"solver": solver, "seed": args.seed, "batch_size": args.batch_size}
    if texts:
        painter.check_lengths(texts)
    names = [name for name in names for _ in range(args.count)]
    best = None
    if args.rank_by:
        from ..sample.choice import paint_best
        from ..sample.towers import load_tower

        ranker = load_tower(args.rank_by, painter=painter, flag="--rank_by")
        best = paint_best(painter, names, ranker=ranker, candidates=args.best_of, **how)
        clips = best.video
    else:
        clips = painter.paint(names, **how) if texts else _like(painter, args=args, how=how)
    results = _write(args, names=names, clips=clips, best=best)
    if args.json:
        print(json.dumps(results, ensure_ascii=False))
    else:
        print(f"{len(results['clips'])} clips; page: {Path(args.out) / 'index.html'}")
    return 0


def _texts(args: argparse.Namespace) -> list[str]:
    """Return the texts to paint; [] where clips are given instead."""
    if args.texts and not Path(args.texts).is_file():
        raise UserError(f"--texts {args.texts}: there is no such file; give one with a text on each line")
    lines = text_lines(args.texts, flag="--texts") if args.texts else []
    texts = [*args.text, *(line.strip() for line in lines if line.strip())]
    if bool(texts) == bool(args.like):
        raise UserError("give texts (--text, --texts FILE) or clips (--like FILE ...), one of the two")
    return texts


def _like(painter: "Painter", *, args: argparse.Namespace, how: dict[str, Any]) -> "Clips":
    for path in args.like:
        if not Path(path).is_file():
            raise UserError(f"--like {path}: there is no such file")
    video = painter.frames_of([Path(path) for path in args.like], workers=args.workers)
    return painter.paint_like(np.repeat(video, args.count, axis=0), **how)


def _write(args: argparse.Namespace, *, names: list[str], clips: "Clips", best: "Best | None") -> dict[str, Any]:
    """Write films, JSON and page; returns the JSON."""
    from ..sample.written import write_clip, write_clips_page

    out, listed, cards = out_folder(args), [], []
    for number, (name, frames) in enumerate(zip(names, clips, strict=True)):
        file = f"{number:04d}.mp4"
        write_clip(out / file, frames=frames, seconds=args.seconds)
        listed.append({"file": file, "text" if args.text or args.texts else "like": name, "number": number})
        if best is not None:
            listed[-1] |= {"candidate": int(best.candidate[number]), "score": float(best.score[number])}
        cards.append((f"number {number}", name, frames))
    protocol = about(args, model=args.model) | {"seconds": args.seconds}
    if best is not None:
        protocol |= {"best_of": args.best_of, "rank_by": args.rank_by}
    results = {"clips": listed, "protocol": protocol}
    (out / "samples.json").write_text(json.dumps(results, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    page = {"kind": "generated clips", "title": Path(args.model).name, "protocol": protocol, "seconds": args.seconds}
    write_clips_page(out, clips=cards, **page)
    return results
