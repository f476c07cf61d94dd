"""ViT-S/16 on 8 frames of 224 pixels and a small text tower: the start for a few hundred thousand clips of your own.

Source: widths and depths of ViT-S/16 (Touvron et al. 2021, DeiT) with 4 temporal blocks (Arnab et al. 2021, ViViT
model 2), optimizer of CLIP (Radford et al. 2021, table 19).

    twinreel prepare clips.csv --out data/mine --fps 8 --short_side 256
    twinreel pretrain --config vit_s16 --data data/mine --workdir runs/mine

`--config vit_s16:512` sets the global batch (default 256). In bfloat16, parameters in float32.

LAB RECORD: not yet run to the end; only its step is compiled and timed (`twinreel bench step --config vit_s16`).
"""

import ml_collections


def get_config(arg: str = "256") -> ml_collections.ConfigDict:
    """Return the config; `arg` is the global batch size."""
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.data = {
        "dir": "data/mine",
        "batch_size": int(arg),
        "num_frames": 8,
        "eval_split": "val",
        "train_sampling": "uniform_jitter",
        "eval_sampling": "uniform",
        "train_video": "random_resized_crop(224, min_scale=0.5)",
        "eval_video": "resize_short(224)|center_crop(224)",
        "context_length": 64,
        "vocab_size": 8000,
    }
    c.model = {
        "embed_dim": 384,
        "remat": "none",
        "unroll": 1,
        "video": {
            "image_size": 224,
            "patch": 16,
            "tubelet": 1,
            "width": 384,
            "depth": 12,
            "heads": 6,
            "temporal_depth": 4,
            "patch_dropout": 0.0,
            "dtype": "bfloat16",
        },
        "text": {"width": 384, "depth": 6, "heads": 6, "dtype": "bfloat16"},
    }
    c.loss = {"name": "infonce", "same_text": "ignore", "form": "dense", "exchange": "gather", "microbatch": 1}
    c.optimizer = {
        "name": "adamw",
        "lr": 5e-4,
        "warmup_steps": 2000,
        "schedule": "cosine",
        "weight_decay": 0.2,
        "b2": 0.98,
        "eps": 1e-6,
        "clip_norm": 1.0,
        "frozen": (),
        "lr_scale": (),
        "layer_decay": 1.0,
        "ema_decay": 0.0,
        "mu_dtype": "float32",
    }
    c.mesh = {"replica": -1, "fsdp": 1, "tensor": 1}
    c.sharding = {"rules": "replicated"}
    c.train = {
        "steps": 100_000,
        "unmasked_steps": 0,
        "log_every": 50,
        "eval_every": 2000,
        "checkpoint_every": 1000,
        "keep_last": 2,
        "best_metric": "val/t2v_R@1",
    }
    return c
