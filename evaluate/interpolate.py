"""`twinreel interpolate`: models between a checkpoint and its fine-tuned form, measured on new and on old data."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.errors import UserError
from ..base.parser import Parser

if TYPE_CHECKING:
    from ..zoo.interpolate import Line

DESCRIPTION = """Find out how much of its old ability a fine-tuned model has lost, and win it back.

  twinreel interpolate runs/base runs/tuned --data data/new --canary data/old --out runs/curve
  twinreel interpolate runs/base runs/tuned --alpha 0.5 --bundle models/between

Weights between those of the model BASE and of TUNED, which was fine-tuned from it, often keep most of what TUNED has
learned and most of what BASE could do (WiSE-FT, Wortsman et al. 2022): at alpha they are (1 - alpha) * BASE + alpha *
TUNED. The first form measures retrieval at each alpha on the data that TUNED was made for (--data) and on data that it
should not forget (--canary, which may be repeated): OUT receives index.html with the curves, and interpolation.json.
The second form writes the model at one alpha as a bundle, which every verb takes as MODEL.

Choose alpha on a validation split, and report the figure of a test split; 0.5 is a good choice without measurements.
Low-rank updates (config.adapt.lora, .dora) are merged first. --json prints interpolation.json on standard output."""

ALPHAS = tuple(round(0.1 * i, 1) for i in range(11))


def main(argv: list[str]) -> int:
    """Run the verb."""
    parser = Parser(verb="interpolate", description=DESCRIPTION)
    parser.add_argument("base", metavar="BASE", help="the model before fine-tuning: a run, a bundle, or public weights")
    parser.add_argument("tuned", metavar="TUNED", help="what was fine-tuned from it")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder that `twinreel prepare` made, of the new data")
    words = "prepared folder of data that must not be forgotten; may be repeated"
    parser.add_argument("--canary", action="append", default=[], type=Path, metavar="DIR", help=words)
    parser.add_argument("--split", default="val", help="which split of the folders")
    parser.add_argument("--alphas", default=",".join(map(str, ALPHAS)), metavar="A,B,...", help="values to measure")
    parser.add_argument("--batch_size", type=int, default=32, help="clips embedded at a time")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the page; made if absent")
    parser.add_argument("--alpha", type=float, metavar="A", help="write the model at this value, to --bundle")
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="folder of that bundle; made, must be empty")
    parser.add_json()
    args, _ = parser.parse(argv)
    if (args.alpha is None) != (args.bundle is None):
        raise UserError("--alpha A and --bundle DIR go together: the model at A is written to DIR; give both or none")
    if args.alpha is None and not (args.data and args.out):
        raise UserError(
            "interpolate has nothing to do: give --data DIR --canary DIR --out DIR, or --alpha A --bundle DIR"
        )
    options = InterpolateOptions(split=args.split, alphas=_numbers(args.alphas), batch_size=args.batch_size)
    from ..zoo.interpolate import line_between
    from ..zoo.load import locate

    line = line_between(locate(args.base), tuned=locate(args.tuned))
    if args.alpha is not None:
        from ..zoo.bundle import write_bundle

        between = line.at(args.alpha)
        write_bundle(args.bundle, spec=between.spec, params=between.params())
        print(f"wrote {args.bundle}: the model at alpha = {args.alpha:g}", file=sys.stderr if args.json else sys.stdout)
    if args.data is not None:
        if args.out is None:
            raise UserError("--data is measured for a page; give --out DIR as well")
        results = {"base": args.base, "tuned": args.tuned}
        results |= measure_line(line, data=args.data, canaries=args.canary, options=options)
        _tell(results, out=args.out, as_json=args.json)
    return 0


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(one) for one in text.split(","))
    except ValueError:
        raise UserError(f"--alphas {text!r} is no list of numbers; write it as 0,0.25,0.5,0.75,1") from None


@dataclasses.dataclass(frozen=True, kw_only=True)
class InterpolateOptions:
    """What is measured between two models.

    Attributes:
      split: of every folder.
      alphas: shares of the fine-tuned weights, increasing; 0 and 1 are measured in any case.
      batch_size: clips embedded at a time.
      progress: draw progress bars on standard error.
    """

    split: str = "val"
    alphas: Sequence[float] = ALPHAS
    batch_size: int = 32
    progress: bool = True

    def __post_init__(self):
        if wrong := [alpha for alpha in self.alphas if not 0 <= alpha <= 1]:
            raise UserError(f"--alphas has {wrong[0]:g}, which is not between the models; give values from 0 to 1")


def measure_line(
    line: "Line", *, data: Path, canaries: Sequence[Path] = (), options: InterpolateOptions | None = None
) -> dict[str, Any]:
    """Measure retrieval of the models between two, on new data and on data that must not be forgotten.

    Args:
      line: of `zoo.interpolate.line_between`, between dual towers.
      data: folder that `twinreel prepare` made.
      canaries: further folders.
      options: what is measured; None = the defaults.

    Returns:
      JSON values: `sets`, name of a folder -> `role` ("new" or "canary") and protocol; `points`, for each `alpha` the
      figures of each set in both directions; `chosen`, the alpha with the highest mean of the sets' text-to-video R@1
      (of equal ones the smallest).

    Raises:
      UserError: a folder or split that is not there, two folders of one name, or a model that is no dual tower.
    """
    from ..data.batches.records import Records
    from ..encode.embed.encoder import encoder_of
    from ..zoo.load import load_model
    from .embedding.embed import embed_split
    from .embedding.loaded import LoadedSplit
    from .measures.ranks import summary
    from .protocols.directions import DIRECTIONS
    from .results import rank

    options = options or InterpolateOptions()
    folders = {folder.resolve().name: Records(folder) for folder in (data, *canaries)}
    if len(folders) <= len(canaries):
        raise UserError("two of the folders have one name; rename one, or give each once")
    loaded = {name: LoadedSplit(one, split=options.split) for name, one in folders.items()}
    encoder, points = None, []
    for alpha in sorted({0.0, 1.0, *options.alphas}):
        located = line.at(alpha)
        if encoder is None:
            encoder = encoder_of(located)
        else:
            encoder.model = load_model(located)
        figures = {}
        for name, split in loaded.items():
            found = embed_split(encoder, loaded=split, batch_size=options.batch_size, progress=options.progress)
            ranks = rank(found)
            figures[name] = {direction: summary(ranks[direction]) for direction in DIRECTIONS}
        points.append({"alpha": alpha, "sets": figures})
    roles = ["new", *["canary"] * len(canaries)]
    sets = {
        name: {"role": role, "clips": len(split.rows), "captions": len(split.texts)}
        for (name, split), role in zip(loaded.items(), roles, strict=True)
    }
    best = max(points, key=lambda point: (mean_recall(point), -point["alpha"]))
    return {"split": options.split, "sets": sets, "points": points, "chosen": best["alpha"]}


def mean_recall(point: dict[str, Any]) -> float:
    """Return the mean of the sets' text-to-video R@1 at one alpha, in percent."""
    found = [figures["text_to_video"]["R@1"] for figures in point["sets"].values()]
    return sum(found) / len(found)


def _tell(results: dict[str, Any], *, out: Path, as_json: bool) -> None:
    """Write the page and `interpolation.json`, and print the figures."""
    from .reports.interpolation_page import print_interpolation, write_interpolation
    from .results import to_json

    out.mkdir(parents=True, exist_ok=True)
    text = to_json(results)
    (out / "interpolation.json").write_text(text, encoding="utf-8")
    page = write_interpolation(out, results=results)
    if as_json:
        sys.stdout.write(text)
        return
    print_interpolation(results)
    print(f"report: {page}")
