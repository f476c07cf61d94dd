"""Which colour comes first, from labels of one clip in thirty: the others learn from pseudo-labels.

Lab record
  Source: FixMatch (Sohn et al. 2020, arXiv:2001.07685), on the tokens of the demo's frozen video tower.
  Command: twinreel finetune --config demo_few_labels --init runs/demo/pretrain --data runs/demo/moving_shapes
      --workdir runs/few_labels
    Not yet run. The figures to look at: test accuracy with `task.pseudo_weight` of 1 and of 0, by `task.labelled`.
"""

import ml_collections

from twinreel.configs import demo_classify


def get_config(head: str = "attentive") -> ml_collections.ConfigDict:
    """Return the config: `demo_classify` with few labels.

    Args:
      head: as of `demo_classify`.
    """
    c = demo_classify.get_config(head)
    c.task.name = "few_labels"
    c.task.update(labelled=0.03, pseudo_weight=1.0, pseudo_threshold=0.9, pseudo_ratio=3.0, strength=0.5)
    c.train.patience = 0
    return c
