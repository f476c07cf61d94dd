"""`twinreel encode`: embed media files and strings with a checkpoint, and compare them."""

import json
import sys
from pathlib import Path

import numpy as np

from ...base.errors import UserError
from ...base.parser import Parser

DESCRIPTION = """Embed media files, sound and strings with a model.

  twinreel encode runs/demo/pretrain --video a.mp4 b.mp4 --text "a red square falls" --out embeddings.npz

With --text and --video (or --sound, --clip), prints the cosines between them. The .npz file has `video [m,E]`, `text
[n,E]`, `audio [k,E]` and `clip [c,E]`, float32 rows of unit length, and their names `paths`, `strings`, `sounds` and
`clips`. --clip embeds pictures and sound as one, with a model that has a fusion of both. Files are decoded by several
processes, and the rows of a batch are split over all devices."""


def main(argv: list[str]) -> int:
    """Run the verb."""
    parser = Parser(verb="encode", description=DESCRIPTION)
    parser.add_argument("model", metavar="MODEL", help="a run, one of its checkpoints, a bundle, or public weights")
    parser.add_argument("--video", nargs="+", default=[], metavar="FILE", help="media files")
    parser.add_argument("--sound", nargs="+", default=[], metavar="FILE", help="sound files, or films with sound")
    parser.add_argument("--clip", nargs="+", default=[], metavar="FILE", help="films, pictures and sound fused")
    parser.add_argument("--text", nargs="+", default=[], metavar="STRING", help="strings")
    parser.add_argument("--out", metavar="FILE.npz", help="where the embeddings go")
    parser.add_json()
    args, _ = parser.parse(argv)
    media = args.video or args.sound or args.clip
    if not media and not args.text:
        raise UserError("nothing to encode; give --video, --sound or --clip FILE ..., or --text STRING ...")
    if not args.out and not (media and args.text):
        raise UserError(
            "nothing to do with the embeddings; give --out FILE.npz, or --text with --video, --sound or --clip"
        )
    from ..embed.encoder import load

    encoder = load(args.model)
    found = {
        "video": encoder.encode_video(args.video, progress=True) if args.video else None,
        "text": encoder.encode_text(args.text) if args.text else None,
        "audio": encoder.encode_audio(args.sound, progress=True) if args.sound else None,
        "clip": encoder.encode_clips(args.clip, progress=True) if args.clip else None,
    }
    found = {name: rows for name, rows in found.items() if rows is not None}
    if args.out:
        names = {"paths": args.video, "strings": args.text, "sounds": args.sound, "clips": args.clip}
        _write(Path(args.out), found, names=names)
    given = {"video": args.video, "audio": args.sound, "clip": args.clip}
    files = {name: paths for name, paths in given.items() if args.text and paths}
    cosines = {name: found["text"] @ found[name].T for name in files}
    if args.json:
        told = {name: {"paths": files[name], "cosines": rows.tolist()} for name, rows in cosines.items()}
        print(json.dumps({"strings": args.text, **told}))
    else:
        for name, rows in cosines.items():
            _print_cosines(rows, strings=args.text, paths=files[name], what=name)
    return 0


def _write(out: Path, found: dict[str, np.ndarray], *, names: dict[str, list[str]]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    arrays = found | {key: np.array(value) for key, value in names.items() if value}
    with out.open("wb") as file:
        np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
    shapes = ", ".join(f"{name} {rows.shape}" for name, rows in found.items())
    print(f"wrote {out}: {shapes}", file=sys.stderr)


def _print_cosines(cosines: np.ndarray, *, strings: list[str], paths: list[str], what: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"cosine of text and {what}", title_justify="left")
    table.add_column("text")
    for path in paths:
        table.add_column(Path(path).name, justify="right")
    for string, row in zip(strings, cosines, strict=True):
        best = int(np.argmax(row))
        table.add_row(string, *(f"[bold]{c:.3f}[/]" if j == best else f"{c:.3f}" for j, c in enumerate(row)))
    Console().print(table)
