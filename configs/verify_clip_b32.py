"""Is it the same person? Verification of faces or persons in clips: CLIP ViT-B/32 with LoRA, ArcFace.

Clips show one identity each, cropped to the face or the person; the manifest's first label (or a field of `meta`) says
who it is, and no identity of split `test` is in split `train`.

    twinreel prepare people.csv --out data/people --fps 4 --short_side 224
    twinreel finetune --config verify_clip_b32 --init hf:openai/clip-vit-base-patch32 --data data/people \\
        --workdir runs/people
    twinreel predict runs/people a.mp4 b.mp4

Sources: ArcFace (Deng et al. 2019, arXiv:1801.07698), whose scale 64, margin 0.5 and embedding of 512 these are; CLIP
(Radford et al. 2021); LoRA (Hu et al. 2021, arXiv:2106.09685).

LAB RECORD: not yet run.
"""

import ml_collections

from twinreel.configs import common, demo_identify


def get_config(loss: str = "arcface") -> ml_collections.ConfigDict:
    """Return the config: 8 frames of a clip, trained with LoRA.

    Args:
      loss: `arcface` (default) or `cosface`.
    """
    c = demo_identify.get_config(loss)
    c.task.update(scale=64.0, embed_dim=512, heads=8, hidden=0, holdout=0.1)
    c.adapt = dict(lora=dict(layers="^video/.*/layers/", rank=16, alpha=32.0))
    c.data.update(batch_size=128, num_frames=8)
    c.optimizer = common.adamw(lr=3e-4, warmup_steps=500, weight_decay=0.05, b2=0.999)
    c.train = dict(
        steps=10_000, log_every=50, eval_every=1_000, checkpoint_every=1_000, keep_last=2, keep_best=1, patience=0
    )
    return c
