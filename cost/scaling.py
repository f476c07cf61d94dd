"""What a step and a run need on any number of chips: arithmetic from a config's sizes, without compiling.

Each quantity is a formula of a few lines, so that it can be checked by hand. `plan --scale` makes tables of it.
"""

import dataclasses
import math

from .chips import Chip, peak_flops
from .gpus import Gpu
from .roofline import Assumptions, network_speed
from .tpus import Tpu

_FLOAT32_PASSES = 6  # of a TPU's bfloat16 matrix units for a product in float32 (jax.lax.Precision.HIGHEST)
_SCORE_COPIES = 3  # of the dense loss: scores, their exponentials, their derivatives
FORMS = ("dense", "gather", "ring")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workload:
    """A config's step, by the sizes that do not depend on the number of chips.

    Attributes:
      split_bytes: of the float32 parameters that `fsdp` splits.
      whole_bytes: of those that every device of an fsdp group holds.
      state_bytes: of a checkpoint.
      model_flops: of the towers for one clip, forward and backward.
      recomputed_flops: of the towers for one clip, what is computed a second time.
      padding_flops: of the towers for one clip, what matrix units compute on padding of their tiles.
      clip_bytes: of one clip's arrays as they go to the chips.
      stored_bytes: of one clip's frames and sound that are used, as stored.
      frames: of one clip.
      embed_dim: E.
      pairs: pairs of modalities that the loss compares.
      passes: of the loss over all scores: products of [b,E] and [E,B] (3 or 4).
      fsdp: size of the mesh axis.
      tensor: size of the mesh axis.
      rows: clips that a device encodes at a time, at most.
      grad_cache: several parts are encoded once more, without keeping activations, before the loss.
      compute_bytes: of an element in which parameters are gathered and gradients scattered.
      form: of the loss: "dense", "gather" or "ring".
      prefetch: batches that the input makes ahead.
      checkpoint_every: steps.
    """

    split_bytes: float
    whole_bytes: float
    state_bytes: float
    model_flops: float
    recomputed_flops: float
    padding_flops: float
    clip_bytes: float
    stored_bytes: float
    frames: int
    embed_dim: int
    pairs: int
    passes: int
    fsdp: int
    tensor: int
    rows: int
    grad_cache: bool
    compute_bytes: int
    form: str
    prefetch: int
    checkpoint_every: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScaleAssumptions(Assumptions):
    """What the table takes for granted, beyond the shares of the roofline.

    Attributes:
      decode_s: CPU seconds for a frame from its JPEG to the batch (`bench data`: 403 us at 224 pixels).
      process_gb: GB of host memory of a process with jax and tensorflow, without data.
      loss_share: of a device's memory that a form of the loss may take before another one is proposed.
      save_share: of the time between two checkpoints in which one is to be written.
    """

    decode_s: float = 403e-6
    process_gb: float = 3.0
    loss_share: float = 0.1
    save_share: float = 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One number of chips. Bytes are of one step and one device, unless the name says otherwise.

    Attributes:
      chips: number of them.
      hosts: of them.
      slices: groups of chips that the hosts' network joins; of GPUs, hosts.
      batch: global batch, clips.
      clips: of a step, on a device.
      parts: in which a device encodes them.
      step_s: seconds, an estimate.
      mfu: share of the peak, 0..1.
      clips_per_s: of all hosts.
      host_stored_mb_s: MB/s of stored frames and sound, of a host.
      fleet_stored_gb_s: GB/s, of all hosts.
      host_decode_cores: cores of a host that decode.
      ici_bytes: sent over links: parameters, gradients and loss.
      dcn_bytes: sent over the network.
      host_dcn_mb: MB of a step that a host sends over the network.
      loss_form: of the config.
      loss_bytes: memory of the loss, of a device.
      loss_flops: of the loss, of a device.
      proposed_form: the first of dense, gather and ring whose memory is small.
      host_checkpoint_mb_s: MB/s at which a host writes its part of a checkpoint in the time given.
      fleet_checkpoint_gb_s: GB/s of all hosts.
      restore_s: seconds in which a host reads a whole checkpoint at the speed of its network.
      fleet_restore_tb: TB that a start reads: every host the whole checkpoint, as for workdirs in object stores.
      host_memory_gb: GB: process, batches ahead, copy of its part of the state.
    """

    chips: int
    hosts: int
    slices: int
    batch: int
    clips: int
    parts: int
    step_s: float
    mfu: float
    clips_per_s: float
    host_stored_mb_s: float
    fleet_stored_gb_s: float
    host_decode_cores: float
    ici_bytes: float
    dcn_bytes: float
    host_dcn_mb: float
    loss_form: str
    loss_bytes: float
    loss_flops: float
    proposed_form: str
    host_checkpoint_mb_s: float
    fleet_checkpoint_gb_s: float
    restore_s: float
    fleet_restore_tb: float
    host_memory_gb: float


def scale_row(work: Workload, *, chip: Chip, chips: int, slices: int, batch: int, shares: ScaleAssumptions) -> Row:
    """Return what a step and a run need on `chips` chips.

    Args:
      work: the config's sizes.
      chip: data sheet.
      chips: number of them.
      slices: groups of chips that the network joins.
      batch: global batch; it divides by the devices of the batch axes.
      shares: assumptions.
    """
    devices, hosts = chips * chip.devices, max(1, chips // chip.host_chips)
    ways = devices // work.tensor
    clips = batch // ways
    parts = _parts(clips, most=work.rows)
    links, network = traffic(work, devices=devices, slices=slices, batch=batch, parts=parts)
    towers = clips * (work.model_flops + work.recomputed_flops + work.padding_flops) / work.tensor
    loss = loss_flops(work, batch=batch, devices=ways)
    matmul = shares.on(chip).matmul
    assert matmul is not None
    compute = towers / (matmul * chip.peak_flops) + loss / (matmul * _float32_peak(chip))
    links_s = links / (shares.links * _link(chip))
    network_s = network / (shares.network * network_speed(chip))
    step_s = max(compute, links_s, network_s, compute + (1 - shares.overlap) * (links_s + network_s))
    rate = batch / step_s
    every_s = work.checkpoint_every * step_s * shares.save_share
    per_host = devices / hosts
    forms = {form: loss_memory(work, form=form, batch=batch, devices=ways, slices=slices) for form in FORMS}
    small = [form for form in FORMS if forms[form] <= shares.loss_share * chip.hbm_bytes]
    held = (work.prefetch + 2) * batch / hosts * work.clip_bytes + work.state_bytes / hosts
    return Row(
        chips=chips,
        hosts=hosts,
        slices=slices,
        batch=batch,
        clips=clips,
        parts=parts,
        step_s=step_s,
        mfu=clips * work.model_flops / work.tensor / (step_s * chip.peak_flops),
        clips_per_s=rate,
        host_stored_mb_s=rate / hosts * work.stored_bytes / 1e6,
        fleet_stored_gb_s=rate * work.stored_bytes / 1e9,
        host_decode_cores=rate / hosts * work.frames * shares.decode_s,
        ici_bytes=links,
        dcn_bytes=network,
        host_dcn_mb=network * per_host / 1e6,
        loss_form=work.form,
        loss_bytes=forms[work.form],
        loss_flops=loss,
        proposed_form=small[0] if small else FORMS[-1],
        host_checkpoint_mb_s=work.state_bytes / hosts / every_s / 1e6,
        fleet_checkpoint_gb_s=work.state_bytes / every_s / 1e9,
        restore_s=work.state_bytes / (shares.network * chip.dcn_host),
        fleet_restore_tb=work.state_bytes * hosts / 1e12,
        host_memory_gb=shares.process_gb + held / 1e9,
    )


def traffic(work: Workload, *, devices: int, slices: int, batch: int, parts: int) -> tuple[float, float]:
    """Return the bytes that a device sends in a step over (links, network), by rings.

    Parameters are gathered over fsdp in the forward and in the backward pass of each part, once more in the forward
    pass that only embeds (GradCache, more than one part); gradients are scattered once for each part and then summed
    over the replicas, first inside a slice, then across slices. Embeddings and their gradients cross as
    `losses.exchange` sends them.
    """
    ways, fsdp = devices // work.tensor, work.fsdp
    replicas = ways // fsdp
    inside = replicas // slices
    bytes_each = work.split_bytes / work.tensor * work.compute_bytes / 4
    gathers = parts * (3 if work.grad_cache and parts > 1 else 2)
    links = (gathers + parts) * bytes_each * (fsdp - 1) / fsdp
    gradients = parts * (bytes_each / fsdp + work.whole_bytes * work.compute_bytes / 4)
    links += 2 * gradients * (inside - 1) / inside
    network = 2 * gradients / inside * (slices - 1) / slices
    share = batch / ways * work.embed_dim * 4 * work.pairs
    near = ways // slices
    if work.form == "ring":
        hops = (slices, 2 * slices + 1) if slices > 1 else (1, 0)
        return links + 2 * hops[0] * near * share, network + hops[1] * share
    return links + 2 * slices * share * (near - 1), network + 2 * (slices - 1) * share


def loss_flops(work: Workload, *, batch: int, devices: int) -> float:
    """Return the FLOPs of a device for the loss: products of [B/devices,E] and [E,B] in float32."""
    return 2.0 * work.pairs * work.passes * batch / devices * batch * work.embed_dim


def loss_memory(work: Workload, *, form: str, batch: int, devices: int, slices: int = 1) -> float:
    """Return the bytes of a device for the loss.

    All embeddings of one side and their gradients ("gather", "dense"), the scores of a device's rows ("dense"), or the
    shares that travel and those that arrive ("ring": of embeddings and gradients, twice over slices).
    """
    vectors = 2.0 * batch * work.embed_dim * 4
    if form == "ring":
        return (2 if slices == 1 else 4) * vectors / devices
    return vectors + (_SCORE_COPIES * 4.0 * batch * batch / devices if form == "dense" else 0.0)


def _parts(clips: int, *, most: int) -> int:
    """Return the smallest divisor of `clips` that makes parts of at most `most`."""
    return next(parts for parts in range(1, clips + 1) if clips % parts == 0 and clips // parts <= most)


def _float32_peak(chip: Chip) -> float:
    """Return the FLOP/s of products in full float32."""
    return peak_flops(chip.kind, dtype="float32") or chip.peak_flops / _FLOAT32_PASSES


def _link(chip: Chip) -> float:
    """Return the bytes/s of one direction of a torus' dimension, or of NVLink."""
    if isinstance(chip, Gpu):
        return chip.nvlink
    assert isinstance(chip, Tpu)
    return chip.ici_link


def relative_step(rows: list[Row]) -> list[float]:
    """Return each row's clips/s per chip as a share of the first's: the efficiency of scaling."""
    first = rows[0].clips_per_s / rows[0].chips
    return [row.clips_per_s / row.chips / first for row in rows]


def powers_of_two(least: int, *, most: int) -> list[int]:
    """Return the powers of two from `least` to `most`.

    >>> powers_of_two(8, most=64)
    [8, 16, 32, 64]
    """
    return [2**k for k in range(math.ceil(math.log2(least)), int(math.log2(most)) + 1)]
