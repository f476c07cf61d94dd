"""CLIP-style ViT-B/16 on 8 frames of 224 pixels, global batch 32,768, for a TPU v5e-256.

Source: widths and depths of CLIP ViT-B/16 and its text tower (Radford et al. 2021, table 20), 4 temporal blocks
(Arnab et al. 2021, ViViT model 2), optimizer of CLIP's table 19.

    twinreel plan --config base_1b --topology v5e-256
    twinreel launch --backend gke --tpu v5e --topology 16x16 --image IMAGE --claim runs=/runs -- \\
        pretrain --config base_1b --data gs://bucket/prepared --workdir /runs/base_1b

`runs` is a volume claim of a file system that all pods share (ReadWriteMany, as of Filestore).

Each chip has 128 clips of a batch, encoded in one part; the layers are rematerialised, the parameters sharded over four
chips. Attention runs in the kernel for short rows (config.model.attention="auto"), which stores no scores.

LAB RECORD: not yet run. `twinreel plan` on v5e-256 (libtpu 0.0.42.1; the time is an estimate; 6 minutes of CPU time on
two busy cores, 2.5 on quiet ones):

    memory of a chip    parameters 162 MiB, optimizer 324 MiB, batch 147 MiB, temporaries 13.2 GiB (of them about
                        6.4 GiB kept for backward), program 61 MiB: 13.9 of 16 GiB
    FLOPs of a chip     109.2 T for the model, 25.4 T recomputed, 7.4 T on padding of the matrix units; 523 GiB to and
                        from memory
    sent by a chip      0.48 GiB in all-gathers and 0.20 GiB in reduce-scatters over fsdp, 0.43 GiB in all-reduces,
                        64 MiB in all-gathers (embeddings), all over links
    step                1,103 ms (computing 1,092, memory 857, links 22), MFU 50.2 %; 64 hosts, 464 clips/s each
    40,000 steps        1.31e9 clips, 12.3 hours, 3,138 chip-hours; a checkpoint is 1.89 GiB

Products are taken to reach 66 % of the peak, as MaxText's did in a whole step on v5e; at 55 % (--matmul=0.55, as in
PaliGemma's) the step takes 1,321 ms, 41.9 %. See docs/scale.md, "What the time estimate is". Other settings by their
FLOPs and bytes:

    parts  fsdp  remat            attention  memory     recomputed  padding  moved    step      MFU
    2      1     full             xla        13.70 GiB  61.1 T      8.0 T    927 GiB  1,524 ms  36.4 %
    1      1     full             splash     16.48 GiB  30.3 T      6.4 T    486 GiB  1,124 ms  49.3 %  does not fit
    1      4     full             short      13.89 GiB  25.4 T      7.4 T    523 GiB  1,103 ms  50.2 %
    1      4     names:attention  short      15.87 GiB  23.9 T      5.7 T    603 GiB  1,079 ms  51.4 %  does not fit

Without a kernel the step waits for memory; with one, for the matrix units. bench/README.md has what it would take to
recompute less. The work of the vector units inside a kernel is not part of the estimate.
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
