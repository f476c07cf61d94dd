"""`twinreel explain`: which frames, patches, sounds and words carry a similarity or a prediction."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.errors import UserError
from ..base.parser import Parser, folder

if TYPE_CHECKING:
    from .explain import Explanation

DESCRIPTION = """Show which parts of a clip carry a model's score, and check whether that holds.

  twinreel explain runs/demo/pretrain --video a.mp4 --text "a small red star falls" --out why
  twinreel explain runs/classify --video a.mp4 --out why                       (of the predicted class)
  twinreel explain runs/classify --video a.mp4 --label fight --method integrated_gradients --json
  twinreel explain hf:openai/clip-vit-base-patch32 --video a.mp4 --text "a dog jumps" --method attention

The score of a dual tower is the cosine with --text; that of a classifier, the log odds of its predicted class (or of
--label). Relevance is given to time steps, cells of the pictures, words and, with --sound or in models that fuse
pictures with sound, to stretches of sound. Methods:
  occlusion             the score that is lost when a part is taken away
  integrated_gradients  gradients from the baseline to the clip; their sum is checked against the score
  attention             attention times its gradients, rolled out; towers with attention among patches, one pass
Each is checked by deletion and insertion curves beside random orders: only what beats a random order explains anything.

--out receives index.html (open it in a browser), explain.mp4 (the clip with its relevance and its sound) and
explain.json. From Python: `twinreel.explain.explain.explain(model, clip, asked=...)`."""


def main(argv: list[str]) -> int:
    """Run the verb."""
    args, _ = _parser().parse(argv)
    for name, least in (("batch_size", 1), ("seed", 0)):
        if getattr(args, name) < least:
            raise UserError(f"--{name} must be at least {least}, got {getattr(args, name)}")
    out = folder(args.out, flag="--out") if args.out else None
    from ..encode.predict.load import load
    from .clip import read_clip
    from .explained import Asked, check
    from .methods import check_method

    check_method(args.method)
    given = {name: getattr(args, name) for name in ("text", "label", "sound", "baseline", "grid", "batch_size")}
    asked = Asked(**given)
    model: Any = load(args.model)
    check(model, asked=asked, name=args.model)
    clip = read_clip(model.spec.input, Path(args.video), sound=True)
    how = {name: getattr(args, name) for name in ("method", "path_steps", "draws", "seed")}
    found = _explained(model, clip, asked=asked, **how)
    if out is not None:
        _write(found, spec=model.spec.input, out=out)
    if args.json:
        print(json.dumps(found.to_dict(), ensure_ascii=False, allow_nan=False))
    else:
        _print(found, out=out)
    return 0


def _parser() -> Parser:
    parser = Parser(verb="explain", description=DESCRIPTION)
    parser.add_argument("model", metavar="MODEL", help="a run, a checkpoint, a bundle, or public weights")
    parser.add_argument("--video", required=True, metavar="FILE", help="the clip: a film or a picture")
    parser.add_argument("--text", default="", help="of a dual tower: the text whose similarity is explained")
    parser.add_argument("--label", default="", help="of a classifier: the class to explain; default: the predicted one")
    parser.add_argument("--method", default="occlusion", help="occlusion, integrated_gradients or attention")
    parser.add_argument("--sound", action="store_true", help="explain the sound, too; needs an audio tower")
    parser.add_argument("--out", metavar="DIR", help="folder for the page, the film and explain.json")
    parser.add_argument(
        "--baseline",
        default="mean_colour",
        help="what stands where something is taken away: mean_colour, mean_frame, neighbours (in time) or black",
    )
    parser.add_argument("--grid", type=int, default=8, help="cells along each side of a picture")
    parser.add_argument("--path_steps", type=int, default=32, help="points on the way of integrated gradients")
    parser.add_argument("--draws", type=int, default=10, help="random orders beside the curves")
    parser.add_argument("--seed", type=int, default=0, help="of the random orders")
    parser.add_argument("--batch_size", type=int, default=16, help="changed clips at a time")
    parser.add_json()
    return parser


def _explained(model: Any, clip: Any, *, asked: Any, **how: Any) -> "Explanation":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from .explain import explain

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("score changed clips", total=None)
        return explain(
            model,
            clip,
            asked=asked,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
            **how,
        )


def _write(found: "Explanation", *, spec: Any, out: Path) -> None:
    from rich.console import Console

    from ..data.manifest import write_whole
    from .film import write_overlay
    from .page import write_explanation

    out.mkdir(parents=True, exist_ok=True)
    with Console(stderr=True).status("explain.mp4") as status:
        write_overlay(
            found, spec=spec, out=out / "explain.mp4", tick=lambda s: status.update(f"explain.mp4, {s:.0f} s")
        )
    text = json.dumps(found.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
    write_whole(out / "explain.json", parts=[text + "\n"])
    write_explanation(found, out=out)


def _print(found: "Explanation", *, out: Path | None) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False, soft_wrap=True)
    print(f"{found.subject}: {found.unit} {found.value:.4f}, of the baseline {found.nothing:.4f}")
    steps = Table("from, s", "to, s", "relevance")
    for start, end, value in zip(
        found.step_edges_s[:-1], found.step_edges_s[1:], found.parts["frames"].values, strict=True
    ):
        steps.add_row(f"{start:.2f}", f"{end:.2f}", f"{value:+.4f}")
    console.print(steps)
    if "words" in found.parts:
        words = Table("word", "relevance")
        for word, value in zip(found.words, found.parts["words"].values, strict=True):
            words.add_row(word, f"{value:+.4f}")
        console.print(words)
    checks = Table("parts", "deletion", "random", "insertion", "random", "gap of completeness")
    for name, part in found.parts.items():
        areas, gap = part.curves.areas(), part.relevance.gap
        cells = [name]
        for which in ("deletion", "insertion"):
            random, spread = areas[f"random_{which}"], areas[f"random_{which}_std"]
            cells += [f"{areas[which]:.3f}", f"{random:.3f} ± {spread:.3f}"]
        checks.add_row(*cells, "" if gap is None else f"{100 * gap:.2f} %")
    console.print(checks)
    if out is not None:
        print(f"{out / 'index.html'}\n{out / 'explain.mp4'}")
