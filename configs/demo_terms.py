"""Does a further term of the loss help the demo's towers? The demo with further terms, at half of its steps.

Argument: matching, masked_language, masked_frames, captioning, masked (both masked terms), or none.

Lab record
  Source: ALBEF (Li et al. 2021), BERT (Devlin et al. 2019), VideoMAE (Tong et al. 2022), CoCa (Yu et al. 2022).
  Commands: twinreel pretrain --config demo_terms:masked_language --workdir runs/terms --data runs/demo/moving_shapes
            twinreel evaluate runs/terms --data runs/demo/moving_shapes --captions first --out runs/terms/report
    Seeds 0, 1 and 2, two busy CPU cores; 500 test clips. t2v R@1; means of v2t R@1, of motion, texture and shape
    (minimal pairs) and of the seconds of CPU time:
      none        93.6 94.0 89.4   91.7  85.7 89.6 70.8  158
      matching    94.2 92.2 93.2   92.4  88.9 90.0 68.8  238
      masked      94.8 87.0 91.8   88.8  88.7 86.9 67.3  295
      captioning  91.0 88.4 89.2   89.6  88.5 87.3 69.6  204
    Motion gains 3 points by any term; retrieval gains nothing beyond the spread of the seeds. All columns are in
    docs/models.md.
    60 steps, seed 0 rank nothing: none 4.8, masked_language 3.4, masked_frames 3.6.
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
    c.optimizer.warmup_steps = 30
    c.evaluations = {}
    c.train = dict(steps=240, log_every=20, eval_every=0, checkpoint_every=240)
    return c
