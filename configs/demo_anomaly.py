"""When is a film odd? Generated films in which the light flickers or a shape rises, told from labels of whole films.

Lab record
  Sources: multiple-instance ranking (Sultani et al. 2018, arXiv:1801.04264); feature magnitudes and dilated
    convolutions, RTFM (Tian et al. 2021, arXiv:2101.10030).
"""

import ml_collections
from ml_collections import config_dict

from twinreel.configs import common


def get_config(loss: str = "magnitude") -> ml_collections.ConfigDict:
    """Return the config.

    Fields of `data` that are None take the checkpoint's value. A film is a bag of `data.train_clips` windows of
    `data.window_seconds`, evenly spread; the features of the frozen tower are computed once.

    Args:
      loss: `magnitude` (default): RTFM's ranking of feature magnitudes with the cross-entropy of films; `ranking`:
        that of Sultani et al. `--config demo_anomaly:ranking`.
    """
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.task = dict(
        name="anomaly",
        normal=("normal",),
        loss=common.choice(loss, ("magnitude", "ranking")),
        top_k=5,
        margin=1.0,
        width=128,
        dilations=(1, 2, 4),
        smooth=2,
        dropout=0.3,
    )
    c.task.update(dict(smoothness=8e-4, sparsity=8e-3) if loss == "magnitude" else dict(smoothness=8e-5, sparsity=8e-5))
    c.task.update(common.head_on_frozen_towers())
    c.data = common.clips_without_draws(batch_size=32, num_frames=16, window_seconds=2.5, train_clips=5)
    c.model = dict(video=dict(image_size=config_dict.placeholder(int)))
    c.optimizer = common.adamw(lr=1e-3, warmup_steps=50, weight_decay=0.01, b2=0.999)
    c.mesh = common.mesh()
    c.train = dict(steps=400, log_every=20, eval_every=100, checkpoint_every=100, keep_last=2, keep_best=1, patience=0)
    return c
