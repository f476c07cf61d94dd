"""Which video comes next? Sessions of users, by the content of videos: self-attention on the frozen CLIP ViT-B/32.

    twinreel prepare videos.csv --out data/videos --fps 1 --short_side 224
    twinreel finetune --config recommend_clip_b32 --init hf:openai/clip-vit-base-patch32 --data data/videos \\
        --workdir runs/next --config.task.sessions=sessions.parquet
    twinreel predict runs/next CLIP_ID CLIP_ID --top_k 20

Sources: SASRec (Kang & McAuley 2018, arXiv:1808.09781); sampled items corrected for their frequency (Yi et al. 2019);
CLIP (Radford et al. 2021).

LAB RECORD: not yet run.
"""

import ml_collections

from twinreel.configs import common, demo_recommend


def get_config(session: str = "attention") -> ml_collections.ConfigDict:
    """Return the config: 8 frames of a video, embedded once; histories of up to 50 videos.

    Args:
      session: `attention` (default), `gru` or `mean`.
    """
    c = demo_recommend.get_config(session)
    c.task.update(sessions="", tokens="mean", embed_dim=256, depth=2, heads=4, max_length=50, negatives=4096)
    c.data.update(batch_size=256, num_frames=8)
    c.optimizer = common.adamw(lr=1e-3, warmup_steps=500, weight_decay=0.05, b2=0.999)
    c.train = dict(
        steps=20_000, log_every=50, eval_every=1_000, checkpoint_every=1_000, keep_last=2, keep_best=1, patience=0
    )
    return c
