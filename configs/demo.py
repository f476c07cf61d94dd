"""moving_shapes at 48 pixels, 8 frames: a dual tower that two CPU cores train in about two minutes.

LAB RECORD
"""

import ml_collections


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """Return the demo's config; it takes no argument."""
    if arg:
        raise TypeError("the demo config takes no argument")
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.shapes = dict(train=3000, val=100, test=500, size=64, fps=12)
    c.prepare = dict(fps=6.0, short_side=52, jpeg_quality=90, audio=True)
    c.data = dict(
        dir="runs/demo/moving_shapes",
        batch_size=64,
        num_frames=8,
        eval_split="val",
        train_sampling="uniform_jitter",
        eval_sampling="uniform",
        train_video="random_crop(48)",
        eval_video="center_crop(48)",
        context_length=44,
        group_size=2,
        vocab_size=600,
    )
    c.model = dict(
        embed_dim=128,
        initial_scale=40.0,
        video=dict(
            image_size=48,
            patch=12,
            stem=4,
            tubelet=2,
            width=128,
            depth=2,
            heads=4,
            temporal_depth=2,
            pool="depthwise",
            mlp_ratio=3.0,
        ),
        text=dict(width=128, depth=2, heads=4, mlp_ratio=3.0),
    )
    c.loss = dict(mask_same_text=True)
    c.optimizer = dict(
        name="adamw", lr=1e-3, warmup_steps=50, schedule="cosine", weight_decay=0.05, b2=0.98, clip_norm=1.0
    )
    c.mesh = dict(replica=-1, fsdp=1, tensor=1)
    c.train = dict(steps=480, log_every=20, eval_every=120, checkpoint_every=120)
    return c
