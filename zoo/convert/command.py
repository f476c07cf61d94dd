"""`twinreel convert`: public weights as a bundle."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ...base.errors import UserError
from ...base.parser import Parser

if TYPE_CHECKING:
    from .convert import Converted

DESCRIPTION = """Turn public weights into a bundle: spec.json, the tokenizer's files and model.safetensors.

  twinreel convert --list
  twinreel convert downloads/clip-vit-base-patch32 --out models/clip_b32
  twinreel convert hf:google/siglip-base-patch16-224 --out models/siglip_b16
  twinreel convert hf:google/videoprism-lvt-base-f16r288 --option text_positions=stored --out models/lvt_b

SOURCE is a local folder with the files of the release, or hf:ORGANISATION/NAME[@REVISION], which huggingface_hub
fetches (its cache and token are used). Safetensors and npz are read, pickles never. The family is recognised by the
files. Everything that takes a model also takes SOURCE itself: `twinreel.load(SOURCE)`, `twinreel encode SOURCE ...`; a
bundle saves the conversion at each start."""


def main(argv: list[str]) -> int:
    """Run the verb."""
    parser = Parser(verb="convert", description=DESCRIPTION)
    parser.add_argument("source", nargs="?", metavar="SOURCE", help="a folder, or hf:ORGANISATION/NAME[@REVISION]")
    parser.add_argument("--out", metavar="BUNDLE", help="folder of the bundle; made, must not hold anything else")
    parser.add_argument("--family", default="", help="one of those that --list names; default: recognised")
    parser.add_argument("--revision", default="", help="branch, tag or commit of the Hub; default: main")
    parser.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="a choice of the family, see --list"
    )
    parser.add_argument("--list", action="store_true", help="list families, public names, licences and options")
    parser.add_json()
    args, _ = parser.parse(argv)
    if args.list:
        _print_families(as_json=args.json)
        return 0
    if not args.source or not args.out:
        raise UserError("give SOURCE and --out BUNDLE (or --list, to see what can be converted)")
    out = Path(args.out)
    if (out / "spec.json").is_file():
        return _converted_before(args.source, out=out)
    from ..bundle import write_bundle
    from .convert import convert

    made = convert(
        args.source, family=args.family, revision=args.revision, options=_options(args.option), progress=True
    )
    write_bundle(out, spec=made.spec, params=made.params)
    if args.json:
        print(json.dumps({"bundle": str(out), "family": made.family, "notes": made.notes, **_sizes(made)}))
    else:
        _print(made, out=out)
    return 0


def _options(given: list[str]) -> dict[str, str]:
    found = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals or not name or not value:
            raise UserError(f"--option {one!r}: wanted NAME=VALUE, such as text_positions=stored")
        found[name] = value
    return found


def _converted_before(source: str, *, out: Path) -> int:
    from ..bundle import read_spec

    origin = read_spec(out).origin
    if origin.get("source") != source:
        raise UserError(
            f"{out} is a bundle of {origin.get('source', 'another model')!r}; give another --out, or remove it"
        )
    print(f"{out} is there already, converted from {source}", file=sys.stderr)
    return 0


def _sizes(made: "Converted") -> dict[str, int]:
    """Return the number of parameters of each part of the model."""
    sizes: dict[str, int] = {}
    for path, value in made.params.items():
        part = path.split("/")[0]
        sizes[part] = sizes.get(part, 0) + int(value.size)
    return sizes


def _print(made: "Converted", *, out: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{made.family}: parameters", title_justify="left")
    table.add_column("part")
    table.add_column("parameters", justify="right")
    for part, size in _sizes(made).items():
        table.add_row(part, f"{size:,}")
    console = Console(soft_wrap=True, highlight=False)
    console.print(table)
    given = made.spec.input
    console.print(f"input: {given.num_frames} frames ({given.eval_sampling}), {given.eval_video}", markup=False)
    console.print(f"licence: {made.spec.origin['licence']}", markup=False)
    for note in made.notes:
        console.print(f"note: {note}", markup=False)
    console.print(f"wrote {out}; load it with twinreel.load({str(out)!r})", markup=False)


def _print_families(*, as_json: bool) -> None:
    from .convert import FAMILIES

    if as_json:
        rows = [
            {"family": one.name, "models": one.models, "licence": one.licence, "options": dict(one.options)}
            for one in FAMILIES.values()
        ]
        print(json.dumps(rows))
        return
    for one in FAMILIES.values():
        print(f"{one.name}  ({one.licence})")
        for model in one.models:
            print(f"  {model}")
        for name, values in one.options.items():
            print(f"  --option {name}={'|'.join(values)}  (default: {values[0]})")
