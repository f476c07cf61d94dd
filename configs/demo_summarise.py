"""Which shots are worth keeping? Importance along films of moving_shapes clips, a head on the demo's frozen towers.

Lab record
  Sources: scores of frames, kernel temporal segmentation and a knapsack: Potapov et al. 2014, Zhang et al. 2016
    (arXiv:1605.08110); annotators and figures: TVSum (Song et al. 2015), SumMe (Gygli et al. 2014), rank correlations
    (Otani et al. 2019, arXiv:1903.11328).
  Command: twinreel demo --workdir runs/demo --films
      twinreel finetune --config demo_summarise --init runs/demo/pretrain --data runs/demo/shape_films
      --workdir runs/summaries
"""

import ml_collections

from twinreel.configs import common, demo_localise


def get_config() -> ml_collections.ConfigDict:
    """Return the config: data, optimizer and schedule of `demo_localise`, 128 frames of a film, shots of 0.75 s."""
    c = demo_localise.get_config()
    c.task = dict(name="summarise", share=0.15, shortest_s=0.75, penalty=3.0, margin=1.0, ranking_weight=1.0)
    c.task.update(common.encoder_over_time() | common.head_on_frozen_towers())
    c.data.update(dict(batch_size=16, num_frames=128))
    c.train.update(dict(steps=300, log_every=20, eval_every=30, checkpoint_every=30))
    return c
