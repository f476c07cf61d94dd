"""A small dual tower at 64 pixels for a few hundred clips on a CPU: a first look at your own data in a few minutes.

    twinreel prepare clips.jsonl --out data/few --fps 8 --short_side 72
    twinreel pretrain --config few_clips --data data/few --workdir runs/few
    twinreel evaluate runs/few --data data/few --split test --out runs/few/report

LAB RECORD (two CPU cores of a shared server, jax 0.10.2; 609 real clips of talks, fights, push-ups and signed words,
488 train, 121 test; about 100 s a run; percent):

    seed   t2v R@1   R@5    R@10   MdR   v2t R@1
    0      3.3       20.7   33.9   16    3.3
    1      4.1       20.7   38.8   15    4.4
    2      3.3       19.8   36.4   16    4.2

    Chance is R@1 0.8, R@10 8.3, MdR 61. 77 of the 121 captions repeat another ("a person doing push-ups" 40 times), and
    ties count by expectation, so R@1 cannot come near 100 here. Towers from scratch learn the kind of clip, not its
    details.
"""

import ml_collections

from twinreel.configs import common


def get_config() -> ml_collections.ConfigDict:
    """Return the config."""
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.data = common.clips(
        dir="data/few",
        batch_size=64,
        num_frames=8,
        train_video="random_resized_crop(64, min_scale=0.6)|flip_lr|color_jitter(0.3)",
        eval_video="resize_short(64)|center_crop(64)",
        context_length=40,
        vocab_size=1000,
    )
    c.model = dict(
        embed_dim=128,
        video=common.video_tower("XS/16", image_size=64, temporal_depth=2, tubelet=2, dropout=0.1),
        text=common.text_tower("XS", dropout=0.1),
    )
    c.loss = dict(name="infonce", same_text="ignore")
    c.optimizer = common.adamw(lr=5e-4, warmup_steps=50, weight_decay=0.1, frozen=())
    c.mesh = common.mesh()
    c.evaluations = dict()
    c.train = dict(steps=200, log_every=20, checkpoint_every=100)
    return c
