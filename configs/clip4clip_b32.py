"""CLIP ViT-B/32 fine-tuned for video retrieval with the settings of CLIP4Clip (Luo et al. 2021, table 8 and code).

Twelve frames of a clip, five epochs of pairs in batches of 128. CLIP's own parameters learn a thousandth as fast as new
ones; `clip4clip_b32:transformer` adds the four layers over time of its "seqTransf", which begin as the mean.

    twinreel prepare msrvtt --annotations DIR --videos DIR --out data/msrvtt --fps 1 --short_side 224
    twinreel pretrain --config clip4clip_b32 --data data/msrvtt --workdir runs/clip4clip
    twinreel evaluate runs/clip4clip --data data/msrvtt --split test --out runs/clip4clip/report

`--config.model.source=DIR` takes CLIP from a folder, `--config.train.steps` is 5 * pairs / 128 of the data set. On one
GPU of 24 GB, config.loss.microbatch=4.

LAB RECORD: not yet run. The paper has t2v R@1 43.1 (mean) and 44.5 (seqTransf) for MSR-VTT's split of 9,000 training
clips; users report 43.4 for the latter.
"""

import ml_collections

from twinreel.configs import common


def get_config(over_time: str = "mean") -> ml_collections.ConfigDict:
    """Return the config; the argument is what follows the frames, `mean` or `transformer`."""
    over_time = common.choice(over_time, ("mean", "transformer"))
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.data = dict(dir="data/msrvtt", batch_size=128, num_frames=12, context_length=32)
    c.model = dict(
        source="hf:openai/clip-vit-base-patch32",
        video=dict(over_time=over_time, depth=4, heads=8, image=dict(dtype="bfloat16")),
        text=dict(dtype="bfloat16"),
    )
    c.loss = dict(name="infonce", same_text="negative", microbatch=1)
    c.optimizer = common.clip_adamw(lr=1e-4)
    c.optimizer.update(warmup_steps=703, clip_norm=1.0, lr_scale=common.slow_sources(1e-3))
    c.update(common.pod())
    c.evaluations = dict()
    c.train = common.long_run(steps=7031) | dict(best_metric="", checkpoint_every=500)
    return c
