"""LiT on frozen towers: DINOv2's small image tower, MiniLM's text tower, and what is trained between them on a CPU."""

import ml_collections

from twinreel.configs import common


def get_config() -> ml_collections.ConfigDict:
    """Return the config."""
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.data = dict(dir="data/lit", batch_size=64, num_frames=4, eval_split="", context_length=40)
    c.model = dict(
        embed_dim=256,
        initial_scale=14.3,
        video=dict(
            source="hf:facebook/dinov2-small",
            features="dinov2",
            over_time="transformer",
            depth=1,
            heads=8,
            dropout=0.1,
            image=dict(pool="cls_mean"),
        ),
        text=dict(source="hf:sentence-transformers/all-MiniLM-L6-v2"),
    )
    c.loss = dict(name="infonce", same_text="ignore")
    c.optimizer = common.adamw(
        lr=1e-3, warmup_steps=20, weight_decay=0.1, frozen=("^video/image/", "^text/"), clip_norm=1.0
    )
    c.mesh = common.mesh()
    c.train = dict(steps=300, log_every=20, checkpoint_every=150)
    return c
