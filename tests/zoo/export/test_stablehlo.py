"""Programs that run with JAX and NumPy alone, for any batch."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from exported_models import clip_spec, random_params, trained_clip
from jax import export as jax_export

from twinreel.base.errors import UserError
from twinreel.zoo.export.compare import built, encoded, random_inputs
from twinreel.zoo.export.export import ExportOptions, export
from twinreel.zoo.export.stablehlo import PLATFORMS, write_programs
from twinreel.zoo.load import locate

ALONE = """
import sys
sys.modules |= {"twinreel": None, "flax": None}  # importing them would fail
import numpy as np
from jax import export
folder = sys.argv[1]
given = dict(np.load(folder + "/in.npz"))
for side, names in (("video", ["video"]), ("text", ["ids", "mask"])):
    program = export.deserialize(open(f"{folder}/out/encode_{side}.stablehlo", "rb").read())
    params = dict(np.load(f"{folder}/out/encode_{side}.npz"))
    for rows in (1, 3):
        given[f"{side}{rows}"] = program.call(params, *(given[name][:rows] for name in names))
np.savez(folder + "/found.npz", **given)
"""


def test_programs_run_without_twinreel(tmp_path):
    bundle = trained_clip(tmp_path / "bundle")
    made = export(bundle, out=tmp_path / "out", options=ExportOptions(format="stablehlo"))
    assert [one.name for one in made.checks] == ["video embeddings", "text embeddings"]
    assert max(one.difference for one in made.checks) < 1e-6
    located = locate(bundle)
    inputs = random_inputs(located.spec, rows=3)
    np.savez(tmp_path / "in.npz", video=inputs["video"][0], ids=inputs["text"][0], mask=inputs["text"][1])
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    argv = [sys.executable, "-c", ALONE, str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    model = built(located.spec, located.params())
    with np.load(tmp_path / "found.npz") as found:
        for side, arrays in inputs.items():
            wanted = np.asarray(encoded(model, side, *arrays))
            np.testing.assert_allclose(found[f"{side}3"], wanted, atol=1e-6)
            np.testing.assert_allclose(found[f"{side}1"], wanted[:1], atol=1e-6)
    program = jax_export.deserialize(bytearray((tmp_path / "out" / "encode_video.stablehlo").read_bytes()))
    assert program.platforms == PLATFORMS and "b" in str(program.in_avals[-1].shape)
    assert (tmp_path / "out" / "encode_video.stablehlo").stat().st_size < 60_000  # parameters are not within
    spec = json.loads((tmp_path / "out" / "spec.json").read_text())
    assert spec["tokenizer"]["file"] == "tokenizer.json" and (tmp_path / "out" / "tokenizer.json").is_file()
    assert "export.deserialize" in (tmp_path / "out" / "README.md").read_text()


def test_vectors_of_frames_and_their_mask(tmp_path):
    tower = {"family": "features", "features": "clip", "input_width": 6, "width": 8, "over_time": "mean"}
    spec = clip_spec(embed_dim=None, tokenizer={})
    spec = spec.replace(towers={"video": tower})
    given = {"folder": tmp_path, "tokenizer": "public", "platforms": ["cpu"]}
    made = write_programs(spec, params=random_params(spec), **given)
    assert made.checks[0].difference < 1e-6 and "program.call(params, vectors, mask)" in made.usage
    assert any("vectors float32 [B,2,6]; mask bool [B,2]" in note for note in made.notes)


def test_a_model_with_a_head(tmp_path):
    spec = clip_spec(heads={"classify": {"kind": "linear", "labels": ["a", "b"]}})
    with pytest.raises(UserError, match="has the head classify, and export takes encoders"):
        write_programs(spec, params={}, folder=tmp_path, tokenizer="public", platforms=["cpu"])
