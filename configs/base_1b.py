"""CLIP-style ViT-B/16 on 8 frames of 224 pixels, global batch 32,768, for a TPU v5e-256.

Source: widths and depths of CLIP ViT-B/16 and its text tower (Radford et al. 2021, table 20), 4 temporal blocks
(Arnab et al. 2021, ViViT model 2), optimizer of CLIP's table 19.

    twinreel plan --config base_1b --topology v5e-256
    twinreel launch --backend gke --tpu v5e --topology 16x16 --image IMAGE --claim runs=/runs -- \\
        pretrain --config base_1b --data gs://bucket/prepared --workdir /runs/base_1b

`runs` is a volume claim of a file system that all pods share (ReadWriteMany, as of Filestore).

Each chip has 128 clips of a batch, encoded in two parts (GradCache); the layers are rematerialised, the parameters
replicated.

LAB RECORD: not yet run. `twinreel plan` on v5e-256 (libtpu 0.0.42.1; the time is an estimate; compiled in 65 s on two
shared cores):

    memory of a chip    parameters 645 MiB, optimizer 1.26 GiB, batch 147 MiB, temporaries 11.6 GiB (of them about
                        4.5 GiB kept for backward), program 59 MiB: 13.70 of 16 GiB
    FLOPs of a chip     109.2 T for the model, 61.1 T recomputed; 928 GiB to and from memory
    sent by a chip      1.38 GiB in all-reduces (gradients), 64 MiB in all-gathers (embeddings), all over links
    step                1,577 ms (computing 1,572, memory 1,520, links 10), MFU 35.2 %; 64 hosts, 325 clips/s each
    40,000 steps        1.31e9 clips, 17.5 hours, 4,485 chip-hours; a checkpoint is 1.89 GiB

Memory is the bottleneck: with remat="names:qkv,attention,hidden,tokens" and eight parts only 40.1 T are recomputed, but
a step takes 2,352 ms. With loss.microbatch=1 it takes 16.58 GiB and does not fit; `plan` then proposes two parts, after
8 minutes. `plan --search --tries 6` (15 minutes) found one part with mesh.fsdp=4 and sharding.rules="fsdp": 15.22 GiB,
1,271 ms, MFU 43.6 %. The compiler can use 15.75 GiB; the rest must hold three more batches, hence two parts here.
"""

import ml_collections

from twinreel.configs import common


def get_config(batch_size: int = 32_768) -> ml_collections.ConfigDict:
    """Return the config; the argument is the global batch size."""
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.data = common.clips(batch_size=batch_size, num_frames=8)
    c.model = common.dual_tower("B/16", remat="full")
    c.loss = dict(name="infonce", form="blockwise", exchange="gather", microbatch=2)
    c.optimizer = common.clip_adamw(lr=5e-4)
    c.update(common.pod(fsdp=1))
    c.train = common.long_run(steps=40_000)
    return c
