"""`bench compare_generate` on a tiny GPT-2 whose public side is played by a script with the public code's texts."""

import sys
from pathlib import Path

import numpy as np
import pytest

from twinreel.base.errors import UserError
from twinreel.bench.commands.compare_generate import compare, main

GOLDEN = Path(__file__).parents[2] / "golden" / "weights" / "gpt2"
PUBLIC = """#!{python}
import json, pathlib, shutil, sys
flags = dict(flag.lstrip("-").split("=", 1) for flag in sys.argv[2:])
folder = pathlib.Path(flags["folder"])
for file in pathlib.Path({golden!r}).iterdir():
    if file.name != "io.npz":
        shutil.copy(file, folder)
shutil.copy({io!r}, folder / "io.npz")
print(json.dumps({{"what": "played", "parameters": 7, "threads": 1}}), flush=True)
for line in sys.stdin:
    print(2.0, 4.0, 1024, flush=True)
"""


@pytest.fixture(scope="module")
def row(tmp_path_factory):
    """The figures of both ways; texts end where the public code's first text ends."""
    folder = tmp_path_factory.mktemp("generate")
    with np.load(GOLDEN / "io.npz") as file:
        wanted = dict(file)
    length = int(np.flatnonzero(wanted["greedy"][0] == wanted["eos"])[0]) + 1
    tokens = {"greedy": wanted["greedy"][:1, :length], "beam": np.full((1, length), -1, np.int32)}
    np.savez(folder / "io.npz", prompt=wanted["prompt"][:1], **tokens)
    script = folder / "python"
    script.write_text(PUBLIC.format(python=sys.executable, golden=str(GOLDEN), io=str(folder / "io.npz")))
    script.chmod(0o755)
    return length, compare("gpt2-124m", rows=1, prompt=5, tokens=length, rounds=2, torch_python=str(script))


def test_both_sides_take_turns(row):
    length, (greedy, beam) = row
    assert (greedy["mode"], beam["mode"]) == ("greedy", "beam") and greedy["parameters"] == 7
    assert greedy["equal"] == 1.0 and beam["equal"] == 0.0
    for one in (greedy, beam):
        assert one["public_tokens_per_s"] == length / 2 and one["public_tokens_per_cpu_s"] == length / 4
        assert one["wall_ratio"] == pytest.approx(one["tokens_per_s"] / (length / 2))
        assert one["cpu_ratio"] == pytest.approx(one["tokens_per_cpu_s"] / (length / 4))
        assert one["peak_bytes"] > 2**20 and one["public_peak_bytes"] == 1024 and one["compile_s"] > 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--cases", "gpt2-124"], "case in --cases 'gpt2-124'; did you mean 'gpt2-124m'"),
        (["--tokens", "0"], "--tokens must be at least 1, got 0"),
        (["--torch_python", "/no/such/python"], "cannot be run: .*'/no/such/python'; --torch_python names a Python"),
    ],
)
def test_mistakes(flags, message):
    with pytest.raises(UserError, match=message):
        main(flags)
