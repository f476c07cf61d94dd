"""Is it the same shape? Verification of generated identities that training has not seen.

Lab record
  Sources: additive angular margin, ArcFace (Deng et al. 2019, arXiv:1801.07698); large-margin cosine, CosFace (Wang et
    al. 2018, arXiv:1801.09414).
  Commands: twinreel demo --workdir runs/demo --data identities
    twinreel finetune --config demo_identify --init runs/demo/pretrain --data runs/demo/shape_identities
      --workdir runs/same
    The checkpoint is the demo's, seed 0, 480 steps. Its captions name shapes, textures and colours, of the test
    identities, too: unseen are their clips and labels. 138 identities to train on, 20 to choose the checkpoint, 40 to
    test, 16 clips of each: 204,480 pairs, 4,800 of one identity. Frozen tower, 400 steps; percent:

    run                             EER    AUC    TAR at FAR 0.1 %   1 %    10 %   LFW folds
    config.seed 0                   3.6    99.4   57.3               86.5   99.4   96.4
    1                               3.3    99.5   59.9               87.6   99.6   96.6
    2                               3.4    99.4   52.6               86.6   99.2   96.0
    mean time token, not trained    12.0   95.2   18.1               46.4   85.7   87.8
    chance                          50.0   50.0   0.1                1.0    10.0   50.0

    23 s of CPU time a run, and once another 23 s for the features. On a checkpoint of 240 steps: EER 4.2, 4.0 and 3.6,
    with demo_identify:cosface 4.2 (seed 0), not trained 13.5.
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
