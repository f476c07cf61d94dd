"""`twinreel generate score`: let a dual tower find the captions of generated clips."""

import argparse
import sys
from typing import TYPE_CHECKING, Any

from ...base.errors import UserError
from ...base.parser import Parser
from .drawing import about, add_choice, add_drawing, check_choice, out_folder, solver_of

if TYPE_CHECKING:
    from ...data.batches.records import Records
    from ...encode.embed.encoder import Encoder
    from ..flow.solve import SolverOptions
    from ..sample.painter import Clips, Painter

DESCRIPTION = """Measure whether generated clips show what their captions say.

  twinreel generate score runs/painter --judge runs/demo/pretrain --data runs/demo/moving_shapes --out report
  twinreel generate score runs/painter --judge runs/demo/pretrain --data runs/demo/moving_shapes --edits 60 --out report
  twinreel generate score runs/painter --judge runs/demo/pretrain --data runs/demo/moving_shapes --out report \\
      --best_of 8 --rank_by runs/other/pretrain

A clip is generated for each of --clips captions of the split. The judge, a dual tower that had no part in the
generator's training, embeds clips and captions, and each clip looks for its caption among all of them: R@1 and R@5. The
same is done with the real clips (the bound) and with what the autoencoder alone makes of them. The tower that
conditions a generator is refused as its judge.
--best_of N adds a row: of N clips for each caption, the one that another tower (--rank_by, never the judge) finds
nearest to it.
--edits N also edits N real clips to foils, captions with a single attribute changed (meta.foils of a manifest), and
asks the judge which of the two captions fits. OUT receives generation.json and index.html, a page with the clips."""


def main(argv: list[str]) -> int:
    """Run the verb."""
    parser = Parser(verb="generate score", description=DESCRIPTION)
    parser.add_argument("model", metavar="MODEL", help="a workdir of `twinreel generate train`, or one checkpoint")
    parser.add_argument("--judge", required=True, help="a dual tower of another run: a workdir or a bundle")
    parser.add_argument("--data", required=True, metavar="DIR", help="prepared data set with captions")
    parser.add_argument("--split", default="test", help="whose captions are taken")
    parser.add_argument("--clips", type=int, default=100, help="captions, drawn by the seed; chance is one in so many")
    parser.add_argument("--edits", type=int, default=0, help="edits to judge as well")
    parser.add_argument("--strength", type=float, default=0.7, help="of the edits, see `generate edit`")
    parser.add_argument("--how", default="difference", help="of the edits: difference, invert or noise")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for figures and page")
    add_drawing(parser)
    add_choice(parser)
    parser.add_json()
    args, _ = parser.parse(argv)
    solver = solver_of(args)
    check_choice(args)
    if args.edits < 0:
        raise UserError(f"--edits must be at least 0, got {args.edits}")
    from ...data.batches.records import Records
    from ...evaluate.results import to_json
    from ..sample.cost import training_cost
    from ..sample.judge import load_judge, score_generator
    from ..sample.painter import load_painter
    from ..sample.report import print_score, write_score
    from ..sample.towers import load_tower

    painter, records = load_painter(args.model, progress=not args.json), Records(args.data)
    ranker = load_tower(args.rank_by, painter=painter, flag="--rank_by") if args.rank_by else None
    judge = load_judge(args.judge, painter=painter, ranker=ranker)
    given = {"split": args.split, "clips": args.clips, "seed": args.seed, "batch_size": args.batch_size}
    given |= {"ranker": ranker, "candidates": args.best_of}
    figures, made = score_generator(painter, judge=judge, records=records, solver=solver, **given)
    protocol = about(args, model=args.model) | {"judge": args.judge, "dataset": records.folder.resolve().name}
    protocol |= {"split": args.split, "captions": "the first of each clip", "clips_drawn": "at random, by the seed"}
    if ranker is not None:
        protocol |= {"best_of": args.best_of, "rank_by": args.rank_by}
    protocol |= {"texts_truncated": figures["texts_truncated"], "training": training_cost(args.model)}
    more: dict[str, Any] = {}
    if args.edits:
        edits, edited, figures["edits"] = _edited(args, painter, judge=judge, records=records, solver=solver)
        more = {"edits": edits, "edited": edited}
        protocol |= {"edit_strength": args.strength, "edit_method": args.how}
    page = write_score(out_folder(args), figures=figures, made=made, protocol=protocol, seconds=args.seconds, **more)
    if args.json:
        sys.stdout.write(to_json(figures | {"protocol": protocol}))
    else:
        print_score(figures, page=page)
    return 0


def _edited(
    args: argparse.Namespace, painter: "Painter", *, judge: "Encoder", records: "Records", solver: "SolverOptions"
) -> "tuple[list[dict[str, Any]], tuple[Clips, Clips], dict[str, Any]]":
    """Edit real clips to their foils; returns what was changed, the clips before and after, and the figures."""
    import numpy as np

    from ..sample.judge import changed_words, edit_figures, real_clips

    rows = records.rows(args.split)
    listed = changed_words([rows[i] for i in range(len(rows))], names=())
    if not listed:
        raise UserError(f"no clip of split {args.split!r} has foils to edit it to (meta.foils of its manifest); leave "
                        "--edits out")  # fmt: skip
    drawn = np.random.default_rng(args.seed).permutation(len(listed))[: args.edits]
    listed = [listed[i] for i in sorted(drawn.tolist())]
    places = sorted({place for place, _, _ in listed})
    clips = real_clips(painter, records=records, split=args.split, only=np.array(places))
    before = clips[[places.index(place) for place, _, _ in listed]]
    old = [rows[place]["captions"][0] for place, _, _ in listed]
    new = [text for _, _, text in listed]
    how: dict[str, Any] = {"strength": args.strength, "method": args.how, "solver": solver, "seed": args.seed}
    after = painter.edit(before, new=new, old=old, batch_size=args.batch_size, **how)
    texts = {"old": judge.encode_text(old), "new": judge.encode_text(new)}
    figures = edit_figures(judge, before=before, after=after, names=[name for _, name, _ in listed], **texts)
    edits = [
        {"clip_id": rows[place]["clip_id"], "what": name, "old": old[i], "new": text}
        for i, (place, name, text) in enumerate(listed)
    ]
    return edits, (before, after), figures
