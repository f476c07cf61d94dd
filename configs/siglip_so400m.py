"""SigLIP So400m-size towers on 16 frames of 224 pixels, global batch 32,768, for a TPU v5p-512 (256 chips).

Source: shape-optimised ViT-400M (Alabdulmohsin et al. 2023: width 1152, depth 27, MLP 4304, 16 heads, patch 14) for
video and text as in SigLIP (Zhai et al. 2023), whose loss and b2 these are; 4 temporal blocks (Arnab et al. 2021, ViViT
model 2).

    twinreel plan --config siglip_so400m --topology v5p-512
    twinreel launch --backend gke --tpu v5p --topology 4x8x8 --image IMAGE --claim runs=/runs -- \\
        pretrain --config siglip_so400m --data gs://bucket/prepared --workdir /runs/siglip_so400m

`runs` is a volume claim of a file system that all pods share (ReadWriteMany, as of Filestore).

Each chip has 128 clips of a batch, encoded in eight parts (GradCache); of a layer the results of its products are kept,
the rest is computed again, the parameters are split over four chips.

LAB RECORD: not yet run. `twinreel plan` on v5p-512 (libtpu 0.0.42.1; the time is an estimate; compiled in 84 s on two
cores with other work beside):

    memory of a chip    parameters 882 MiB, optimizer 1.72 GiB, batch 294 MiB, temporaries 43.6 GiB (of them about
                        35.8 GiB kept for backward), program 64 MiB: 46.5 of 95 GiB
    FLOPs of a chip     1,366 T for the model, 502 T recomputed; 12.7 TiB to and from memory
    sent by a chip      32.2 GiB in all-gathers and 10.1 GiB in reduce-scatters over fsdp, 8.7 GiB in all-reduces
    step                7,557 ms (computing 7,399, memory 6,298, links 317), MFU 39.4 %; 64 hosts, 68 clips/s each
    40,000 steps        1.31e9 clips, 84.0 hours, 21,497 chip-hours; a checkpoint is 10.3 GiB

With remat="full" and two parts: 55.0 GiB, 768 T recomputed, 8,494 ms.
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
        "embed_dim": 1152,
        "remat": "names:qkv,attention,hidden,tokens",
        "unroll": 1,
        "video": {
            "image_size": 224,
            "patch": 14,
            "tubelet": 1,
            "width": 1152,
            "depth": 27,
            "heads": 16,
            "temporal_depth": 4,
            "patch_dropout": 0.0,
            "mlp_ratio": 3.7362,  # int(1152 * 3.7362) = 4304
            "dtype": "bfloat16",
        },
        "text": {"width": 1152, "depth": 27, "heads": 16, "mlp_ratio": 3.7362, "dtype": "bfloat16"},
    }
    c.loss = {"name": "sigmoid", "form": "blockwise", "exchange": "ring", "microbatch": 8}
    c.optimizer = {
        "name": "adamw",
        "lr": 1e-3,
        "warmup_steps": 2000,
        "schedule": "cosine",
        "weight_decay": 1e-4,
        "b2": 0.95,
        "eps": 1e-6,
        "clip_norm": 1.0,
        "frozen": (),
        "lr_scale": (),
        "layer_decay": 1.0,
        "ema_decay": 0.0,
        "mu_dtype": "float32",
    }
    c.mesh = {"replica": -1, "fsdp": 4, "tensor": 1}
    c.sharding = {"rules": "fsdp"}
    c.train = {
        "steps": 40_000,
        "unmasked_steps": 0,
        "log_every": 50,
        "eval_every": 2000,
        "checkpoint_every": 1000,
        "keep_last": 2,
        "best_metric": "val/t2v_R@1",
    }
    return c
