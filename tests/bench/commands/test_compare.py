"""The comparisons with PyTorch: they need no torch here, as a stand-in for its Python speaks the protocol of a side."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from twinreel.__main__ import main
from twinreel.bench.commands import compare_input, compare_step
from twinreel.bench.sides import torch_step
from twinreel.bench.sides.torch_input import InputOptions
from twinreel.bench.sides.torch_step import MODELS, SideOptions, dense_layers, step_flops
from twinreel.data.manifest import Clip, write_manifest

SIDES = Path(torch_step.__file__).parent


@pytest.mark.parametrize("name", ["torch_step.py", "torch_input.py"])
def test_the_side_of_torch_runs_where_nothing_is_installed(name, tmp_path):
    command = [sys.executable, "-I", "-S", str(SIDES / name), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 and "--batch_size" in done.stdout, done.stderr
    imports = [node for node in ast.walk(ast.parse((SIDES / name).read_text())) if isinstance(node, ast.ImportFrom)]
    assert imports and all(node.level == 0 and not node.module.startswith("twinreel") for node in imports)


def test_steps_and_losses_are_measured_without_ml_collections_and_tensorflow():
    """Machines that lend a GPU may have jax and flax alone."""
    code = (
        "import sys; sys.modules['ml_collections'] = sys.modules['tensorflow'] = None;"
        "from twinreel.bench.commands import compare_step, loss; from twinreel.bench.sides import step, torch_step;"
        "from twinreel.engine.step import step as _; from twinreel.engine.optimizer import optimizer;"
        "from twinreel.pretrain import objective; from twinreel.__main__ import main; main(sys.argv[1:])"
    )
    for verb in ("compare_step", "loss"):
        done = subprocess.run([sys.executable, "-c", code, "bench", verb, "--help"], capture_output=True, text=True)
        assert done.returncode == 0 and f"twinreel bench {verb}" in done.stdout, done.stderr


def test_options_of_a_side_survive_the_command_line():
    options = SideOptions(side="torch.compile-bfloat16", batch_size=8, device="gpu", model="ViT-L/14", unroll=2)
    assert SideOptions.parse(options.flags()) == options
    assert (options.library, options.dtype, options.sizes) == ("torch.compile", "bfloat16", MODELS["ViT-L/14"])
    given = InputOptions(manifest="a b/clips.jsonl", seconds=0.5, crop=16)
    assert InputOptions.parse(given.flags()) == given


def test_flops_are_those_of_the_products_counted_one_by_one():
    model, tokens = MODELS["ViT-B/32"], 50
    total = 0
    for width, depth, rows, length in ((768, 12, 2 * 8 * tokens, tokens), (512, 12, 2 * 77, 77)):
        for _ in range(depth):
            total += 2 * rows * width * 12 * width  # qkv 3, out 1, MLP 8 (in units of width squared)
            total += 2 * 2 * rows * length * width  # scores, weighted values
    patches = 2 * (2 * 8 * 49) * (3 * 32 * 32) * 768
    assert step_flops(model, batch_size=2, tokens=tokens) == 3 * total + 2 * patches
    assert len(dense_layers(model, batch_size=2, tokens=tokens)) == 2 * 12 * 4


STEP_SIDE = """#!{python}
import json, sys
flags = dict(flag[2:].split("=") for flag in sys.argv[2:])
if int(flags["batch_size"]) > 16:
    sys.exit(17)
if "compile" in flags["side"]:
    sys.exit(3)
speed = 2.0 if "bfloat16" in flags["side"] else 1.0
print(json.dumps(dict(what="fake", parameters=5, flops=1e9, batch_size=int(flags["batch_size"]))), flush=True)
for _ in sys.stdin:
    print(int(flags["batch_size"]) / speed, 1.0 / speed, flush=True)
