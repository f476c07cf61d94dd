"""The table over numbers of chips against figures computed by hand."""

import dataclasses

import pytest

from twinreel.base.errors import UserError
from twinreel.cost.gpus import GPUS
from twinreel.cost.scaling import ScaleAssumptions, Workload, loss_flops, loss_memory, relative_step, scale_row, traffic
from twinreel.cost.tpus import TPUS

WORK = Workload(
    split_bytes=4e9,
    whole_bytes=0.0,
    state_bytes=12e9,
    model_flops=1e12,
    recomputed_flops=8e10,
    padding_flops=2e10,
    clip_bytes=1e6,
    stored_bytes=2e5,
    frames=8,
    embed_dim=512,
    pairs=1,
    passes=4,
    fsdp=4,
    tensor=1,
    rows=128,
    grad_cache=True,
    compute_bytes=2,
    form="gather",
    prefetch=2,
    checkpoint_every=1000,
)
ALL = ScaleAssumptions(matmul=0.5, hbm=1, links=1, network=1, overlap=0)


def test_a_slice_of_16_chips_by_hand():
    """2 GB in bfloat16: gathered twice, scattered once, 3/4 each; summed over 4 replicas; a batch of 2,048 x 2 kB."""
    links, network = traffic(WORK, devices=16, slices=1, batch=2048, parts=1)
    embeddings = 2 * 15 / 16 * 2048 * 512 * 4
    assert links == pytest.approx(3 * 1.5e9 + 2 * 0.5e9 * 3 / 4 + embeddings)
    assert network == 0


def test_four_slices_of_16_chips_by_hand():
    """Of 0.5 GB of gradients a chip has a quarter left to send across, twice 3/4 of it; of its 128 rows all, thrice."""
    links, network = traffic(WORK, devices=64, slices=4, batch=8192, parts=1)
    share = 128 * 512 * 4
    assert network == pytest.approx(2 * 0.125e9 * 3 / 4 + 2 * 3 * share)
    assert links == pytest.approx(4.5e9 + 0.75e9 + 2 * 4 * 15 * share)


def test_parts_gather_once_more_and_sum_each_time():
    one = traffic(WORK, devices=16, slices=1, batch=2048, parts=1)[0]
    four = traffic(WORK, devices=16, slices=1, batch=2048, parts=4)[0]
    assert four - one == pytest.approx((3 * 4 + 4 - 3) * 1.5e9 + 3 * 0.75e9)
    kept = dataclasses.replace(WORK, grad_cache=False)
    assert four - traffic(kept, devices=16, slices=1, batch=2048, parts=4)[0] == pytest.approx(4 * 1.5e9)


def test_a_ring_sends_shares_across_once_a_slice():
    ring = dataclasses.replace(WORK, form="ring", split_bytes=0.0)
    links, network = traffic(ring, devices=64, slices=4, batch=8192, parts=1)
    share = 128 * 512 * 4
    assert (links, network) == (2 * 64 * share, 9 * share)  # as the compiled program: test_infonce, and docs/scale.md


def test_the_loss_by_hand():
    assert loss_flops(WORK, batch=32_768, devices=256) == 4 * 2 * 128 * 32_768 * 512
    rows = {form: loss_memory(WORK, form=form, batch=32_768, devices=256) for form in ("dense", "gather", "ring")}
    assert rows == {"gather": 2**27, "dense": 2**27 + 12 * 128 * 32_768, "ring": 2**20}
    assert loss_memory(WORK, form="ring", batch=32_768, devices=256, slices=2) == 2**21


def test_rates_and_memory_of_a_host_by_hand():
    work = dataclasses.replace(WORK, split_bytes=0.0, embed_dim=1)  # nothing to send or to compare, as good as
    row = scale_row(work, chip=TPUS["v5e"], chips=256, slices=1, batch=32_768, shares=ALL)
    step = 128 * 1.1e12 / (0.5 * 197e12)
    assert row.step_s == pytest.approx(step, rel=1e-3)
    assert row.mfu == pytest.approx(0.5 / 1.1, rel=1e-3)
    assert (row.hosts, row.clips, row.parts) == (64, 128, 1)
    per_host = 512 / step
    assert row.host_stored_mb_s == pytest.approx(per_host * 0.2, rel=1e-3)
    assert row.fleet_stored_gb_s == pytest.approx(64 * per_host * 2e-4, rel=1e-3)
    assert row.host_decode_cores == pytest.approx(per_host * 8 * 403e-6, rel=1e-3)
    assert row.host_memory_gb == pytest.approx(3 + 4 * 512e-3 + 12 / 64)
    assert row.host_checkpoint_mb_s == pytest.approx(12e3 / 64 / (100 * step), rel=1e-3)
    assert (row.restore_s, row.fleet_restore_tb) == (pytest.approx(12e9 / 12.5e9), pytest.approx(0.768))


def test_a_fixed_batch_on_fewer_chips_is_encoded_in_parts():
    row = scale_row(WORK, chip=TPUS["v5e"], chips=8, slices=1, batch=32_768, shares=ALL)
    assert (row.clips, row.parts) == (4096, 32)


def test_the_form_of_the_loss_follows_the_memory():
    forms = {}
    for batch, chips in ((32_768, 256), (262_144, 2048), (1_048_576, 8192)):
        row = scale_row(WORK, chip=TPUS["v5e"], chips=chips, slices=chips // 256, batch=batch, shares=ALL)
        forms[batch] = row.proposed_form
    assert forms == {32_768: "dense", 262_144: "dense", 1_048_576: "ring"}


def test_hosts_of_gpus_are_what_the_network_joins():
    rows = [
        scale_row(WORK, chip=GPUS["h100"], chips=chips, slices=chips // 8, batch=64 * chips, shares=ALL)
        for chips in (8, 64)
    ]
    assert [row.hosts for row in rows] == [1, 8]
    gradients = 2 * 0.5e9 / 2 * 7 / 8  # of two replicas in a host each sums half
    assert rows[1].dcn_bytes == pytest.approx(gradients + 2 * 7 * 64 * 512 * 4)
    first, second = relative_step(rows)
    assert first == 1
    assert second < 1


def test_shares_are_checked():
    with pytest.raises(UserError, match="--links=2"):
        ScaleAssumptions(links=2)
