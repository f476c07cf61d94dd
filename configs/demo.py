"""moving_shapes at 48 pixels, 8 frames: a dual tower that two CPU cores train in about four minutes.

Source: factorised video encoder (Arnab et al. 2021, ViViT model 2), InfoNCE (Radford et al. 2021, CLIP) with weighted
hard negatives (Robinson et al. 2021), Muon (Jordan et al. 2024). The train clips are listed by their colours, and
`group_size=16` keeps sixteen neighbours in one batch: order twins, and clips of the same or similar colours that differ
in other attributes.

    twinreel demo --workdir runs/demo --seed 0

LAB RECORD (a shared server with two CPU cores, jax 0.10.2, bfloat16; batches of 64 clips, 1.3 M parameters):

    seed   steps   t2v R@1   v2t R@1   order twins   shuffled   colour   order   size   texture   motion   shape   s
    0      720     98.4      98.2      100.0         52.4       97.6     100.0   94.0   85.2      90.4     61.2    (216)

    `make demo` in a fresh clone, seconds on the clock of two quiet cores: videos 21, prepare 17, pretrain 173, evaluate
    5 (5 min 9 s with the installation). The linear map over time adds 66 thousand multiplications a clip to some forty
    million. Seeds 1 and 2 were not run.

With `time_pool="mean"`, which came before (1.2 M parameters). Seconds of CPU time of the whole demo, with ten other
programs on the same cores; of these about 90 make and prepare the clips:

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

Shape stays near chance. What was measured to find out why (in memory, seed 0, batches of 64, 150 steps unless said
otherwise, Muon; "conv" is `conv=((8, 4, 64), (3, 2, 128), (3, 1, 128))` without spatial blocks, frames pooled by
weights, maximum and (where learning rate 2e-3) mean; pixels normalised). One run each on a crowded machine.

The attributes of the event in each single frame (percent of test frames right, train in brackets; chance of shape 17).
Frames come from anywhere in an event, also where the shape is at the edge, faded or shrunk:

    tower                                        shape         texture   colour   ms of CPU a step, video only
    this one, tubelets of two frames             21.9 (31.1)   68.2      86.8     158
    this one, tubelet 1                          26.2 (32.3)   75.2      91.2     274
    conv, tubelet 1                              53.7 (57.5)   80.5      92.5     478
    ... 100 steps                                30.0 (36.0)   73.4      89.7     550
    ... 100 steps, Muon on the convolutions too  32.8 (40.5)   69.7      88.9     595
    ... and 4e-3 in place of 2e-3, and ReLU      47.6 (54.4)   82.0      91.8     573

The attributes of the first, second and third event from the clip's vector (conv, tubelet 1, four frames, 4e-3;
cross-entropy in nats; a guess has 2.4 of colour, 1.79 of shape). The single frames of conv at 4e-3 reach 0.57 of colour
at step 50 and 0.25 at step 100, and 1.43 of shape at step 100. The learning rate falls to 0 at step 250 with the mean
and at step 150 with the linear map, which helps the latter at its end:

    vector of a clip               step   colour   motion   size   texture   shape
    mean over time                 50     2.24     2.13     0.69   1.12      1.83
                                   100    1.46     2.06     0.61   1.11      1.82
                                   150    0.79     1.84     0.43   0.95      1.78
    `time_pool="linear"`           50     1.71     2.12     0.63   1.17      1.88
                                   100    0.70     1.61     0.37   1.08      1.85
                                   150    0.53     1.46     0.28   0.80      1.76   (18.9 % of test, 26.2 of train)

So two links are slow, one after the other, and a third one is missing. Which frames belong to which event: a mean over
time lets attention find it alone, and every attribute waits for that; the linear map shortens that. What
a shape looks like: the last attribute to be learned even from single frames, by patches hardly at all. (Memorisation is
not it: train is only some points above test.) And the loss hardly asks for it: in the run above the batches of steps
620 and 720 are matched without a mistake (loss 0.09 and 0.21; with the mean over time 0.04 at step 900), with shape at
61 %. Colour, order, size, motion and texture suffice to tell sixteen neighbours apart, so more steps of such batches
add little: 900 steps gave 60.4. What might, not measured: convolutions together with `time_pool="linear"` over a whole
run, and from its middle on negatives that only shape tells apart.

Contrastive (foils of this data set; R@1 of 500 test clips):

    change                                                    steps  s CPU  t2v R@1  size   texture   motion   shape
    this tower, mean over time, hard_negative=0 (above)       240    70     76.2     85.6   65.7      75.8     58.4
    this tower, `time_pool="linear"`, hard_negative=0         240    78     85.2     86.0   76.8      76.0     56.4
    conv, four frames, mean over time, 4e-3                   360    134    61.8     89.2   46.8      70.0     52.4
    ... and the caption's words told from single frames       360    134    62.2     86.4   47.6      66.4     58.0
    conv, four frames, hard_negative=0, 4e-3 constant         330    126    30.0     60.4   51.2      55.2     51.6

    The first row has other foils and comes from another program. Words told from single frames: a linear layer on each
    frame's vector, the maximum over frames, binary cross-entropy of all words with weight 0.2 (as SuperClass, Huang et
    al. 2024). The step of a tower of convolutions costs 1.7 times that of patches at the same tubelet (video only).

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
        foils_per_clip=1,
        foil_weights=dict(shape=3.0, colour=1.0, size=1.0, texture=1.0, motion=1.0),
        pixel_mean=(0.28, 0.28, 0.28),
        pixel_std=(0.12, 0.12, 0.12),
        vocab_size=600,
    )
    c.model = dict(
        embed_dim=128,
        initial_scale=40.0,
        remat="none",
        unroll=0,
        video=common.video_tower(
            "XS/12",
            image_size=48,
            temporal_depth=2,
            tubelet=2,
            stem=4,
            gradients=8,
            pool="depthwise",
            time_pool="linear",
            dtype="bfloat16",
        ),
        text=common.text_tower("XS", dtype="bfloat16"),
    )
    c.loss = dict(name="infonce", same_text="ignore", form="dense", exchange="gather", microbatch=1, hard_negative=0.5)
    c.optimizer = common.muon(lr=2e-3, warmup_steps=50, weight_decay=0.05, frozen=())
    c.update(common.pod())
    c.train = dict(steps=480, log_every=20, eval_every=240, checkpoint_every=240)
    return c
