"""`twinreel encode`: embed media files and strings with a checkpoint, and compare them."""

import json
import sys
from pathlib import Path

import numpy as np

from ..base.errors import UserError
from ..base.parser import Parser

DESCRIPTION = """Embed media files and strings with a checkpoint.

  twinreel encode runs/demo/pretrain --video a.mp4 b.mp4 --text "a red square falls" --out embeddings.npz

With both --video and --text the cosines between them are printed. The .npz holds `video [m,E]` and `text [n,E]`,
float32 rows of unit length, and the names `paths` and `strings`."""


def main(argv: list[str]) -> int:
    """Run the verb."""
    parser = Parser(verb="encode", description=DESCRIPTION)
    parser.add_argument("checkpoint", help="a checkpoint, or the workdir of a run (its newest checkpoint)")
    parser.add_argument("--video", nargs="+", default=[], metavar="FILE", help="media files")
    parser.add_argument("--text", nargs="+", default=[], metavar="STRING", help="strings")
    parser.add_argument("--out", metavar="FILE.npz", help="where the embeddings go")
    parser.add_json()
    args, _ = parser.parse(argv)
    if not args.video and not args.text:
        raise UserError("nothing to encode; give --video FILE ... or --text STRING ... or both")
    if not args.out and not (args.video and args.text):
        raise UserError("nothing to do with the embeddings; give --out FILE.npz, or both --video and --text")
    from .encoder import load

    encoder = load(args.checkpoint)
    video, text = encoder.encode_video(args.video), encoder.encode_text(args.text)
    if args.out:
        out = Path(args.out)
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("wb") as file:
            np.savez(file, video=video, text=text, paths=np.array(args.video), strings=np.array(args.text))
        print(f"wrote {out}: video {video.shape}, text {text.shape}", file=sys.stderr)
    if args.video and args.text:
        cosines = text @ video.T
        if args.json:
            print(json.dumps({"strings": args.text, "paths": args.video, "cosines": cosines.tolist()}))
        else:
            _print_cosines(cosines, strings=args.text, paths=args.video)
    return 0


def _print_cosines(cosines: np.ndarray, *, strings: list[str], paths: list[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="cosine of text and video", title_justify="left")
    table.add_column("text")
    for path in paths:
        table.add_column(Path(path).name, justify="right")
    for string, row in zip(strings, cosines, strict=True):
        best = int(np.argmax(row))
        table.add_row(string, *(f"[bold]{c:.3f}[/]" if j == best else f"{c:.3f}" for j, c in enumerate(row)))
    Console().print(table)
