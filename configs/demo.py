"""moving_shapes at 48 pixels, 8 frames: a dual tower that two CPU cores train in about four minutes.

Source: factorised video encoder (Arnab et al. 2021, ViViT model 2) on histograms of oriented gradients (Dalal & Triggs
2005), InfoNCE (Radford et al. 2021, CLIP) with weighted hard negatives (Robinson et al. 2021) and with captions in
which one attribute is wrong (NegCLIP, Yuksekgonul et al. 2023), Muon (Jordan et al. 2024). The train clips are listed
by their colours, and `group_size=16` keeps sixteen neighbours in one batch: order twins, and clips of the same or
similar colours that differ in other attributes.

    twinreel demo --workdir runs/demo --seed 0

LAB RECORD (a shared server with two CPU cores, jax 0.10.2; batches of 64 clips, 1.2 M parameters):

    float32, which the config has now, by `pretrain` and `evaluate`; cheaper pixel gradients and Muon (bench/README.md):

    seed   t2v R@1   v2t R@1   order twins   shuffled   colour   order   size   texture   motion   shape   s
    0      96.6      95.6      100.0         56.4       96.4     100.0   92.8   94.0      88.8     84.4    287

    287 s of CPU time is `pretrain` alone, on two cores with a load of 15 to 35: 0.52 s a step in its second half. On
    one core a step costs 0.36 s and its batch 0.05, where the bfloat16 step cost 0.53. One seed.

    A step has 23.4 GFLOP of products; those of dense layers are 62 % of its CPU time, and padded texts a quarter of it
    (bench/README.md, "Where the rest goes").

    bfloat16, before:

    seed   t2v R@1   v2t R@1   order twins   shuffled   colour   order   size   texture   motion   shape   s
    0      95.8      96.2      100.0         53.2       95.2     100.0   93.2   92.8      88.4     82.0    432
    1      96.8      96.8      98.8          51.6       96.0     99.6    95.2   92.8      88.4     82.4    489
    2      97.2      96.0      100.0         52.4       93.6     100.0   91.6   93.6      88.0     82.4    488

    Seed 0 by `make demo` in a fresh clone: the same figures in 286 s on the clock (videos 34, prepare 27, pretrain 204,
    evaluate 21). Videos and prepare, which are the same work, took 1.6 times as long that day as in the record below.

    The table has seconds of CPU time of the whole demo, all three at once and ten other programs on the same cores,
    which lengthens them; seed 0 found its videos written. 500 test clips, first caption of each; chance: R@1 0.2,
    twins and minimal pairs 50 (percent). Minimal pairs: 250 of each attribute, 95 % intervals of 77 to 86 for shape and
    of about 3 points at 95 %. A step costs 0.59 s of CPU time there, the one before 0.46: 480 of these 284 s, 720 of
    those 330 s; the gradients alone, without foils, 0.42.

Before (a learned stem in place of the gradients, no foils, pixels as -1..1, 720 steps): 98.4, 98.2, 100.0, 52.4; colour
97.6, order 100.0, size 94.0, texture 85.2, motion 90.4, shape 61.2, in 216 s on the clock of two quiet cores (videos
21, prepare 17, pretrain 173, evaluate 5). With the mean over time in place of `time_pool="linear"`: t2v R@1 95.4 to
97.4, shape 60 to 62 on two seeds. Before that (AdamW, float32, 480 steps, learning rate 1e-3, group_size=2): t2v R@1
64.8, 64.6, 62.0 on seeds 0 to 2, for 334 s of CPU time.

WHY SHAPE WAS NEAR CHANCE, and what helped. Shapes are easy to see, small ones about 17 pixels wide, large ones 27. But
a patch has to learn what a contour looks like for each of its places by itself, and the loss did not ask: colour,
order, size, motion and texture tell sixteen neighbours apart (loss 0.09 at step 620, shape 61 %; 900 steps gave 60.4).
Gradients make contours explicit from the first step; foils keep the loss asking. Attributes of the event in single
frames, cross-entropy on labels, batches of 256 frames, AdamW 3e-3, frames pooled by mean and maximum (percent of 2,000
test frames right; chance of shape 17; on the cells stand the convolutions (3, 2, 96) and (3, 1, 128), on those of 2
pixels one more; votes fall with the fourth power of the cosine, without the root):

    stem                                           step   shape   colour   texture   size
    8 orientations and mean colour of cells        37     73.0    82.2     87.8      91.2
                                                   75     85.4    93.0     90.3      92.1
                                                   150    89.5    95.9     93.3      92.6
    the same in cells of 2 pixels                  37     60.4    79.8     86.0      91.3
    conv=((8, 4, 64), (3, 2, 128), (3, 1, 128))    37     30.1    88.4     64.5      87.9
                                                   75     63.3    92.0     77.2      91.8
    this tower before, 150 steps (labels of tubelets, learning rate 2e-3)
                                                   150    21.9    86.8     68.2

Contrastive, in memory (seed 0; seconds of CPU time of the steps alone, with ten other programs on the same cores; test
as above; foils of train clips by another program; step of how many; one run each, so a few points mean nothing):

    change                                        step      s     t2v R@1   colour   motion   size   texture   shape
    8 orientations of deviation 0.3, no foils     120/360   49    42.4      87.6     66.8     83.2   84.0      58.8
                                                  240/360   101   89.2      96.8     86.0     90.0   89.6      72.8
                                                  360/360   154   95.8      98.0     89.6     93.2   92.0      73.6
    ... and a foil of each clip (3 shape, 1 of
        each other; changed anew in each epoch)   120/360   68    40.2      85.6     70.0     79.2   78.0      58.0
    8 orientations of unit deviation, pixels
    normalised, a foil of each clip (3 shape, 1
    texture, size, motion; one of each a clip)    120/480   66    51.8      78.8     81.2     83.6   77.2      63.6
                                                  240/480   127   88.6      85.6     91.6     92.0   89.6      76.0
                                                  360/480   181   95.8      87.2     88.4     92.0   90.0      82.4
                                                  480/480   241   98.0      90.4     89.2     93.6   92.8      85.6

    Without foils of colours, colour stays at 90; the recipe has them. Gradients of every frame, convolutions
    ((3, 2, 64), (3, 1, 128)) and no spatial blocks cost 1.5 times as much a step; stopped before step 120.

EARLIER, without gradients (in memory, seed 0, bfloat16, 240 steps of 64 clips where not said otherwise; seconds of CPU
time of the steps alone; foils of another program, some 500 an attribute):

    change                                  seconds   t2v R@1   size   texture   motion   shape
    Muon, 1e-3, group_size=2                74        67.4      75.8   63.2      70.4     60.0
    ... clips by colour, group_size=16      61        71.2      86.6   68.0      77.6     56.2
    ... and learning rate 2e-3              70        76.2      85.6   65.7      75.8     58.4
    ... and time_pool="linear"              78        85.2      86.0   76.8      76.0     56.4
    400 steps of 32 clips, groups of four   67        54.2      77.0   55.1      68.4     54.2

    The rows after the first keep freed memory (`engine.start.allocator`): kernel time 16 s -> 1 s. `hard_negative`
    was not measured by itself. The row of time_pool="linear" has the test's own foils.

What did not help then (shape, R@1, seconds; Muon): foils 55.8, 69.4, 93; foils and patches of 8 pixels 56.0, 69.6, 133;
early convolutions of several kinds, with four frames, with words told from single frames as a further loss, or at 4e-3:
47.6 to 59.6, 30.0 to 62.2, 85 to 195.

Which frames belong to which event is the other slow link. Attributes of the three events from the clip's vector (early
convolutions, four frames, cross-entropy in nats; a guess has 2.4 of colour, 1.79 of shape): after 100 steps a mean over
time is at 1.46 of colour and 1.82 of shape, the linear map at 0.70 and 1.85. Single frames were at 0.25 and 1.43.

Positions that start as sinusoids brought the order twins from 69 to 96 % at step 250 (AdamW).
"""

import ml_collections

from twinreel.configs import common


def get_config() -> ml_collections.ConfigDict:
    """Return the config."""
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.shapes = dict(train=3000, val=100, test=500, size=64, fps=12)
    c.films = dict(films=240)
    c.odd_films = dict(train=600, val=60, test=100, size=64, fps=12)
    c.identities = dict(test=40, val=20, clips=16, size=64, fps=12)
    c.new_words = dict()
    c.sessions = dict(sessions=4000, val=400, test=800)
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
            dtype="float32",
        ),
        text=common.text_tower("XS", dtype="float32"),
    )
    c.loss = dict(name="infonce", same_text="ignore", form="dense", exchange="gather", microbatch=1, hard_negative=0.5)
    c.optimizer = common.muon(lr=2e-3, warmup_steps=50, weight_decay=0.05, frozen=())
    c.update(common.pod())
    c.evaluations = common.evaluations()
    c.train = dict(steps=480, log_every=20, eval_every=240, checkpoint_every=240)
    return c
