"""Is it the same shape? Verification of generated identities that training has not seen.

Lab record
  Sources: additive angular margin, ArcFace (Deng et al. 2019, arXiv:1801.07698); large-margin cosine, CosFace (Wang et
    al. 2018, arXiv:1801.09414).
  not yet run
"""

import ml_collections
from ml_collections import config_dict

from twinreel.configs import common


def get_config(loss: str = "arcface") -> ml_collections.ConfigDict:
    """Return the config.

    Args:
      loss: `arcface` (default) or `cosface`: `--config demo_identify:cosface`.
    """
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.task = dict(
        name="identify",
        identity="labels",
        loss=common.choice(loss, ("arcface", "cosface")),
        margin=0.5 if loss == "arcface" else 0.35,
        scale=30.0,
        embed_dim=128,
        pool="attentive",
        dropout=0.1,
    )
    c.task.update(common.head_on_frozen_towers())
    c.data = common.clips_without_draws(batch_size=64, num_frames=config_dict.placeholder(int), group_size=1)
    c.model = dict(video=dict(image_size=config_dict.placeholder(int), dropout=config_dict.placeholder(float)))
    c.optimizer = common.adamw(lr=1e-3, warmup_steps=50, weight_decay=0.05, b2=0.999)
    c.mesh = common.mesh()
    c.train = dict(steps=400, log_every=20, eval_every=100, checkpoint_every=100, keep_last=2, keep_best=1, patience=0)
    return c
