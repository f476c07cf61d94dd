"""When, what and which colour first: three tasks on moving_shapes at once, on the demo's frozen towers.

Lab record
  Sources: uncertainty weights (Kendall, Gal & Cipolla 2018, arXiv:1705.07115), GradNorm (Chen et al. 2018,
    arXiv:1711.02257).
  Command: twinreel finetune --config demo_multitask --init runs/demo/pretrain --data runs/demo/moving_shapes
      --workdir runs/multitask --transfer alone
    The figures to look at: each task within 2 points of a run by itself, the tower computed a third. Seed 0 of the
    demo, seeds 0, 1 and 2 of the run, 500 test clips, percent:
      attributes (mAP)         alone 91.6, 91.6, 91.1; together 91.1, 91.6, 90.5
      first colour             alone 99.2, 99.0, 99.8; together 99.8, 99.6, 99.8
      moments (mean overlap)   alone 93.6, 93.7, 92.9; together 94.4, 93.8, 94.1
    A step computes 33.3 % of the tower's FLOPs of three runs of one task (98 of 293 MFLOP a clip) and 51 % of all.
    Earlier figures (attributes 90.4 and 90.6, moments 93.6 and 93.8 together) are of a fault: moments did not train the
    shared layers. Pairs, `uncertainty` and `gradnorm`: not yet run.
"""

import ml_collections

from twinreel.configs import common, demo_localise


def get_config(weighting: str = "fixed") -> ml_collections.ConfigDict:
    """Return the config.

    Fields of `data` that are None take the checkpoint's value. Clips are not augmented, so the features of the frozen
    video tower are computed once, for all tasks.

    Args:
      weighting: `fixed` (default), `uncertainty` or `gradnorm`: `--config demo_multitask:gradnorm`.
    """
    splits = dict(val_split="val", test_split="test")
    labels = dict(heads=4, dropout=0.1) | splits
    c = demo_localise.get_config()
    c.task = dict(
        name="multitask",
        weighting=common.choice(weighting, ("fixed", "uncertainty", "gradnorm")),
        tasks=dict(
            moments=dict(name="localise", query="text", levels=2, **splits, **common.encoder_over_time()),
            attributes=dict(name="classify", kind="multi", target="meta.attributes", head="queries", **labels),
            first_colour=dict(name="classify", kind="single", head="attentive", **labels),
        ),
        shared_depth=1,
        shared_heads=4,
        shared_dropout=0.1,
        **common.frozen_towers(),
    )
    c.train.steps = 600
    return c
