"""Plans of runs whose step changes on the way: all phases must fit, and each counts by its steps."""

import dataclasses
import io

import pytest
from rich.console import Console

from twinreel.cost.roofline import Assumptions
from twinreel.plan import plan as verb
from twinreel.plan import report
from twinreel.plan.plan import describe, plan
from twinreel.plan.program import OutOfMemory, compile_traced, trace_phases
from twinreel.plan.topology import parse_topology, topology_devices

TOPOLOGY = parse_topology("cpu-8")
FLIP = ["model.video.patch_dropout=0.5", "train.steps=480", "train.unmasked_steps=100"]


@pytest.fixture(scope="module")
def planned(small):
    found = []
    for traced in trace_phases(small(*FLIP), devices=topology_devices(TOPOLOGY)):
        compiled = compile_traced(traced, topology=TOPOLOGY, assumptions=Assumptions())
        found.append(verb.Planned(traced, compiled))
    return found


def described(small, planned):
    return describe(small(*FLIP), planned=planned, topology=TOPOLOGY, assumptions=Assumptions())


def with_time(one, *, step_s):
    from twinreel.cost.roofline import Estimate

    time = Estimate(
        compute_s=step_s, hbm_s=0, links_s=0, network_s=0, step_s=step_s, least_s=step_s, mfu=0.5, bound="compute"
    )
    return one._replace(compiled=dataclasses.replace(one.compiled, estimate=time))


def test_the_step_with_all_patches_is_planned_too(small, planned):
    result = described(small, planned)
    assert [(one["phase"], one["steps"]) for one in result["phases"]] == [("unmasked", 100), ("masked", 380)]
    whole, half = result["phases"]
    assert result["phase"] == "unmasked" and whole["memory_bytes"] > half["memory_bytes"] > 0
    assert sum(result["memory"].values()) == whole["memory_bytes"]
    unmasked, masked = (one.traced.flops.model for one in planned)
    assert result["flops"]["model_per_chip"] == unmasked / 8 > masked / 8
    assert result["run"]["steps"] == 480 and result["fits"]
    out = io.StringIO()
    report.print_plan(result, console=Console(file=out, width=300))
    assert "refer to phase 'unmasked' (100 steps), the largest; phase 'masked' (380 steps): " in out.getvalue()


def test_each_phase_counts_by_its_steps(small, planned):
    unmasked, masked = planned
    result = described(small, [with_time(unmasked, step_s=2.0), with_time(masked, step_s=1.0)])
    assert result["run"]["hours"] == pytest.approx((100 * 2 + 380 * 1) / 3600)
    assert result["run"]["chip_hours"] == pytest.approx(8 * 580 / 3600)
    assert result["input"]["clips_per_s"] == 16.0  # of the faster phase


def test_one_phase_that_does_not_fit_is_enough(small, planned, monkeypatch):
    def compile_(traced, **options):
        (found,) = (one.compiled for one in planned if one.traced.phase == traced.phase)
        failed = OutOfMemory(needed=40 * 2**30, limit=16 * 2**30, largest=(), message="")
        return dataclasses.replace(found, memory=None, out_of_memory=failed) if traced.phase == "unmasked" else found

    monkeypatch.setattr(verb, "compile_traced", compile_)
    result = plan(small(*FLIP), topology=TOPOLOGY, advise=False)
    assert not result["fits"] and result["phase"] == "unmasked"
    assert [one["fits"] for one in result["phases"]] == [False, True]


def test_without_such_steps_there_is_one_phase(small):
    (only,) = trace_phases(small("model.video.patch_dropout=0.5"), devices=topology_devices(TOPOLOGY))
    assert only.phase == "masked" and only.steps == small().train.steps
