"""Moments of long videos by a text, or by action classes: a head on the frozen CLIP ViT-B/32, 75 frames of each video.

One frame stands for 2 s of QVHighlights' videos of 150 s, for 0.4 s of Charades'. Frames are encoded once; the head
trains on the cached features.

    twinreel prepare qvhighlights --annotations DIR --videos DIR --out data/qv --fps 1 --short_side 224
    twinreel finetune --config moments_clip_b32 --init hf:openai/clip-vit-base-patch32 --data data/qv \\
        --workdir runs/moments
    twinreel finetune --config moments_clip_b32:highlight --init hf:openai/clip-vit-base-patch32 --data data/qv \\
        --workdir runs/highlights
    twinreel finetune --config moments_clip_b32:label --init hf:openai/clip-vit-base-patch32 --data data/actions \\
        --workdir runs/actions

The report is on split `val`, as QVHighlights' test queries have no published moments; for Charades-STA, which has no
such split, set `--config.task.test_split=test`. A twentieth of the train clips chooses the checkpoint.

Sources: a head of the form of ActionFormer (Zhang et al. 2022); a CLIP vector per 2 s, as moment_detr has (Lei et al.
2021).

LAB RECORD: not yet run. moment_detr has R1@0.5 53.9, R1@0.7 34.8 and mAP 32.2 on QVHighlights' validation queries, from
CLIP and SlowFast features.
"""

import ml_collections

from twinreel.configs import common, demo_highlight, demo_localise


def get_config(what: str = "text") -> ml_collections.ConfigDict:
    """Return the config.

    Args:
      what: `text`: moments of a text (default); `label`: actions by their classes; `crf`: these by labels of time
        steps; `highlight`: saliency of 2 s for a text.
    """
    what = common.choice(what, ("text", "label", "crf", "highlight"))
    c = demo_highlight.get_config() if what == "highlight" else demo_localise.get_config(what)
    c.task.update(width=256, heads=8, depth=3, test_split="val", val_split="", holdout=0.05)
    c.task.update(dict(moment_seconds=2.0) if what == "highlight" else dict(levels=5))
    c.data.update(batch_size=32, num_frames=75)
    c.optimizer = common.adamw(lr=3e-4, warmup_steps=500, weight_decay=0.05, b2=0.999)
    c.train = common.long_head_run()
    return c
