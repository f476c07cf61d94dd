"""Advice and search, with a stand-in for the compiler whose answers are known: a program fits if it is small enough."""

import dataclasses
import io
import json
import os
import re
from types import SimpleNamespace

import jax
import pytest
from rich.console import Console

from twinreel.base.config import flatten, load_config
from twinreel.base.errors import UserError
from twinreel.cost.flops import Flops
from twinreel.cost.memory import Memory
from twinreel.cost.roofline import Assumptions, Estimate
from twinreel.plan import advice, program, report, search
from twinreel.plan import plan as verb
from twinreel.plan.program import Compiled, OutOfMemory, changed
from twinreel.plan.topology import parse_topology
from twinreel.pretrain.step_parts import make_parts

GIB = 2**30
TOPOLOGY = dataclasses.replace(parse_topology("v5e-8"), name="stand-in")
REFUSED = OutOfMemory(needed=40 * GIB, limit=16 * GIB, largest=(), message="")


def facts(config):
    """(remat, microbatch, fsdp) of a config; 1 part if nothing is encoded again."""
    flat = flatten(config)
    parts = flat.get("loss.microbatch", 1) if flat.get("loss.grad_cache", True) else 1
    return flat.get("model.remat", "none"), parts, flat["mesh.fsdp"]


def needed(config):
    remat, parts, fsdp = facts(config)
    named = "names:qkv,attention,hidden,tokens"
    activations = {"none": 30, "dots": 20, "dots_no_batch": 12, named: 10, "full": 5}[remat] / parts
    return int((activations + 10 / fsdp) * GIB)


def stand_in_trace(config, *, devices, phase=None):
    remat, parts, _ = facts(config)
    if parts > 16:
        raise UserError("does not divide")
    again = (remat == "full") + (parts > 1)
    return SimpleNamespace(
        config=config,
        phase=phase,
        trace_s=0.0,
        parts=SimpleNamespace(standing_bytes=GIB, ways=8),
        mesh=SimpleNamespace(shape={"replica": 8, "fsdp": 1, "tensor": 1}, size=8),
        flops=Flops(model=3.0, recomputed=float(again)),
        kept=needed(config) - 10 * GIB / facts(config)[2],
    )


def stand_in_compile(traced, *, topology, assumptions):
    size, step = needed(traced.config), traced.flops.hardware
    fits = size <= 16 * GIB
    memory = Memory(parameters=size, optimizer=0, batch=0, activations=0, temporaries=0, program=0, other=0)
    time = Estimate(
        compute_s=step, hbm_s=0, links_s=0, network_s=0, step_s=step, least_s=step, mfu=0.5, bound="compute"
    )
    return Compiled(
        memory=memory if fits else None,
        out_of_memory=None if fits else dataclasses.replace(REFUSED, needed=size),
        traffic=(),
        hbm_bytes=0,
        open_loops=0,
        estimate=time if fits else None,
        compile_s=1.0,
    )


@pytest.fixture
def compiled(monkeypatch):
    """The configs that were handed to the compiler."""
    seen = []

    def count(traced, **options):
        seen.append(facts(traced.config))
        return stand_in_compile(traced, **options)

    for module in (advice, search):
        monkeypatch.setattr(module, "trace", stand_in_trace)
        monkeypatch.setattr(module, "compile_traced", count)
    monkeypatch.setattr(search, "trace_phases", lambda config, devices: [stand_in_trace(config, devices=devices,
                                                                                    phase="masked")])  # fmt: skip
    monkeypatch.setattr(search, "topology_devices", lambda topology: jax.devices())
    return seen


