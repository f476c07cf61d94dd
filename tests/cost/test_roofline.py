"""The estimate of step time, by hand, on a made-up torus of 4 x 4 chips."""

import dataclasses
import re
from types import SimpleNamespace

import numpy as np
import pytest

from twinreel.base.errors import UserError
from twinreel.cost.collectives import Traffic
from twinreel.cost.gpus import GPUS
from twinreel.cost.rates import RATES, matmul_rate
from twinreel.cost.roofline import Assumptions, estimate_step, link_speed
from twinreel.cost.tpus import TPUS

CHIP = TPUS["v5e"]
DEVICES = np.array([[SimpleNamespace(coords=(x, y, 0)) for x in range(4)] for y in range(4)])  # [y,x]
MESH = SimpleNamespace(axis_names=("replica", "fsdp", "tensor"), devices=DEVICES.reshape(4, 4, 1))
SPLIT = SimpleNamespace(axis_names=("replica", "fsdp", "tensor"), devices=DEVICES.reshape(4, 2, 2))
SENT = Traffic(kind="all-gather", axes=("fsdp",), over_network=False, calls=1, bytes=0, sent=4e9)
FAR = Traffic(kind="all-reduce", axes=("replica",), over_network=True, calls=1, bytes=0, sent=1e9)


def speed(axes, *, mesh=MESH, ring):
    return link_speed(axes, chip=CHIP, mesh=mesh, wraps=lambda axis: ring) / CHIP.ici_link


def test_links_that_a_group_of_chips_can_use():
    assert speed(("fsdp",), ring=False) == 1  # a line
    assert speed(("fsdp",), ring=True) == 2  # a ring, both ways
    assert speed(("replica", "fsdp"), ring=True) == 4  # both dimensions
    assert speed(("fsdp",), mesh=SPLIT, ring=True) == 1  # two of the four chips of a ring make a line
    assert speed(("tensor",), ring=True) == 1


def estimate(*, flops=1e12, bytes_=1e9, traffic=(), **shares):
    return estimate_step(
        chip=CHIP,
        mesh=MESH,
        wraps=lambda axis: True,
        model_flops=flops,
        hardware_flops=1.5 * flops,
        hbm_bytes=bytes_,
        traffic=traffic,
        assumptions=Assumptions(**shares),
    )


def test_a_step_that_computes():
    found = estimate(matmul=0.5)
    assert found.bound == "compute"
    assert found.step_s == found.least_s == found.compute_s == pytest.approx(1.5e12 / (0.5 * 197e12))
    assert found.mfu == pytest.approx(0.5 / 1.5)  # a third of what it computes is computed twice


def test_a_step_that_waits_for_memory_and_links():
    found = estimate(bytes_=1e11, traffic=[SENT, FAR], hbm=1.0, links=0.5, network=1.0, overlap=0.25)
    assert found.hbm_s == pytest.approx(1e11 / 819e9)
    assert found.links_s == pytest.approx(4e9 / (0.5 * 2 * CHIP.ici_link))
    assert found.network_s == pytest.approx(1e9 / (CHIP.dcn_host / CHIP.host_chips))
    assert found.step_s == pytest.approx(found.hbm_s + 0.75 * (found.links_s + found.network_s))
    assert found.least_s == found.network_s and found.bound == "network"
    alone = estimate(bytes_=1, traffic=[FAR], network=1.0, overlap=0.5)
    assert alone.step_s == alone.least_s == alone.network_s  # what overlaps takes its time, too


def test_gpus_of_a_host_share_its_network():
    gpu = GPUS["h100"]
    near = Traffic(kind="all-gather", axes=("fsdp",), over_network=False, calls=1, bytes=0, sent=9e9)
    far = [Traffic(kind="all-gather", axes=("fsdp",), over_network=True, calls=1, bytes=0, sent=8e9, host_members=k)
           for k in (8, 1)]  # fmt: skip
    times = [
        estimate_step(
            chip=gpu, mesh=MESH, wraps=lambda axis: False, model_flops=1e9, hardware_flops=1e9, hbm_bytes=1,
            traffic=[near, one], assumptions=Assumptions(links=1.0, network=1.0),
        )
        for one in far
    ]  # fmt: skip
    assert [one.links_s for one in times] == pytest.approx([9e9 / 450e9] * 2)
    assert [one.network_s for one in times] == pytest.approx([8e9 / 400e9, 8e9 / 50e9])


def test_a_shift_by_one_takes_one_link():
    ring = Traffic(kind="collective-permute", axes=("replica", "fsdp"), over_network=False, calls=15, bytes=0,
                   sent=4e9)  # fmt: skip
    gather = dataclasses.replace(ring, kind="all-gather")
    assert estimate(traffic=[ring], links=1.0).links_s == pytest.approx(4e9 / CHIP.ici_link)
    assert estimate(traffic=[gather], links=1.0).links_s == pytest.approx(4e9 / (4 * CHIP.ici_link))


def test_each_chip_has_a_rate_of_products_with_its_source():
    chips = TPUS | GPUS
    assert set(RATES) == set(chips)
    for name, (share, source) in RATES.items():
        assert source
        assert Assumptions().on(chips[name]).matmul == share
        measured = re.match(r"([\d.]+) % [MH]FU ", source)
        assert measured is None or 0 <= float(measured[1]) / 100 - share < 0.01, "rounded down"
    assert Assumptions(matmul=0.4).on(CHIP).matmul == 0.4
    assert estimate().compute_s == pytest.approx(1.5e12 / (RATES["v5e"].share * 197e12))
    with pytest.raises(UserError, match="chip with a rate"):
        matmul_rate(dataclasses.replace(CHIP, name="v9"))


def test_shares_are_shares():
    assert estimate(traffic=[SENT], overlap=0.0).step_s > estimate(traffic=[SENT], overlap=1.0).step_s
    with pytest.raises(UserError, match=r"--matmul=1\.5"):
        Assumptions(matmul=1.5)
    with pytest.raises(UserError, match=r"--hbm=0"):
        Assumptions(hbm=0.0)
