"""LiT on frozen towers: DINOv2's small image tower, MiniLM's text tower, and what is trained between them on a CPU.

Sources: LiT (Zhai et al. 2022), DINOv2 (Oquab et al. 2024), MiniLM (Wang et al. 2020). The vector of a frame is the
class token beside the mean of the patches; one transformer layer over four frames and two projections are trained.

    twinreel features clips.jsonl --config lit_dinov2_minilm --out clips_dinov2.jsonl
    twinreel prepare clips_dinov2.jsonl --out data/lit --fps 2 --short_side 224
    twinreel pretrain --config lit_dinov2_minilm --data data/lit --workdir runs/lit
    twinreel evaluate runs/lit --data data/lit --split test --out runs/lit/report

`--config.model.video.source=DIR` and `--config.model.text.source=DIR` take the weights from folders, in the first
command as well; `make test-real` leaves both in build/real/dinov2 and build/real/minilm.

LAB RECORD (a shared server with two CPU cores, jax 0.10.2; 609 real clips of talks, fights, push-ups and signed words,
488 train, 121 test; percent). CPU time: 8 minutes for the vectors of all clips, 4.5 minutes of training, 2 minutes of
evaluation:

    seed   t2v R@1   R@5    R@10   MdR   v2t R@1   t2v R@1, any match
    0      9.1       24.0   37.2   15    8.7       72.7
    1      10.7      26.4   39.7   15    8.6       74.4
    2      9.1       25.6   38.0   15    9.5       72.7

    From scratch (`few_clips`, same clips): t2v R@1 3.3, 4.1 and 3.3, R@10 33.9, 38.8 and 36.4. 77 of the 121 captions
    repeat another ("a person doing push-ups" 40 times), and ties count by expectation, so R@1 cannot come near 100; the
    last column counts every clip with the same caption as right (chance 16.7). The loss of training is below 0.1 at
    the end: more clips would help, more steps would not.
"""

import ml_collections

from twinreel.configs import common


def get_config() -> ml_collections.ConfigDict:
    """Return the config."""
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.data = dict(dir="data/lit", batch_size=64, num_frames=4, context_length=40)
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
    c.evaluations = dict()
    c.train = dict(steps=300, log_every=20, checkpoint_every=150)
    return c
