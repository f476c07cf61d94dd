"""CLIP-style ViT-B/16 on 8 frames of 224 pixels, global batch 32,768, for a TPU v5e-256.

Source: widths and depths of CLIP ViT-B/16 and its text tower (Radford et al. 2021, table 20), 4 temporal blocks
(Arnab et al. 2021, ViViT model 2), optimizer of CLIP's table 19.

    twinreel plan --config base_1b --topology v5e-256
    twinreel launch --backend gke --tpu v5e --topology 16x16 --image IMAGE --claim runs=/runs -- \\
        pretrain --config base_1b --data gs://bucket/prepared --workdir /runs/base_1b

`runs` is a volume claim of a file system that all pods share (ReadWriteMany, as of Filestore).

Each chip has 128 clips of a batch, encoded in one part; the layers are rematerialised, the parameters sharded over four
chips. Attention runs in the kernel for short rows (config.model.attention="auto"), which stores no scores.

LAB RECORD: not yet run. `twinreel plan` on v5e-256 (libtpu 0.0.42.1; the time is an estimate; 2.5 minutes of CPU time):

    memory of a chip    parameters 166 MiB, optimizer 332 MiB, batch 147 MiB, temporaries 13.2 GiB (of them about
                        6.4 GiB kept for backward), program 60 MiB: 13.88 of 16 GiB
    FLOPs of a chip     109.2 T for the model, 25.4 T recomputed; 524 GiB to and from memory
    sent by a chip      1.36 GiB in all-gathers and 0.20 GiB in reduce-scatters over fsdp, 0.43 GiB in all-reduces,
                        64 MiB in all-gathers (embeddings), all over links
    step                1,265 ms (computing 1,242, memory 858, links 46), MFU 43.8 %; 64 hosts, 405 clips/s each
    40,000 steps        1.31e9 clips, 14.1 hours, 3,598 chip-hours; a checkpoint is 1.89 GiB

Other settings (the second row is the best of an earlier `plan --search`, which did not note the bytes):

    parts  fsdp  remat            attention   memory      recomputed  moved     step       MFU
    2      1     full             xla         13.70 GiB   61.1 T      927 GiB   1,577 ms   35.2 %
    1      4     full             xla         15.22 GiB                         1,271 ms   43.6 %
    1      1     full             splash      16.48 GiB   30.0 T      486 GiB   1,286 ms   43.1 %   does not fit
    1      4     full             short       13.88 GiB   25.4 T      524 GiB   1,265 ms   43.8 %
    1      4     names:attention  short       15.87 GiB   23.9 T      603 GiB   1,250 ms   44.3 %   does not fit

The first step waited for memory as long as for the matrix units; with a kernel it waits for these alone. The estimate
assumes that they reach 55 % of their peak (--matmul), so no MFU is above 55 %, and it is that only if nothing is
computed twice, for which 128 clips leave a chip no room. With --matmul=0.7 the first row has 36 %, this config 55 %.
The work of the vector units inside a kernel is not part of the estimate.

Bytes of all-gathers are upper bounds: those that run beside others' computations were counted up to three times.
"""

import ml_collections

from twinreel.configs import common


def get_config(batch_size: int = 32_768) -> ml_collections.ConfigDict:
    """Return the config; the argument is the global batch size."""
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.data = common.clips(batch_size=batch_size, num_frames=8)
    c.model = common.dual_tower("B/16", remat="full")
    c.loss = dict(name="infonce", form="blockwise", exchange="gather", microbatch=1)
    c.optimizer = common.clip_adamw(lr=5e-4)
    c.update(common.pod(fsdp=4), evaluations=common.evaluations())
    c.train = common.long_run(steps=40_000)
    return c