def test_advice_tries_each_kind_until_it_fits(small, compiled):
    config = small("data.batch_size=64")
    found = advice.find_changes(config, traced=stand_in_trace(config, devices=()), failed=REFUSED, topology=TOPOLOGY,
                                devices=jax.devices(), assumptions=Assumptions())  # fmt: skip
    by_kind = {one["kind"]: one for one in found}
    assert set(by_kind) == {"remat", "microbatch", "fsdp"}
    assert by_kind["remat"]["changes"] == {"model.remat": "full"} and by_kind["remat"]["fits"]
    assert by_kind["microbatch"]["changes"] == {"loss.microbatch": 8} and by_kind["microbatch"]["fits"]
    assert not by_kind["fsdp"]["fits"]  # 30 GiB of activations stay
    assert by_kind["fsdp"]["changes"] == {"mesh.replica": -1, "mesh.fsdp": 8, "sharding.rules": "fsdp"}
    assert [policy for policy, _, _ in compiled if policy != "none"] == ["dots", "dots_no_batch", "full"]
    assert "config.model.remat='full'" in advice.describe_changes(by_kind["remat"]["changes"])


@pytest.mark.parametrize(
    ("rows", "now", "ratio", "tried"),
    [(4, 1, 5, [2, 4]), (128, 1, 5, [4, 8, 128]), (12, 2, 2, [3, 4, 12]), (7, 1, 3, [7]), (4, 4, 9, [])],
)
def test_parts_of_a_batch_divide_its_rows(small, rows, now, ratio, tried):
    config = small(f"data.batch_size={rows * 8}", f"loss.microbatch={now}")
    failed = dataclasses.replace(REFUSED, needed=ratio * 15 * GIB)  # of the 16 GiB one is taken whatever the parts
    steps = advice._microbatch_steps(config, traced=stand_in_trace(config, devices=()), failed=failed)
    assert [step["loss.microbatch"] for step in steps] == tried
    kept = small(f"data.batch_size={rows * 8}", f"loss.microbatch={now}", "loss.grad_cache=False")
    steps = advice._microbatch_steps(kept, traced=stand_in_trace(kept, devices=()), failed=failed)
    assert all(step["loss.grad_cache"] for step in steps), "only GradCache keeps less with more parts"


def test_advice_is_by_the_assumptions_that_were_given(small, compiled, monkeypatch):
    given, seen = Assumptions(matmul=0.4), set()

    def compile_(traced, *, topology, assumptions):
        seen.add(assumptions)
        return stand_in_compile(traced, topology=topology, assumptions=assumptions)

    for module in (verb, advice):
        monkeypatch.setattr(module, "compile_traced", compile_)
    monkeypatch.setattr(verb, "trace_phases", lambda config, **options: [stand_in_trace(config, **options)])
    monkeypatch.setattr(verb, "topology_devices", lambda topology: jax.devices())
    monkeypatch.setattr(verb, "describe", lambda config, **options: {})
    found = verb.plan(small("data.batch_size=64"), topology=TOPOLOGY, assumptions=given)
    assert found["advice"] and seen == {given}


def test_search_ranks_and_goes_on_where_it_was(small, compiled, tmp_path):
    config = small("data.batch_size=64")
    options = {"topology": TOPOLOGY, "assumptions": Assumptions(), "workdir": tmp_path, "quiet": True}
    first = search.search(config, tries=3, **options)["ranked"]
    assert len(compiled) == len(first) == 3
    with (tmp_path / "search.jsonl").open("a") as stream:
        stream.write('{"key": "cut off')  # as a search that is killed leaves it
    result = search.search(config, tries=40, **options)
    found = result["ranked"]
    assert result["fits"] and result["phase"] is None and not result["refused"]
    assert len(compiled) == len(found) > 3, "what was compiled before is not compiled again"
    fitting = [one for one in found if one["fits"]]
    steps = [one["time"]["step_s"] for one in fitting]
    assert found[: len(fitting)] == fitting and steps == sorted(steps)
    for one in found:
        assert one["fits"] == (needed(changed(config, one["changes"])) <= 16 * GIB)
    assert fitting[0]["time"]["step_s"] == 3.0  # nothing recomputed, parameters split: 20 or 12 GiB / ...
    compiled.clear()
    search.search(small("data.batch_size=128"), tries=2, **options)
    assert len(compiled) == 2, "results of another config are not taken over"
    kept = (tmp_path / "search.jsonl").read_text().splitlines()
    assert json.loads(kept[0])["name"].startswith("config.mesh.replica=-1")


