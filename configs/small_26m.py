"""ViT-S/16 on 8 frames of 224 pixels and a small text tower: the start for a few hundred thousand clips of your own.

Source: widths and depths of ViT-S/16 (Touvron et al. 2021, DeiT) with 4 temporal blocks (Arnab et al. 2021, ViViT
model 2), optimizer of CLIP (Radford et al. 2021, table 19).

    twinreel prepare clips.csv --out data/mine --fps 8 --short_side 256
    twinreel pretrain --config small_26m --data data/mine --workdir runs/mine

`--config small_26m:512` sets the global batch (default 256). In bfloat16, parameters in float32.

LAB RECORD: not yet run to the end; only its step is compiled and timed (`twinreel bench step --config small_26m`).
"""

import ml_collections

from twinreel.configs import common


def get_config(batch_size: int = 256) -> ml_collections.ConfigDict:
    """Return the config; the argument is the global batch size."""
    c = ml_collections.ConfigDict()
    c.seed = 0
    mild = "random_resized_crop(224, min_scale=0.5)"
    c.data = common.clips(batch_size=batch_size, num_frames=8, vocab_size=8000, train_video=mild)
    c.model = common.dual_tower("S/16")
    c.loss = dict(name="infonce", same_text="ignore", form="dense", exchange="gather", microbatch=1)
    c.optimizer = common.clip_adamw(lr=5e-4)
    c.update(common.pod(), evaluations=common.evaluations())
    c.train = common.long_run(steps=100_000)
    return c
