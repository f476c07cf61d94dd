"""`bench compare_towers` on a tiny CLIP whose public side is played by a script with the numbers of the public code."""

import sys

import numpy as np
import pytest
from public_models import GOLDEN, outputs

from twinreel.base.errors import UserError
from twinreel.bench.commands.compare_towers import compare, main
from twinreel.bench.sides.towers import error

PUBLIC = """#!{python}
import json, pathlib, shutil, sys
import numpy as np
flags = dict(flag.lstrip("-").split("=", 1) for flag in sys.argv[2:])
folder = pathlib.Path(flags["folder"])
for file in pathlib.Path({golden!r}).iterdir():
    if file.name != "io.npz":
        shutil.copy(file, folder)
shutil.copy({io!r}, folder / "io.npz")
print(json.dumps({{"what": "played", "parameters": 1, "towers": ["video", "text"]}}), flush=True)
for line in sys.stdin:
    print(2.0, 4.0, 1024, flush=True)
"""


@pytest.fixture
def played(tmp_path):
    wanted = outputs("clip/quick")
    video = wanted["pixels"][:2][None]
    io = tmp_path / "io.npz"
    np.savez(
        io, video=video, text=wanted["ids"], video_out=wanted["image"][:2].mean(axis=0)[None], text_out=wanted["text"]
    )
    script = tmp_path / "python"
    script.write_text(PUBLIC.format(python=sys.executable, golden=str(GOLDEN / "clip/quick"), io=str(io)))
    script.chmod(0o755)
    return str(script)


def test_both_sides_take_turns(played):
    video, text = compare("clip-b32", rows=1, frames=2, rounds=2, torch_python=played)
    for row, tower in ((video, "video"), (text, "text")):
        assert (row["case"], row["tower"], row["public"]) == ("clip-b32", tower, "played")
        assert 0 <= row["error"] < 1e-5 and row["parameters"] > 10_000
        for mode in ("forward", "train"):
            assert row[f"{mode}_cpu_ratio"] == pytest.approx(row[f"{mode}_cpu_s"] / 4.0)
        assert row["peak_bytes"] > 2**20 and row["public_peak_bytes"] == 1024


def test_the_error_is_that_of_unit_rows():
    x = np.array([[3.0, 4.0], [0.0, 2.0]])
    assert error(5 * x, wanted=x) == pytest.approx(0, abs=1e-12)
    assert error(x, wanted=np.array([[4.0, 3.0], [0.0, 1.0]])) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--cases", "clip-b31"], r"case in --cases 'clip-b31'; did you mean 'clip-b32'"),
        (["--rounds", "0"], r"--rounds must be at least 1, got 0"),
        (["--torch_python", "/no/such/python"], r"cannot be run: .*'/no/such/python'; --torch_python names a Python"),
    ],
)
def test_mistakes(flags, message):
    with pytest.raises(UserError, match=message):
        main(flags)


def test_a_side_that_ends_is_named(tmp_path):
    script = tmp_path / "python"
    script.write_text(f"#!{sys.executable}\nimport sys; sys.exit(3)\n")
    script.chmod(0o755)
    with pytest.raises(UserError, match=r"the public side of clip-b32 ended with status 3.*transformers"):
        compare("clip-b32", rows=1, frames=2, rounds=1, torch_python=str(script))
