"""CLIP-style ViT-L/14 on 16 frames of 224 pixels, global batch 32,768, for a TPU v5p-256 (128 chips).

Source: widths and depths of CLIP ViT-L/14 and its text tower (Radford et al. 2021, table 20), 4 temporal blocks
(Arnab et al. 2021, ViViT model 2), optimizer of CLIP's table 19.

    twinreel plan --config clip_l14 --topology v5p-256
    twinreel pretrain --config clip_l14 --data gs://bucket/prepared --workdir gs://bucket/runs/clip_l14

Each chip has 256 clips of a batch, encoded in four parts (GradCache); the layers are rematerialised, the parameters
split over four chips.

LAB RECORD: not yet run. Its `twinreel plan` is still to be recorded.
"""

import ml_collections


def get_config(arg: str = "32768") -> ml_collections.ConfigDict:
    """Return the config; `arg` is the global batch size."""
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.data = {
        "dir": "data/mine",
        "batch_size": int(arg),
        "num_frames": 16,
        "eval_split": "val",
        "train_video": "random_resized_crop(224, min_scale=0.5)|flip_lr",
        "eval_video": "resize_short(224)|center_crop(224)",
        "context_length": 64,
        "vocab_size": 32_000,
    }
    c.model = {
        "embed_dim": 768,
        "remat": "full",
        "video": {
            "image_size": 224,
            "patch": 14,
            "tubelet": 1,
            "width": 1024,
            "depth": 24,
            "heads": 16,
            "temporal_depth": 4,
            "dtype": "bfloat16",
        },
        "text": {"width": 768, "depth": 12, "heads": 12, "dtype": "bfloat16"},
    }
    c.loss = {"name": "infonce", "form": "blockwise", "exchange": "gather", "microbatch": 4}
    c.optimizer = {
        "name": "adamw",
        "lr": 4e-4,
        "warmup_steps": 2000,
        "schedule": "cosine",
        "weight_decay": 0.2,
        "b2": 0.98,
        "eps": 1e-6,
        "clip_norm": 1.0,
    }
    c.mesh = {"replica": -1, "fsdp": 4, "tensor": 1}
    c.sharding = {"rules": "fsdp"}
    c.train = {
        "steps": 40_000,
        "log_every": 50,
        "eval_every": 2000,
        "checkpoint_every": 1000,
        "keep_last": 2,
        "best_metric": "val/t2v_R@1",
    }
    return c
