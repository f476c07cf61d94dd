"""`twinreel generate edit`: change what a text says of a clip, and keep the rest."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from ...base.errors import UserError
from ...base.parser import Parser
from .drawing import about, add_drawing, out_folder, solver_of

DESCRIPTION = """Edit a clip by text with a model of `twinreel generate train`: keep the clip, and change what is named.

  twinreel generate edit runs/painter film.mp4 --from "a red square falls" --to "a blue square falls" --out edits
  twinreel generate edit runs/painter film.mp4 --from "a red square falls" --to "a red star falls" \\
      --to "a red square rises" --strength 0.8 --out edits

--from describes the clip as it is, --to as it is wanted, in the words of the captions that the model was trained on.
The edit follows the difference of the two flows (--how difference); --how invert goes back along the flow under the old
text and forward under the new one; --how noise mixes the clip with noise first. --strength is the share of the way to
noise: 0 returns the clip, larger values allow larger changes, at 1 everything may change. Pixels that an edit leaves
alone are exactly those of the clip. OUT receives an MP4 file for each --to, edits.json and index.html with the clip
beside its edits. The clip has the frames that the model works on: as many, and as large, as in training, without
sound."""


def main(argv: list[str]) -> int:
    """Run the verb."""
    parser = Parser(verb="generate edit", description=DESCRIPTION)
    parser.add_argument("model", metavar="MODEL", help="a workdir of `twinreel generate train`, or one checkpoint")
    parser.add_argument("file", metavar="FILE", help="the clip, a media file")
    parser.add_argument("--from", dest="old", default="", help="what the clip shows; without it edits are weaker")
    parser.add_argument("--to", action="append", default=[], help="what it is to show; may be given repeatedly")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the edits and the page")
    parser.add_argument("--strength", type=float, default=0.7, help="share of the way to noise, 0 to 1")
    parser.add_argument("--how", default="difference", help="difference, invert or noise")
    add_drawing(parser)
    parser.add_json()
    args, _ = parser.parse(argv)
    solver = solver_of(args)
    if not args.to:
        raise UserError("say what the clip is to show: --to TEXT, once or more")
    if not Path(args.file).is_file():
        raise UserError(f"{args.file}: there is no such file; give the clip to edit")
    from ..sample.painter import load_painter
    from ..sample.written import write_clip, write_clips_page

    painter = load_painter(args.model, progress=not args.json)
    painter.check_lengths([*args.to, *([args.old] if args.old else [])])
    video = np.repeat(painter.frames_of([Path(args.file)]), len(args.to), axis=0)
    how: dict[str, Any] = {"strength": args.strength, "method": args.how, "solver": solver, "seed": args.seed}
    old = [args.old] * len(args.to) if args.old else None
    edited = painter.edit(video, new=args.to, old=old, batch_size=args.batch_size, **how)
    out = out_folder(args)
    cards, listed = [("the clip", args.old or Path(args.file).name, video[0])], []
    for number, (text, frames) in enumerate(zip(args.to, edited, strict=True)):
        write_clip(out / f"{number:04d}.mp4", frames=frames, seconds=args.seconds)
        kept = float(np.all(frames == video[number], axis=-1).mean())
        listed.append({"file": f"{number:04d}.mp4", "text": text, "kept": round(kept, 4)})
        cards.append((f"{100 * kept:.0f} % of the pixels kept", text, frames))
    protocol = about(args, model=args.model) | {"clip": args.file, "old_text": args.old}
    protocol |= {"strength": args.strength, "how": args.how}
    results = {"edits": listed, "protocol": protocol}
    (out / "edits.json").write_text(json.dumps(results, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    page = {"kind": "edited clips", "title": Path(args.file).name, "protocol": protocol, "seconds": args.seconds}
    path = write_clips_page(out, clips=cards, **page)
    print(json.dumps(results, ensure_ascii=False) if args.json else f"{len(edited)} edits; page: {path}")
    return 0
