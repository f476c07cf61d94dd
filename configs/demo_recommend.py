"""Which clip comes next? Sessions of imagined users who like one colour and one motion; the demo's frozen video tower.

Lab record
  Sources: self-attention over sessions, SASRec (Kang & McAuley 2018, arXiv:1808.09781); GRU4Rec (Hidasi et al. 2016,
    arXiv:1511.06939); in-batch items corrected for their frequency (Yi et al. 2019).
  not yet run
"""

import ml_collections
from ml_collections import config_dict

from twinreel.configs import common


def get_config(session: str = "mean") -> ml_collections.ConfigDict:
    """Return the config; `config.task.sessions` names the file of sessions.

    Args:
      session: `mean` (default), `gru` or `attention`: `--config demo_recommend:gru`.
    """
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.task = dict(
        name="recommend",
        sessions="runs/demo/sessions.jsonl",
        tokens="joined",
        session=common.choice(session, ("mean", "gru", "attention")),
        embed_dim=64,
        depth=1,
        heads=2,
        max_length=20,
        negatives=512,
        k=10,
    )
    c.data = common.clips_without_draws(batch_size=64, num_frames=config_dict.placeholder(int), group_size=1)
    c.model = dict(video=dict(image_size=config_dict.placeholder(int)))
    c.optimizer = common.adamw(lr=1e-3, warmup_steps=50, weight_decay=0.05, b2=0.999)
    c.mesh = common.mesh()
    c.train = dict(steps=300, log_every=50, eval_every=150, checkpoint_every=150, keep_last=2, keep_best=1, patience=0)
    return c
