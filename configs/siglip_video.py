"""SigLIP B/16 as a video model: four new layers over eight frames, sigmoid loss, all of it trained.

Sources: SigLIP (Zhai et al. 2023), layers over time as in CLIP4Clip (Luo et al. 2021), rates that fall by layer as in
fine-tuning of ViTs (Bao et al. 2022, BEiT).

    twinreel pretrain --config siglip_video --data data/mine --workdir runs/siglip
    twinreel pretrain --config siglip_video --data data/mine --workdir runs/siglip_lit \\
        --config.optimizer.frozen='("^video/image/",)'

The model begins with SigLIP's own zero-shot numbers for the mean of frames; `--config.model.source=DIR` takes the
weights from a folder. With the second command the image tower is locked, and `twinreel features` can compute its
vectors once.

LAB RECORD: not yet run.
"""

import ml_collections

from twinreel.configs import common


def get_config(batch_size: int = 1024) -> ml_collections.ConfigDict:
    """Return the config; the argument is the global batch size."""
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.data = dict(dir="data/mine", batch_size=batch_size, num_frames=8)
    c.data.update(train_sampling="uniform_jitter", train_video="random_resized_crop(224, min_scale=0.5)|flip_lr")
    c.model = dict(
        source="hf:google/siglip-base-patch16-224",
        remat="full",
        video=dict(over_time="transformer", depth=4, heads=12, image=dict(dtype="bfloat16")),
        text=dict(dtype="bfloat16"),
    )
    c.loss = dict(name="sigmoid", microbatch=4)
    c.optimizer = common.adamw(lr=1e-4, warmup_steps=500, weight_decay=1e-2, b2=0.95, layer_decay=0.8, frozen=())
    c.optimizer.lr_scale = common.slow_sources(0.1)
    c.update(common.pod())
    c.evaluations = common.evaluations()
    c.train = common.long_run(steps=10_000)
    return c
