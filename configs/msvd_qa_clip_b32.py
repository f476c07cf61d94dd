"""Questions about real videos: a joint transformer on the frozen CLIP ViT-B/32, 12 frames of each video.

    twinreel prepare msvd_qa --annotations DIR --videos DIR --out data/msvd_qa --fps 3 --short_side 224
    twinreel finetune --config msvd_qa_clip_b32 --init hf:openai/clip-vit-base-patch32 --data data/msvd_qa \\
        --workdir runs/msvd_qa
    twinreel finetune --config msvd_qa_clip_b32:msrvtt --init hf:openai/clip-vit-base-patch32 --data data/msrvtt_qa \\
        --workdir runs/msrvtt_qa
    twinreel finetune --config msvd_qa_clip_b32:activitynet --init hf:openai/clip-vit-base-patch32 \\
        --data data/activitynet_qa --workdir runs/activitynet_qa
    twinreel finetune --config msvd_qa_clip_b32:next --init hf:openai/clip-vit-base-patch32 --data data/next_qa \\
        --workdir runs/next_qa

Frames are encoded once; the head trains on the cached features, and CLIP's text tower, which has read captions only, is
trained at a tenth of the head's rate. Sizes of the vocabulary: MSVD-QA 1,000 and MSRVTT-QA 1,500 as in InternVideo1,
ActivityNet-QA 1,000.

LAB RECORD: not yet run.
"""

import ml_collections

from twinreel.configs import common, demo_answer

_VOCABULARY = {"msvd": 1000, "msrvtt": 1500, "activitynet": 1000, "next": 1000}
_FRAMES = {"msvd": 12, "msrvtt": 12, "activitynet": 32, "next": 16}


def get_config(what: str = "msvd") -> ml_collections.ConfigDict:
    """Return the config.

    Args:
      what: `msvd` (default), `msrvtt` or `activitynet`: answers of a vocabulary; `next`: five options of each question.
    """
    what = common.choice(what, tuple(_VOCABULARY))
    c = demo_answer.get_config("deaf")
    c.task.update(kind="choice" if what == "next" else "closed", vocabulary=_VOCABULARY[what], min_count=1)
    c.task.update(width=512, heads=8, depth=4)
    c.data.update(batch_size=32 if what == "next" else 128, num_frames=_FRAMES[what])
    c.optimizer = common.adamw(lr=1e-4, warmup_steps=500, weight_decay=0.05, b2=0.98, lr_scale=(("^text/", 0.1),))
    c.train = common.long_head_run()
    return c