"""


@pytest.fixture
def torch_python(tmp_path):
    """A program in the place of a Python that has torch."""

    def write(text):
        path = tmp_path / "torch-python"
        path.write_text(text.format(python=sys.executable))
        path.chmod(0o755)
        return str(path)

    return write


def test_sides_take_turns_and_json_is_all_there_is(torch_python, capsys):
    flags = ["--torch_python", torch_python(STEP_SIDE), "--sides", "torch-float32,torch-bfloat16", "--rounds", "3"]
    assert main(["bench", "compare_step", *flags, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert {name: side["clips_per_s"] for name, side in result["sides"].items()} == {
        "torch-float32": 1.0,
        "torch-bfloat16": 2.0,
    }
    assert main(["bench", "compare_step", *flags]) == 0
    assert "torch-bfloat16" in capsys.readouterr().out


def test_the_largest_batch_is_found_by_a_side_that_ends_for_lack_of_memory(torch_python, capsys):
    flags = ["--torch_python", torch_python(STEP_SIDE), "--sides", "torch-float32", "--rounds", "1"]
    assert main(["bench", "compare_step", *flags, "--batch_size", "largest", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sides"]["torch-float32"]["batch_size"] == 16


def test_ratios_are_medians_of_ratios_within_a_round():
    ready = {"twinreel-float32": {"batch_size": 4, "flops": 8.0}, "torch-float32": {"batch_size": 2, "flops": 4.0}}
    ready["matmul-float32"] = {"batch_size": 1, "flops": 16.0}
    times = {"twinreel-float32": [1.0, 2.0, 8.0], "torch-float32": [1.0, 1.0, 1.0], "matmul-float32": [1.0, 1.0, 1.0]}
    found = compare_step._ratios(times, ready=ready)
    assert found["twinreel-float32 / torch-float32"] == 1.0  # rounds: 2, 1, 0.25
    assert found["twinreel-float32 / matmul-float32"] == 0.25  # rounds: 0.5, 0.25, 0.0625


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--sides", "torch-float23"], "unknown side in --sides 'torch-float23'; did you mean 'torch-float32'"),
        (["--model", "ViT-B32"], "unknown --model 'ViT-B32'; did you mean 'ViT-B/32'"),
        (["--batch_size", "0"], "--batch_size must be a number of clips or 'largest', got '0'"),
        (["--rounds", "0"], "--rounds must be at least 1, got 0"),
        (
            ["--torch_python", "/no/python", "--sides", "torch-float32"],
            "directory: '/no/python'; --torch_python names a Python",
        ),
    ],
)
def test_faults_of_compare_step(flags, message, capsys):
    assert main(["bench", "compare_step", *flags]) == 2
    assert message in capsys.readouterr().err


def test_a_side_that_fails_is_named(torch_python, capsys):
    flags = ["--torch_python", torch_python(STEP_SIDE), "--device", "gpu", "--batch_size", "8"]
    assert main(["bench", "compare_step", *flags, "--sides", "torch.compile-bfloat16"]) == 2
    assert "the side torch.compile-bfloat16 ended with status 3" in capsys.readouterr().err
    assert main(["bench", "compare_step", *flags[:-1], "32", "--sides", "torch-bfloat16"]) == 2
    assert "does not fit in memory; lower --batch_size" in capsys.readouterr().err


INPUT_SIDE = """#!{python}
import json
print("noise")
print(json.dumps(dict(what="torch DataLoader, fake", clips_per_s=1e-3)))
"""


def test_inputs_are_compared_on_a_folder_that_is_prepared_first(tmp_path, media, torch_python, capsys):
    frames = media.grey(*range(20, 180, 20), size=(48, 64))
    clips = [Clip(clip_id=str(i), path=f"{i}.mp4", captions=(f"clip {i}",), split="train") for i in range(2)]
    for clip in clips:
        media.write(tmp_path / clip.path, frames)
    write_manifest(tmp_path / "clips.jsonl", clips=clips)
    flags = ["--torch_python", torch_python(INPUT_SIDE), "--seconds", "0.2", "--rounds", "1", "--workers", "1"]
    flags += ["--num_frames", "4", "--short_side", "32", "--crop", "24", "--batch_size", "2", "--json"]
    assert main(["bench", "compare_input", str(tmp_path / "clips.jsonl"), *flags]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["what"] == {"torch": "torch DataLoader, fake", "twinreel": "twinreel"}
    assert result["clips_per_s"]["torch"] == [1e-3] and result["clips_per_s"]["twinreel"][0] > 1
    assert result["ratios"] == [pytest.approx(1e3 * result["clips_per_s"]["twinreel"][0])]
    saved = 2 / 1e-3 - 2 / result["clips_per_s"]["twinreel"][0]
    assert result["epochs_to_pay"] == pytest.approx(result["prepare_s"] / saved)
    compare_input._print(result)
    assert "paid for after" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["none.jsonl"], "the manifest 'none.jsonl' does not exist"),
        (["none.jsonl", "--decoder", "pyva"], "unknown --decoder 'pyva'; did you mean 'pyav'"),
        ([], "the following arguments are required: manifest"),
    ],
)
def test_faults_of_compare_input(flags, message, capsys):
    assert main(["bench", "compare_input", *flags]) == 2
    assert message in capsys.readouterr().err
