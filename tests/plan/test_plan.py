"""Plans for fake devices: what is counted, what is said, and that it is the step that `pretrain` runs."""

import io
import json
import math
import os
import subprocess
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from rich.console import Console

from twinreel.base.errors import UserError
from twinreel.plan import plan as verb
from twinreel.plan import report
from twinreel.plan.feed import input_rate
from twinreel.plan.plan import plan
from twinreel.plan.program import Compiled, parse_out_of_memory, trace
from twinreel.plan.topology import parse_topology, topology_devices
from twinreel.pretrain.step_parts import make_parts
from twinreel.zoo.spec import FAMILIES
from twinreel.zoo.variants import expanded

TOPOLOGY = parse_topology("cpu-8")


def refused(why):
    return Compiled(memory=None, out_of_memory=why, traffic=(), hbm_bytes=0, open_loops=0, estimate=None, compile_s=0.0)


@pytest.fixture(scope="module")
def result(small):
    return plan(small(), topology=TOPOLOGY)


def test_flops_of_both_towers_by_hand(small):
    config = small()
    video, text = (SimpleNamespace(**expanded(config.model[side], family=FAMILIES[side])) for side in ("video", "text"))
    batch, frames, tokens = 16, config.data.num_frames // video.tubelet, (video.image_size // video.patch) ** 2
    pixels = 3 * video.tubelet * video.patch**2

    def block(rows, length, width, ratio):
        dense = 2 * rows * length * width * (3 + 1 + 2 * ratio) * width  # qkv, out, MLP up and down
        return dense + 2 * (2 * rows * length * length * width)  # scores, and the mix of values

    space = video.depth * block(batch * frames, tokens, video.width, video.mlp_ratio)
    time = video.temporal_depth * block(batch, frames, video.width, video.mlp_ratio)
    words = text.depth * block(batch, config.data.context_length, text.width, text.mlp_ratio)
    heads = 2 * batch * (video.width + text.width) * config.model.embed_dim
    loss = 2 * batch * batch * config.model.embed_dim
    patches = 2 * batch * frames * tokens * pixels * video.width
    wanted = 3 * (space + time + words + heads + loss) + 2 * patches  # no gradient goes back to the pixels
    flops = trace(config, devices=jax.devices()).flops
    assert flops.open_loops == 0 and flops.recomputed == 0
    assert flops.model == pytest.approx(wanted, rel=0.01)


def test_the_parts_of_memory_are_those_of_the_shapes(result, small):
    config = small()
    parts = make_parts(config, devices=jax.devices())
    count = sum(math.prod(x.shape) for x in parts.builder.abstract.params.values())
    memory = result["memory"]
    assert result["parameters"] == count
    assert memory["parameters"] == 4 * count  # float32, on every device
    assert 8 * count <= memory["optimizer"] <= 8 * count + 64
    clip = config.data.num_frames * 3 * config.model.video.image_size**2
    assert 2 * clip < memory["batch"] < 2 * (clip + 1000)  # two rows of 16 on each of 8 devices
    assert result["checkpoint_bytes"] == pytest.approx(12 * count, abs=64)
    assert result["fits"] and result["out_of_memory"] is None and result["time"] is None


def test_data_parallel_chips_exchange_the_gradients(result):
    gradients = 4 * result["parameters"]
    sums = [one for one in result["collectives"] if one["kind"] == "all-reduce"]
    assert {tuple(one["axes"]) for one in result["collectives"]} == {("replica",)}
    assert sum(one["bytes"] for one in sums) == pytest.approx(gradients, rel=0.05)


def test_input_and_run(result, small):
    config = small()
    assert result["run"] == {
        "steps": config.train.steps,
        "samples": 16 * config.train.steps,
        "hours": None,
        "chip_hours": None,
    }
    feed = result["input"]
    assert feed["clips_per_step"] == 16 and feed["hosts"] == 1
    frames = config.data.num_frames * 3 * config.model.video.image_size**2
    assert frames < feed["decoded_bytes_per_clip"] < frames + 1000


def test_what_is_read_of_frames_of_240_pixels_and_of_sound(small):
    config = small("model.video.image_size=210", "model.video.patch=42", "data.audio_seconds=2.0")  # stored at 240
    feed = input_rate(config, hosts=2, step_s=0.5)
    assert feed["jpeg_bytes_per_clip"] == 19_000 * config.data.num_frames  # 240 x 360 or 240 x 427, as measured
    assert feed["sound_bytes_per_clip"] == 2 * 16_000 * 2
    assert feed["clips_per_s"] == 16 / 2 / 0.5
    assert feed["stored_mb_per_s"] == pytest.approx(16 * (19_000 * config.data.num_frames + 64_000) / 1e6)


