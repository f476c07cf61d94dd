"""CLIP-style ViT-L/14 on 16 frames of 224 pixels, global batch 32,768, for a TPU v5p-256 (128 chips).

Source: widths and depths of CLIP ViT-L/14 and its text tower (Radford et al. 2021, table 20), 4 temporal blocks
(Arnab et al. 2021, ViViT model 2), optimizer of CLIP's table 19.

    twinreel plan --config large_1b --topology v5p-256
    twinreel launch --backend gke --tpu v5p --topology 4x4x8 --image IMAGE --claim runs=/runs -- \\
        pretrain --config large_1b --data gs://bucket/prepared --workdir /runs/large_1b

`runs` is a volume claim of a file system that all pods share (ReadWriteMany, as of Filestore).

Each chip has 256 clips of a batch, encoded in sixteen parts (GradCache); the results of a layer's products are stored,
the rest is recomputed; the parameters are sharded over four chips.

LAB RECORD: not yet run. `twinreel plan` (libtpu 0.0.42.1; the time is an estimate; compiled in 69 s on two busy cores):

    memory of a chip    parameters 443 MiB, optimizer 886 MiB, batch 588 MiB, temporaries 38.6 GiB (of them about
                        29.4 GiB kept for backward), program 56 MiB: 40.5 of 95 GiB
    FLOPs of a chip     1,991 T for the model, 730 T recomputed; 19.6 TiB to and from memory
    sent by a chip      32.8 GiB in all-gathers and 9.87 GiB in reduce-scatters over fsdp, 9.7 GiB in all-reduces
    step                9.95 s (computing 8.52, memory 9.8, links 0.3), MFU 43.6 %; 32 hosts, 103 clips/s each
    40,000 steps        1.31e9 clips, 111 hours, 14,150 chip-hours; a checkpoint is 5.19 GiB

Products are taken to reach 71 % of the peak (docs/scale.md, "What the time estimate is"); 53.6 T of a chip are computed
on padding of the matrix units.

These are figures with config.model.attention="xla", whose scores make memory the bottleneck. With the kernel that
"auto" takes, one part and remat="full" move 8.7 TiB, but need 130 GiB and do not fit. The config as it is has not been
compiled with it. Four parts without GradCache (loss.microbatch=4, loss.grad_cache=False, remat="full") were, with the
kernel (5 minutes of CPU time):

    memory of a chip    56.0 GiB kept for backward, 34.7 GiB of other temporaries: 92.7 of 95 GiB
    FLOPs of a chip     1,991 T for the model, 464 T recomputed; 9.05 TiB to and from memory
    step                7,729 ms (computing 7,698, memory 4,497, links 62), MFU 56.1 %; 32 hosts, 133 clips/s each
    40,000 steps        85.9 hours, 10,993 chip-hours

They fit with 2 GiB to spare, which is little for a run of days, so the config stays as it is. Eight parts would store
as many activations and need fewer other temporaries; they have not been compiled.

Bytes of all-gathers are upper bounds: those that run beside others' computations were counted up to three times.
"""

import ml_collections

from twinreel.configs import common


def get_config(batch_size: int = 32_768) -> ml_collections.ConfigDict:
    """Return the config; the argument is the global batch size."""
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.data = common.clips(batch_size=batch_size, num_frames=16)
    c.model = common.dual_tower("L/14", remat="names:qkv,attention,hidden,tokens")
    c.loss = dict(name="infonce", form="blockwise", exchange="gather", microbatch=16)
    c.optimizer = common.clip_adamw(lr=4e-4)
    c.update(common.pod(fsdp=4), evaluations=common.evaluations())
    c.train = common.long_run(steps=40_000)
    return c
