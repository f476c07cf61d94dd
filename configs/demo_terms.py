"""Does a further term of the loss help the demo's towers? The demo with further terms, at an eighth of its steps.

Argument: matching, masked_language, masked_frames, captioning, masked (both masked terms), or none.

Lab record
  Source: ALBEF (Li et al. 2021), BERT (Devlin et al. 2019), VideoMAE (Tong et al. 2022), CoCa (Yu et al. 2022).
  Commands: twinreel pretrain --config demo_terms:masked_language --workdir runs/terms --data runs/demo/moving_shapes
            twinreel evaluate runs/terms --data runs/demo/moving_shapes --captions first --out runs/terms/report
    Seed 0, 60 steps, two very busy CPU cores; 500 test clips. t2v R@1, order twins, size and shape (minimal pairs),
    seconds of CPU time of `pretrain`:
      none             4.8  62.0  85.6  56.8   95
      masked_language  3.4  56.8  68.8  52.4  147
      masked_frames    3.6  60.8  82.0  50.4  143
    So short a run ranks nothing. The ablation at the demo's full length is one run for each of none, matching,
    captioning and masked, with --config.train.steps=480 --config.optimizer.warmup_steps=50 and --config.seed=0 to 2.
    matching, captioning, masked, other seeds and longer schedules: not yet run.
"""

import ml_collections

from twinreel.configs import common, demo

TERMS = {
    "matching": (dict(kind="cross_encoder", depth=1, heads=4), dict(weight=1.0)),
    "masked_language": (dict(kind="cross_encoder", depth=1, heads=4), dict(weight=1.0)),
    "masked_frames": (
        dict(kind="decoder", width=96, depth=1, heads=4),
        dict(weight=1.0, ratio=0.75, epsilon=1e-3),  # 16 patches a frame; flat ones would otherwise be noise
    ),
    "captioning": (dict(kind="decoder", width=128, depth=1, heads=4), dict(weight=1.0)),
}
"""Argument -> the head, and the term."""
SEVERAL = {"none": (), "masked": ("masked_language", "masked_frames")}
"""Further arguments -> their terms."""


def get_config(arg: str = "masked_language") -> ml_collections.ConfigDict:
    """Return the config with the terms of the argument."""
    c = demo.get_config()
    names = SEVERAL.get(common.choice(arg, (*TERMS, *SEVERAL)), (arg,))
    if names:
        c.model.heads = {name: TERMS[name][0] for name in names}
        c.loss.terms = {name: TERMS[name][1] for name in names}
    c.optimizer.warmup_steps = 15
    c.evaluations = {}
    c.train = dict(steps=60, log_every=10, eval_every=0, checkpoint_every=60)
    return c
