"""SigLIP So400m-size towers on 16 frames of 224 pixels, global batch 32,768, for a TPU v5p-512 (256 chips).

Source: shape-optimised ViT-400M (Alabdulmohsin et al. 2023: width 1152, depth 27, MLP 4304, 16 heads, patch 14) for
video and text as in SigLIP (Zhai et al. 2023), whose loss and b2 these are; 4 temporal blocks (Arnab et al. 2021, ViViT
model 2).

    twinreel plan --config so400m_1b --topology v5p-512
    twinreel launch --backend gke --tpu v5p --topology 4x8x8 --image IMAGE --claim runs=/runs -- \\
        pretrain --config so400m_1b --data gs://bucket/prepared --workdir /runs/so400m_1b

`runs` is a volume claim of a file system that all pods share (ReadWriteMany, as of Filestore).

Each chip has 128 clips of a batch, encoded in eight parts (GradCache); the results of a layer's products are stored,
the rest is recomputed; the parameters are sharded over four chips.

LAB RECORD: not yet run. `twinreel plan` on v5p-512 (libtpu 0.0.42.1; the time is an estimate; compiled in 84 s on two
busy cores):

    memory of a chip    parameters 882 MiB, optimizer 1.72 GiB, batch 294 MiB, temporaries 43.6 GiB (of them about
                        35.8 GiB kept for backward), program 64 MiB: 46.5 of 95 GiB
    FLOPs of a chip     1,366 T for the model, 502 T recomputed; 12.7 TiB to and from memory
    sent by a chip      32.2 GiB in all-gathers and 10.1 GiB in reduce-scatters over fsdp, 8.7 GiB in all-reduces
    step                6,457 ms (computing 5,829, memory 6,298, links 317), MFU 46.1 %; 64 hosts, 79 clips/s each
    40,000 steps        1.31e9 clips, 71.7 hours, 18,365 chip-hours; a checkpoint is 10.3 GiB

Products are taken to reach 71 % of the peak (docs/scale.md, "What the time estimate is"); about 32 T of a chip are
computed on padding of the matrix units.

These are figures with config.model.attention="xla". The config has not been compiled with the kernel that "auto" takes;
nor have four parts without GradCache (loss.microbatch=4, loss.grad_cache=False, remat="full"), whose trace has 320 T
recomputed instead of 502 and 35 GiB kept for backward: if memory does not bind, 5.4 s, MFU 55 %.

Bytes of all-gathers are upper bounds: those that run beside others' computations were counted up to three times.
"""

import ml_collections

from twinreel.configs import common


def get_config(batch_size: int = 32_768) -> ml_collections.ConfigDict:
    """Return the config; the argument is the global batch size."""
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.data = common.clips(batch_size=batch_size, num_frames=16)
    c.model = common.dual_tower("So400m/14", remat="names:qkv,attention,hidden,tokens")
    c.loss = dict(name="sigmoid", form="blockwise", exchange="ring", microbatch=8)
    c.optimizer = common.clip_adamw(lr=1e-3, weight_decay=1e-4, b2=0.95)
    c.update(common.pod(fsdp=4), evaluations=common.evaluations())
    c.train = common.long_run(steps=40_000)
    return c
