"""Which clip comes next? Sessions of imagined users who like one colour and one motion; the demo's frozen video tower.

Lab record
  Sources: self-attention over sessions, SASRec (Kang & McAuley 2018, arXiv:1808.09781); GRU4Rec (Hidasi et al. 2016,
    arXiv:1511.06939); in-batch items corrected for their frequency (Yi et al. 2019).
  Commands: twinreel demo --workdir runs/demo --data sessions
    twinreel finetune --config demo_recommend --init runs/demo/pretrain --data runs/demo/moving_shapes
      --workdir runs/next --config.task.sessions=runs/demo/sessions.jsonl
    The checkpoint is the demo's, seed 0, 480 steps. 2,800 train, 400 val and 800 test sessions over 3,600 clips; 500
    clips are in no train session. Percent, on test sessions (235 of them end with a new clip):

    run                             nDCG@10   recall@10   MRR   nDCG@10, new clips
    config.seed 0                   2.3       4.6         2.3   0.0
    1                               2.9       5.1         2.9   0.6
    2                               2.5       4.6         2.5   0.6
    mean of embeddings, untrained   1.3       2.4         1.5   1.7
    popularity                      0.4       1.1         0.5   0.0
    random order                    0.1       0.3         0.2   0.1

    Each taste fits a hundred clips or so, of which one came next, so that no model comes near 100 %. 37 to 42 s of CPU
    time a run, with features that were there. New clips are ranked above a random order by two seeds of three only,
    and the untrained mean ranks them better: the head learns from sessions which clips are popular, and no new one is.
    On a checkpoint of 240 steps: 2.8, 2.0 and 2.1, of new clips 1.1, 0.5 and 0.3; the mean 1.3 and 0.8.
  In memory, 400 steps, seed 0, another draw of 4,000 sessions with 400 of test (nDCG@10): tokens="mean" 2.4, "joined"
    3.6. `attention`: 0.9, with sessions in which popularity counted for more (popularity 1.2) and tokens="mean";
    `gru`: not yet run.
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
