"""moving_shapes at 48 pixels, 8 frames: a dual tower that two CPU cores train in about four minutes.

Source: factorised video encoder (Arnab et al. 2021, ViViT model 2), InfoNCE (Radford et al. 2021, CLIP) with weighted
hard negatives (Robinson et al. 2021), Muon (Jordan et al. 2024). The train clips are listed by their colours, and
`group_size=16` keeps sixteen neighbours in one batch: order twins, and clips of the same or similar colours that differ
in other attributes.

    twinreel demo --workdir runs/demo --seed 0

LAB RECORD (a shared server with two CPU cores, jax 0.10.2, bfloat16; batches of 64 clips, 1.2 M parameters). Seconds of
CPU time of the whole demo, with ten other programs on the same cores; of these about 90 make and prepare the clips:

    seed   steps   t2v R@1   v2t R@1   order twins   shuffled   colour   order   size   texture   motion   shape   s
    0      720     95.4      97.2      100.0         59.6       97.2     100.0   92.4   80.0      92.0     60.8   (318)
    0      900     97.4      96.6      100.0         56.8       98.4     100.0   93.6   83.6      91.2     60.4    478
    1      720     97.0      98.4      99.2          54.4       98.8     100.0   93.2   84.4      89.6     61.6    467

    The first row is `make demo` by itself, with seconds on the clock: videos 26, prepare 26, pretrain 259, evaluate 7.
    500 test clips, first caption of each; chance: R@1 0.2, twins and minimal pairs 50 (percent). Minimal pairs: 250
    of each attribute, 95 % intervals of about 6 points at 50 % and 3 points at 95 %.

Before (AdamW, float32, 480 steps, learning rate 1e-3, group_size=2): t2v R@1 64.8, 64.6, 62.0 on seeds 0 to 2, 63.6 on
seed 0 measured again, for 334 s of CPU time.

WHAT HELPED (in memory, seed 0, bfloat16, 240 steps of 64 clips where not said otherwise; seconds of CPU time of the
steps alone; foils of another program, some 500 an attribute; one run each, so a few points mean nothing):

    change                                  seconds   t2v R@1   size   texture   motion   shape
    Muon, 1e-3, group_size=2                74        67.4      75.8   63.2      70.4     60.0
    ... clips by colour, group_size=16      61        71.2      86.6   68.0      77.6     56.2
    ... and learning rate 2e-3              70        76.2      85.6   65.7      75.8     58.4
    400 steps of 32 clips, groups of four   67        54.2      77.0   55.1      68.4     54.2

    The rows after the first keep freed memory (`engine.start.allocator`): kernel time 16 s -> 1 s. `hard_negative`
    was not measured by itself.

WHAT DID NOT HELP (shape, R@1, seconds; Muon):

    a caption with one attribute changed as a further negative of each clip                      55.8   69.4    93
    ... and patches of 8 pixels                                                                  56.0   69.6   133
    ... and early convolutions, learning rate 3e-3, 800 steps of 32 clips                        47.6   47.6   195
    early convolutions, 400 steps of 32 clips, groups of four                                    54.8   51.6    85
    early convolutions, hard_negative=0.5, clips by colour, group_size=16                        59.6   43.2   105

    Early convolutions: `conv=((8, 4, 64), (3, 2, 128), (3, 1, 128))`, no spatial blocks, frames pooled by mean,
    maximum and weights, pixels normalised by the data's mean and deviation.

Shape stays near chance. It is not beyond the towers: trained to classify single frames, 400 steps of 64, this tower
names the shape of 63 % of test frames, early convolutions of 88 % (chance 17 %). Trained on clips to name the
shape of each event and nothing else, 960 steps of 16 clips, it stays at 18 %, and at 22 % together with the other
attributes: what is missing is the step from frames to events, at this length of training.

Positions that start as sinusoids brought the order twins from 69 to 96 % at step 250 (AdamW).
"""

import ml_collections

from twinreel.configs import common


def get_config() -> ml_collections.ConfigDict:
    """Return the config."""
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.shapes = dict(train=3000, val=100, test=500, size=64, fps=12)
    c.prepare = dict(fps=6.0, short_side=52, jpeg_quality=90, audio=True)
    c.data = common.clips(
        dir="runs/demo/moving_shapes",
        batch_size=64,
        num_frames=8,
        train_sampling="uniform_jitter",
        train_video="random_crop(48)",
        eval_video="center_crop(48)",
        context_length=44,
        group_size=16,
        vocab_size=600,
    )
    c.model = dict(
        embed_dim=128,
        initial_scale=40.0,
        remat="none",
        unroll=0,
        video=common.video_tower(
            "XS/12", image_size=48, temporal_depth=2, tubelet=2, stem=4, pool="depthwise", dtype="bfloat16"
        ),
        text=common.text_tower("XS", dtype="bfloat16"),
    )
    c.loss = dict(name="infonce", same_text="ignore", form="dense", exchange="gather", microbatch=1, hard_negative=0.5)
    c.optimizer = common.muon(lr=2e-3, warmup_steps=50, weight_decay=0.05, frozen=())
    c.update(common.pod())
    c.train = dict(steps=720, log_every=20, eval_every=240, checkpoint_every=240)
    return c
