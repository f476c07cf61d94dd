"""All shapes, colours, sizes, textures and motions of a moving_shapes clip, as labels; the demo's frozen video tower.

Lab record
  Sources: a query for each class, ML-Decoder (Ridnik et al. 2021, arXiv:2111.12933); sigmoid cross-entropy.
  Command: twinreel finetune --config demo_attributes --init runs/demo/pretrain --data runs/demo/moving_shapes
      --workdir runs/attributes
    Seed 0 of the demo and of the run, 30 classes, 500 test clips: mAP 92.2 %, GAP 95.7 %, Hit@1 100 %; equal scores
    have mAP 34.5 %. The lowest: disc 53, cross 63, grey 73, turns 78, square 78 %. `attentive`, which pools all classes
    by one query, at a learning rate of 3e-3: mAP 86.2 %. Other seeds: not yet run.
"""

import ml_collections

from twinreel.configs import demo_classify


def get_config(head: str = "queries") -> ml_collections.ConfigDict:
    """Return the config: `demo_classify` with several labels per clip, from 16 frames.

    Args:
      head: `queries` (default), `attentive` or `linear`: `--config demo_attributes:linear`.
    """
    c = demo_classify.get_config(head)
    c.task.kind = "multi"
    c.task.target = "meta.attributes"
    c.data.num_frames = 16
    c.optimizer.lr = 2e-3
    c.train.steps = 600
    c.train.eval_every = 100
    c.train.patience = 0
    return c
