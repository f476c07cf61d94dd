"""VideoPrism-LvT-B fine-tuned for retrieval on your own captions: 16 frames of 288 pixels, all towers trained.

Source: VideoPrism (Zhao et al. 2024), whose release has no training code. Small rates that fall by layer keep what it
knows; the text tower and the auxiliary layers, which saw fewer captions, may move most.

    twinreel prepare clips.jsonl --out data/mine --fps 8 --short_side 288
    twinreel pretrain --config videoprism_retrieval --data data/mine --workdir runs/prism
    twinreel evaluate runs/prism --data data/mine --split test --out runs/prism/report

Weights and tokenizer: `--config.model.source=DIR` with DeepMind's npz and sentencepiece.model, see docs/weights.md.
Batches of 64 are encoded in 16 parts.

LAB RECORD: not yet run. The public weights have t2v R@1 50.1 and v2t 49.8 without fine-tuning on MSR-VTT 1k-A.
"""

import ml_collections

from twinreel.configs import common


def get_config(batch_size: int = 64) -> ml_collections.ConfigDict:
    """Return the config; the argument is the global batch size."""
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.data = dict(dir="data/mine", batch_size=batch_size)
    c.model = dict(
        source="hf:google/videoprism-lvt-base-f16r288",
        remat="full",
        video=dict(dtype="bfloat16"),
        text=dict(dtype="bfloat16"),
    )
    c.loss = dict(name="infonce", same_text="ignore", microbatch=16)
    c.optimizer = common.adamw(lr=2e-5, warmup_steps=200, weight_decay=0.05, layer_decay=0.75, frozen=(), lr_scale=())
    c.update(common.pod())
    c.evaluations = common.evaluations()
    c.train = common.long_run(steps=4000) | dict(eval_every=500, checkpoint_every=500)
    return c