def test_it_can_be_written_and_printed(result):
    assert json.loads(json.dumps(result))["mesh"] == {"replica": 8, "fsdp": 1, "tensor": 1}
    out = io.StringIO()
    report.print_plan(result, console=Console(file=out, width=140))
    text = out.getvalue()
    for words in ("8 fake CPU devices", "optimizer state", "all-reduce", "checkpoint", f"{result['parameters']:,}"):
        assert words in text


def test_nothing_is_allocated(small):
    before = len(jax.live_arrays())
    trace(small("data.batch_size=8192"), devices=topology_devices(TOPOLOGY))
    assert len(jax.live_arrays()) == before


def test_a_batch_that_does_not_divide(small):
    with pytest.raises(UserError, match="batch_size=12 must divide"):
        plan(small("data.batch_size=12"), topology=TOPOLOGY)


def test_the_long_report_of_the_compiler():
    message = """RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 20.50G of 15.75G hbm. Exceeded hbm capacity by 4.75G.

Total hbm usage >= 20.75G:
    reserved        258.00M
    program          20.50G

Largest program allocations in hbm:

  1. Size: 6.00G
     Operator: op_name="jit(step)/jvp()/dot_general"
     Shape: bf16[1024,196,3072]{2,1,0:T(8,128)(2,1)}
     Unpadded size: 6.00G
     ==========================

  2. Size: 1.50M
     Shape: f32[768]{0:T(1024)}
     ==========================
"""  # noqa: E501
    found = parse_out_of_memory(message)
    assert found.needed == 20.5 * 2**30 and found.limit == 15.75 * 2**30
    assert [count for count, _ in found.largest] == [6 * 2**30, 1.5 * 2**20]
    assert "1024,196,3072" in found.largest[0][1] and "dot_general" in found.largest[0][1]


def test_another_memory_that_is_too_small(result, small, monkeypatch):
    message = ("RESOURCE_EXHAUSTED: Ran out of memory in memory space vmem while allocating. Used 20.1M of 16M vmem.\n"
               "HLO: %fusion[3]")  # fmt: skip
    found = parse_out_of_memory(message)
    assert found.needed is None and found.limit is None
    monkeypatch.setattr(verb, "compile_traced", lambda *_, **__: refused(found))
    told = plan(small(), topology=TOPOLOGY)
    assert not told["fits"] and "advice" not in told
    out = io.StringIO()
    report.print_plan(told, console=Console(file=out, width=200))
    assert "memory space vmem while allocating. Used 20.1M of 16M vmem." in out.getvalue()
    assert "0 B" not in out.getvalue() and "HLO" not in out.getvalue()


@pytest.mark.slow
def test_the_verb_makes_as_many_fake_devices_as_it_is_asked_for(overrides):
    changes = [f"--config.{change}" for change in overrides]
    command = [sys.executable, "-m", "twinreel", "plan", "--config", "demo", "--topology", "cpu-4", "--json", *changes]
    environment = {key: value for key, value in os.environ.items() if key not in ("XLA_FLAGS", "JAX_PLATFORMS")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    written = json.loads(done.stdout)
    assert written["mesh"]["replica"] == 4 and np.isfinite(written["hbm_bytes_per_chip"])


def test_json_is_printed_alone_and_takes_no_file(result, monkeypatch, capsys):
    monkeypatch.setattr(verb, "plan", lambda *_, progress, **__: progress("tracing") or result)
    flags = ["--config", "demo", "--topology", "cpu-8"]
    assert verb.main([*flags, "--json"]) == 0
    streams = capsys.readouterr()
    assert json.loads(streams.out)["mesh"] == result["mesh"] and streams.err == ""
    assert verb.main(flags) == 0
    streams = capsys.readouterr()
    assert "checkpoint" in streams.out and streams.err == "tracing\n"
    with pytest.raises(UserError, match=r"write `--json > plan\.json`"):
        verb.main([*flags, "--json", "plan.json"])


def test_a_search_keeps_its_tries_in_a_folder():
    flags = ["--config", "demo", "--topology", "cpu-8", "--search", "--workdir", "gs://bucket/search"]
    with pytest.raises(UserError, match=r"--workdir must be a folder in the file system, got the URL"):
        verb.main(flags)
