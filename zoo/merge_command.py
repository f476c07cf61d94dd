"""`twinreel merge`: a model with low-rank updates as a bundle of plain weights."""

import json
from pathlib import Path

from ..base.errors import UserError
from ..base.parser import Parser

DESCRIPTION = """Write a model trained with config.adapt.lora or config.adapt.dora as a bundle of plain weights.

  twinreel merge runs/fights --out models/fights
  twinreel predict models/fights new/*.mp4

The updates become part of the matrices that they update, so the bundle has the layers and the speed of the model with
which the training began; outputs are the same up to rounding. Prompts and adapters (config.adapt.prompts, .adapters)
cannot be merged: they stay as they are. `twinreel export` merges by itself, and so does a new run that begins with the
model. MODEL is a run, one of its checkpoints, or a bundle."""


def main(argv: list[str]) -> int:
    """Run the verb."""
    parser = Parser(verb="merge", description=DESCRIPTION)
    parser.add_argument("model", metavar="MODEL", help="a run, a checkpoint, or a bundle")
    parser.add_argument("--out", required=True, metavar="BUNDLE", help="folder of the bundle; made, must be empty")
    parser.add_json()
    args, _ = parser.parse(argv)
    from .bundle import write_bundle
    from .load import locate
    from .merge import is_merged, merged
    from .spec import ADAPTERS

    located = locate(args.model)
    if is_merged(located.spec):
        raise UserError(
            f"{located.path} has no low-rank updates to merge; it was not trained with config.adapt.lora or .dora"
        )
    plain = merged(located)
    params = plain.params()
    write_bundle(Path(args.out), spec=plain.spec, params=params)
    count = {
        side: sum(len(given["layers"]) for given in tower[ADAPTERS].values() if "rank" in given)
        for side, tower in located.spec.towers.items()
        if ADAPTERS in tower
    }
    size = sum(value.size for value in params.values())
    if args.json:
        print(json.dumps({"bundle": args.out, "merged": count, "parameters": size}))
        return 0
    listed = ", ".join(f"{n} in the {side} tower" for side, n in count.items() if n)
    print(f"wrote {args.out}: {size:,} parameters; merged updates of layers: {listed}")
    return 0
