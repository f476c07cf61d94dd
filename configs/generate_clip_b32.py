"""A video generator for real clips, conditioned on the embeddings of a CLIP that was fine-tuned for video.

Frames of 224 pixels become latents of 28 x 28 places with four channels, as in Stable Diffusion's autoencoder (Rombach
et al. 2022, arXiv:2112.10752); twelve frames, of which two and 2 x 2 places make a token, are 1,176 tokens of a
transformer of DiT-B's size (Peebles & Xie 2023, arXiv:2212.09748). Half of the rows are conditioned on the embedding of
the clip itself, so that the generator takes clips as well as texts. The autoencoder is trained with a critic.

    twinreel pretrain --config clip4clip_b32 --data data/msrvtt --workdir runs/clip4clip
    twinreel generate train --config generate_clip_b32 --data data/msrvtt --workdir runs/painter
    twinreel generate sample runs/painter --text "a man is cooking in a kitchen" --count 4 --out clips

Judge it with a tower of another run, such as siglip_video's.

LAB RECORD: not yet run. Counted by hand, a step of the flow at these sizes is about 1.5 * 10^14 FLOPs: 100,000 steps
are some ten hours of a chip that does 4 * 10^14 a second.
"""

import ml_collections

from twinreel.configs import common


def get_config() -> ml_collections.ConfigDict:
    """Return the config; what it leaves out of `data` is as the tower of the condition has it."""
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.data = common.clips_without_draws(batch_size=128, train_sampling="uniform_jitter")
    c.autoencoder = dict(channels=4, stem=2, widths=(64, 128, 256), blocks=2, dtype="bfloat16")
    c.condition = dict(kind="tower", source="runs/clip4clip", clips=0.5)
    c.flow = dict(
        width=768, depth=12, heads=12, mlp_ratio=4.0, patch=(2, 2, 2), remat="dots", unroll=1, dtype="bfloat16"
    )
    c.loss = dict(kl=1e-4, adversarial=0.05, drop_condition=0.1, time_mean=-0.8, time_spread=0.8)
    c.optimizer = common.adamw(lr=1e-4, warmup_steps=2000, weight_decay=0.0, ema_decay=0.9999)
    c.update(common.pod())
    c.train = dict(steps=100_000, log_every=100, eval_every=5_000, checkpoint_every=2_000, keep_last=2)
    c.first_stage = ("data.num_frames=1", "data.batch_size=256", "train.steps=50_000")
    return c