def test_search_compiles_the_first_programs_and_begins_no_more_after_its_time(small, compiled, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)  # two programs at a time
    config = small("data.batch_size=64")
    options = {"topology": TOPOLOGY, "assumptions": Assumptions(), "workdir": tmp_path, "quiet": True, "tries": 4}
    late = search.search(config, limit_s=0, **options)
    assert (late["left"], len(late["ranked"]), len(compiled)) == (2, 2, 2)
    again = search.search(config, **options)
    assert (again["left"], len(again["ranked"])) == (0, 4)


def test_search_traces_each_policy_twice_and_estimates_the_memory_of_more_parts(small, compiled, monkeypatch):
    traces = []

    def trace(config, *, devices, phase):
        traces.append((config.model.remat, config.loss.microbatch))
        return stand_in_trace(config, devices=devices, phase=phase)

    monkeypatch.setattr(search, "trace", trace)
    config = small("data.batch_size=64")
    options = {"topology": TOPOLOGY, "assumptions": Assumptions(), "tick": lambda: None}
    found = search._candidates(config, devices=jax.devices(), **options).all
    assert len(traces) == len(set(traces)) == 2 * len({policy for policy, _ in traces})
    same = {"loss.microbatch": 0, "loss.grad_cache": True}
    looped = [one for one in found if not one.changes.get("loss.grad_cache", True)]
    smaller = {one.changes["loss.microbatch"]: one.bytes for one in found
               if one not in looped and one.changes | same == found[0].changes | same}  # fmt: skip
    assert looped and {one.changes["loss.microbatch"] for one in looped} == {4}
    assert looped[0].bytes == smaller[1], "what layers keep is kept of all parts"
    assert set(smaller) == {1, 2, 4, 8}  # of 64 clips on 8 chips
    assert smaller[2] - smaller[4] == pytest.approx(2 * (smaller[4] - smaller[8]))


def test_search_looks_at_the_largest_phase(small, compiled, tmp_path, monkeypatch):
    both = [stand_in_trace(small(), devices=(), phase=phase) for phase in ("unmasked", "masked")]
    seen = set()

    def trace(config, *, devices, phase):
        seen.add(phase)
        return stand_in_trace(config, devices=devices, phase=phase)

    monkeypatch.setattr(search, "trace_phases", lambda config, devices: both)
    monkeypatch.setattr(search, "trace", trace)
    found = search.search(small("data.batch_size=64"), tries=2, topology=TOPOLOGY, assumptions=Assumptions(),
                          workdir=tmp_path, quiet=True)  # fmt: skip
    assert found["phase"] == "unmasked" and seen == {"unmasked"}


def test_search_names_the_smallest_estimate_if_nothing_fits(overrides, compiled, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(verb, "parse_topology", lambda *_, **__: TOPOLOGY)
    words = ["--config", "demo", "--topology", "v5e-8", "--search", "--workdir", str(tmp_path), "--tries", "40"]
    words += [f"--config.{change}" for change in (*overrides, "data.batch_size=64")]
    assert verb.main(words) == 0
    assert "nothing fits" not in capsys.readouterr().out
    monkeypatch.setattr(search, "trace", lambda config, **options: huge(config, **options))
    assert verb.main([*words, "--config.seed=1"]) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "nothing fits: the smallest estimate is 6" in out and "GiB a chip, with config.mesh.replica=-1" in out
    assert "a chip has 16.00 GiB" in out and "config.data.batch_size" in out


def huge(config, **options):
    traced = stand_in_trace(config, **options)
    traced.kept += 1000 * GIB
    return traced


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("v5e-256", [(1, 1), (4, 1), (16, 1), (64, 1), (256, 1), (1, 2), (128, 2), (1, 4), (64, 4)]),
        ("v5e-512", [(1, 1), (4, 1), (16, 1), (64, 1), (256, 1), (1, 2), (128, 2), (1, 4), (64, 4)]),
    ],
)
def test_mesh_shapes_are_of_a_slice_and_of_both_axes(name, wanted):
    config = load_config("base_1b", overrides=["sharding.rules=replicated"])
    tried = search.meshes(config, topology=parse_topology(name))
    assert [(one["mesh.fsdp"], one["mesh.tensor"]) for one in tried] == wanted
    rules = [one.get("sharding.rules") for one in tried]
    assert rules == [None] + 4 * ["fsdp"] + 4 * ["fsdp_tensor"]


