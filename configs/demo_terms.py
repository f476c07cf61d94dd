"""Does a further term of the loss help the demo's towers? The demo with one more term, at an eighth of its steps.

Argument: matching, masked_language, masked_frames, captioning, or none.

Lab record
  Source: ALBEF (Li et al. 2021), BERT (Devlin et al. 2019), VideoMAE (Tong et al. 2022), CoCa (Yu et al. 2022).
  Commands: twinreel pretrain --config demo_terms:masked_language --workdir runs/terms --data runs/demo/moving_shapes
            twinreel evaluate runs/terms --data runs/demo/moving_shapes --captions first --out runs/terms/report
    Seed 0, 60 steps, two very busy CPU cores; 500 test clips. t2v R@1, order twins, size and shape (minimal pairs),
    seconds of CPU time of `pretrain`:
      none             4.8  62.0  85.6  56.8   95
      masked_language  3.4  56.8  68.8  52.4  147
      masked_frames    3.6  60.8  82.0  50.4  143
    So short a run ranks nothing. matching, captioning, other seeds and longer schedules: not yet run.
"""

import ml_collections

from twinreel.configs import common, demo

TERMS = {
    "none": ({}, {}),
    "matching": (dict(kind="cross_encoder", depth=1, heads=4), dict(weight=1.0)),
    "masked_language": (dict(kind="cross_encoder", depth=1, heads=4), dict(weight=1.0)),
    "masked_frames": (
        dict(kind="decoder", width=96, depth=1, heads=4),
        dict(weight=1.0, ratio=0.75, epsilon=1e-3),  # 16 patches a frame; flat ones would otherwise be noise
    ),
    "captioning": (dict(kind="decoder", width=128, depth=1, heads=4), dict(weight=1.0)),
}
"""Argument -> the head, and the term."""


def get_config(arg: str = "masked_language") -> ml_collections.ConfigDict:
    """Return the config with one more term."""
    c = demo.get_config()
    head, term = TERMS[common.choice(arg, tuple(TERMS))]
    if head:
        c.model.heads = {arg: head}
        c.loss.terms = {arg: term}
    c.optimizer.warmup_steps = 15
    c.evaluations = {}
    c.train = dict(steps=60, log_every=10, eval_every=0, checkpoint_every=60)
    return c
