"""Which moments show the red square falling? Saliency along moving_shapes clips, a head on the demo's frozen towers.

Lab record
  Sources: saliency of moments for a query, QVHighlights and moment_detr (Lei et al. 2021, arXiv:2107.09609).
  Command: twinreel finetune --config demo_highlight --init runs/demo/pretrain --data runs/demo/moving_shapes
      --workdir runs/highlights
    Seed 0 of the demo and of the run, 1,220 queries in 500 test clips: Hit1 99.5 %, HL-mAP 99.3 %. A random moment is a
    highlight in 41.0 %; so is the best moment of the train split's mean marks. Other seeds and `clip`: not yet run.
"""

import ml_collections

from twinreel.configs import common, demo_localise


def get_config(query: str = "text") -> ml_collections.ConfigDict:
    """Return the config: data, optimizer and schedule of `demo_localise`, moments of a quarter of a second.

    Args:
      query: `text` (default), or `clip`: no text, all events are highlights. `--config demo_highlight:clip`.
    """
    c = demo_localise.get_config()
    c.task = dict(
        name="highlight",
        query=common.choice(query, ("text", "clip")),
        moment_seconds=0.25,
        highest_score=4.0,
        margin=1.0,
        ranking_weight=1.0,
    )
    c.task.update(common.encoder_over_time() | common.head_on_frozen_towers())
    c.train.steps = 400
    c.train.eval_every = 50
    return c
