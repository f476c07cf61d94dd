"""CLIP-style ViT-B/16 on 8 frames of 224 pixels, global batch 32,768, for a TPU v5e-256.

Source: widths and depths of CLIP ViT-B/16 and its text tower (Radford et al. 2021, table 20), 4 temporal blocks
(Arnab et al. 2021, ViViT model 2), optimizer of CLIP's table 19.

    twinreel plan --config clip_b16 --topology v5e-256
    twinreel launch --backend gke --tpu v5e --topology 16x16 --image IMAGE --claim runs=/runs -- \\
        pretrain --config clip_b16 --data gs://bucket/prepared --workdir /runs/clip_b16

`runs` is a volume claim of a file system that all pods share (ReadWriteMany, as of Filestore).

Each chip has 128 clips of a batch, encoded in two parts (GradCache); the layers are rematerialised, the parameters
whole on every chip.

LAB RECORD: not yet run. `twinreel plan` on v5e-256 (libtpu 0.0.42.1; the time is an estimate; compiled in 65 s on two
shared cores):

    memory of a chip    parameters 645 MiB, optimizer 1.26 GiB, batch 147 MiB, temporaries 11.6 GiB (of them about
                        4.5 GiB kept for backward), program 59 MiB: 13.70 of 16 GiB
    FLOPs of a chip     109.2 T for the model, 61.1 T recomputed; 928 GiB to and from memory
    sent by a chip      1.38 GiB in all-reduces (gradients), 64 MiB in all-gathers (embeddings), all over links
    step                1,577 ms (computing 1,572, memory 1,520, links 10), MFU 35.2 %; 64 hosts, 325 clips/s each
    40,000 steps        1.31e9 clips, 17.5 hours, 4,485 chip-hours; a checkpoint is 1.89 GiB

Memory binds here: with remat="names:qkv,attention,hidden,tokens" and eight parts only 40.1 T are recomputed, but the
step takes 2,352 ms. With loss.microbatch=1 it takes 16.58 GiB and does not fit; `plan` proposes two parts then, after 8
minutes. `plan --search --tries 6` (15 minutes) found one part with mesh.fsdp=4 and sharding.rules="fsdp": 15.22 GiB,
1,271 ms, MFU 43.6 %. The compiler has 15.75 GiB to give; what is left holds three more batches, hence two parts here.
"""

import ml_collections


def get_config(arg: str = "32768") -> ml_collections.ConfigDict:
    """Return the config; `arg` is the global batch size."""
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.data = {
        "dir": "data/mine",
        "batch_size": int(arg),
        "num_frames": 8,
        "eval_split": "val",
        "train_video": "random_resized_crop(224, min_scale=0.5)|flip_lr",
        "eval_video": "resize_short(224)|center_crop(224)",
        "context_length": 64,
        "vocab_size": 32_000,
    }
    c.model = {
        "embed_dim": 512,
        "remat": "full",
        "unroll": 1,
        "video": {
            "image_size": 224,
            "patch": 16,
            "tubelet": 1,
            "width": 768,
            "depth": 12,
            "heads": 12,
            "temporal_depth": 4,
            "patch_dropout": 0.0,
            "dtype": "bfloat16",
        },
        "text": {"width": 512, "depth": 12, "heads": 8, "dtype": "bfloat16"},
    }
    c.loss = {"name": "infonce", "form": "blockwise", "exchange": "gather", "microbatch": 2}
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
        "steps": 40_000,
        "unmasked_steps": 0,
        "log_every": 50,
        "eval_every": 2000,
        "checkpoint_every": 1000,
        "keep_last": 2,
        "best_metric": "val/t2v_R@1",
    }
    return c
