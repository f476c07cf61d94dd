"""`twinreel export`: a model for transformers, open_clip, or anything that runs JAX."""

import json
from typing import TYPE_CHECKING

from ...base.errors import UserError
from ...base.parser import Parser

if TYPE_CHECKING:
    from .export import Exported

DESCRIPTION = """Write a model for other programs, read it back and compare it with the model.

  twinreel export runs/clip4clip --format hf --out exports/clip4clip
  twinreel export models/clip_b32 --format open_clip --out exports/open_clip
  twinreel export runs/demo --format stablehlo --out exports/demo
  twinreel export runs/clip4clip --format hf --out exports/clip4clip --push ORGANISATION/NAME --dry_run

CHECKPOINT is a run, one of its checkpoints, a bundle, or public weights. Formats:

  hf         a folder of transformers: CLIP, SigLIP, VideoPrism; encoders alone: BERT, ViT, DINOv2
  open_clip  a folder of open_clip, for create_model_and_transforms("local-dir:OUT")
  stablehlo  any model: one program per tower that needs only JAX to run (jax.export), with a file of parameters
  onnx       any model that jax2onnx knows, checked with ONNX Runtime; both must be installed

A model fits hf and open_clip if its own arguments are those of such a model, wherever its weights come from; otherwise
the error names each field that does not fit. A model card (README.md) is written with each export."""


def main(argv: list[str]) -> int:
    """Run the verb."""
    parser = Parser(verb="export", description=DESCRIPTION)
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a run, a checkpoint, a bundle, or public weights")
    parser.add_argument("--format", required=True, metavar="FORMAT", help="hf, open_clip, stablehlo or onnx")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the export; made, must be empty")
    parser.add_argument("--overwrite", action="store_true", help="replace an export that is in DIR")
    parser.add_argument(
        "--tokenizer",
        default="public",
        metavar="MODE",
        help="public: files that transformers reads; own: the tokenizer's own file; none: towers alone",
    )
    parser.add_argument(
        "--platforms", default="cpu,cuda,rocm,tpu", metavar="LIST", help="of a StableHLO program, separated by commas"
    )
    parser.add_argument(
        "--results", default="", metavar="FILE", help="retrieval.json for the model card; default: in the workdir"
    )
    parser.add_argument("--push", default="", metavar="ORGANISATION/NAME", help="upload to the Hugging Face Hub")
    parser.add_argument("--private", action="store_true", help="a new repository is private")
    parser.add_argument("--dry_run", action="store_true", help="with --push: list the files, upload nothing")
    parser.add_json()
    args, _ = parser.parse(argv)
    if (args.dry_run or args.private) and not args.push:
        raise UserError("--dry_run and --private belong to --push ORGANISATION/NAME; add it, or leave them out")
    from .export import ExportOptions, export
    from .push import check_name, push

    if args.push:
        check_name(args.push)
    options = ExportOptions(
        format=args.format,
        tokenizer=args.tokenizer,
        platforms=[name.strip() for name in args.platforms.split(",") if name.strip()],
        results=args.results,
        name=args.push,
        overwrite=args.overwrite,
    )
    made = export(args.checkpoint, out=args.out, options=options)
    _print(made, as_json=args.json, push_to=args.push if args.dry_run else "")
    if args.push and not args.dry_run:
        address = push(made.folder, name=args.push, private=args.private)
        if not args.json:
            print(f"uploaded: {address}")
    return 0


def _print(made: "Exported", *, as_json: bool, push_to: str) -> None:
    """Print what was written; with `push_to`, as what would be uploaded there."""
    if as_json:
        checks = {one.name: one.difference for one in made.checks}
        values = {"folder": str(made.folder), "format": made.title, "checks": checks, "notes": list(made.notes)}
        files = dict(made.files)
        print(json.dumps(values | {"files": files} | ({"would_push_to": push_to} if push_to else {})))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{made.title}: compared with the model", title_justify="left")
    table.add_column("what")
    table.add_column("largest difference", justify="right")
    for one in made.checks:
        table.add_row(one.name, "equal" if not one.difference else f"{one.difference:.2g}")
    console = Console(soft_wrap=True, highlight=False)
    console.print(table)
    for note in made.notes:
        console.print(f"note: {note}", markup=False)
    total = sum(size for _, size in made.files)
    console.print(f"wrote {made.folder}: {len(made.files)} files, {total:,} bytes", markup=False)
    if push_to:
        console.print(f"dry run: these files would be uploaded to {push_to}:", markup=False)
        for name, size in made.files:
            console.print(f"  {size:>14,}  {name}", markup=False)