def test_tensor_divides_heads_and_a_table_of_rules_is_kept(small):
    sizes = {one["mesh.tensor"] for one in search.meshes(small(), topology=TOPOLOGY)}
    assert sizes == {1, 2}  # two heads
    own = small("mesh.tensor=2")
    with own.unlocked():
        own.sharding = {"rules": (("kernel$", ("...", "tensor")), (".*", ()))}
    tried = search.meshes(own, topology=TOPOLOGY)
    assert [(one["mesh.fsdp"], one["mesh.tensor"]) for one in tried] == [(1, 2), (4, 2)]
    assert not any("sharding.rules" in one for one in tried)


def test_changes_make_sections_that_a_config_lacks(small):
    config = small()
    with config.unlocked():
        del config.sharding
    after = changed(config, advice.mesh_changes(config, fsdp=8))
    assert "sharding" not in config and after.sharding.rules == "fsdp"
    parts = make_parts(after, devices=jax.devices())
    sizes = parts.builder.abstract.params
    kernel = max(sizes.values(), key=lambda value: value.size)  # small arrays stay whole
    assert kernel.sharding.shard_shape(kernel.shape) != kernel.shape
    assert config.mesh.fsdp == 1 and after.mesh.fsdp == 8


def test_a_program_that_compiles_may_still_be_too_large():
    topology = parse_topology("v5e-8")
    kinds = {"optimizer": 0, "batch": 0, "temporaries": 6 * GIB, "program": 0, "other": 0}
    fits = Memory(parameters=5 * GIB, activations=4 * GIB, **kinds)
    too_large = Memory(parameters=5 * GIB, activations=5 * GIB, **kinds)
    assert program._too_large(fits, topology=topology) is None
    refused = program._too_large(too_large, topology=topology)
    assert refused.needed == 16 * GIB and refused.limit == 15.75 * GIB
    assert program._too_large(too_large, topology=parse_topology("cpu-8")) is None


def test_a_ranking_shows_what_differs_and_how_to_take_the_first():
    def tried(fsdp, *, fits=True, **changes):
        time = {"step_s": 1.271, "mfu": 0.436, "bound": "memory"}
        changes = {"mesh.fsdp": fsdp, **changes, "model.remat": "names:qkv,hidden"}
        return {"changes": changes, "fits": fits, "memory_bytes": 2**34, "time": time}

    ranked = [tried(4, **{"sharding.rules": "fsdp"}), tried(1, fits=False)]
    result = {
        "topology": {"description": "TPU"},
        "phase": None,
        "ranked": ranked,
        "refused": {},
        "fits": True,
        "least": {},
        "left": 3,
        "passed_over": 2,
    }
    console = Console(file=io.StringIO(), width=100, soft_wrap=True)
    report.print_search(result, console=console)
    text = console.file.getvalue()
    assert re.search(r"fsdp\W+rules\W+memory", text) and re.search(r"4\W+fsdp\W+16\.00 GiB\W+1271 ms\W+43\.6", text)
    assert re.search(r"1\W+unchanged\W+does not fit", text) and "all have config.model.remat='names:qkv,hidden'" in text
    assert "3 more were not compiled in the time" in text and "2 were passed over" in text
    assert "--config.mesh.fsdp=4 --config.sharding.rules=fsdp --config.model.remat=names:qkv,hidden" in text
