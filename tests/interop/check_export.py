"""Exported folders give the embeddings of the model, in live transformers and open_clip; `make test-interop` runs it.

The libraries are in the Python that TWINREEL_INTEROP_PYTHON names, which needs no twinreel. A library that is missing
there is a failure, never a skip.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from exported_models import trained_clip
from public_models import source, unit

from twinreel.data.text.clean import text_cleaner
from twinreel.data.text.tokenizer import tokenizer_from_meta
from twinreel.data.transforms.frames import Frames
from twinreel.data.transforms.preprocess import parse_video
from twinreel.zoo.export.compare import built, clip_shape, encoded, random_inputs
from twinreel.zoo.export.export import ExportOptions, export
from twinreel.zoo.export.onnx_programs import libraries
from twinreel.zoo.load import locate

PYTHON = os.environ.get("TWINREEL_INTEROP_PYTHON", sys.executable)
ONNX = os.environ.get("TWINREEL_ONNX", "")  # a folder with jax2onnx, onnx and onnxruntime, "" if they are installed
ATOL = 1e-5  # of unit rows
TEXTS = ["a dog runs", "A Dog, runs!  an", "dog" * 9]

CASES = {
    "hf": ["clip/quick", "clip/exact", "siglip", "videoprism/hf_lvt", "open_clip/native", "open_clip/siglip_exact",
           "vit", "dinov2", "dinov2_giant_form", "bert", "trained"],
    "open_clip": ["clip/quick", "open_clip/native", "open_clip/quick", "trained"],
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _libraries_are_there():
    found = subprocess.run([PYTHON, "-c", "import open_clip, PIL, torch, transformers"], capture_output=True, text=True)
    if found.returncode:
        pytest.fail(f"{PYTHON} lacks a library; set TWINREEL_INTEROP_PYTHON or install '.[interop]': {found.stderr}")


@pytest.mark.parametrize(("format", "name"), [(key, name) for key, names in CASES.items() for name in names])
def test_the_public_library_gives_our_embeddings(format, name, tmp_path):
    model_folder = trained_clip(tmp_path / "model") if name == "trained" else source(name, tmp_path / "model")
    export(model_folder, out=tmp_path / "out", options=ExportOptions(format=format))
    located = locate(model_folder)
    spec, model = located.spec, built(located.spec, located.params())
    given = inputs(spec)
    found = run(format, tmp_path / "out", given, tmp_path)
    if format == "hf":  # neither missing nor unexpected tensors
        complaints = json.loads(str(found["complaints"]))
        assert not any(complaints.values()), complaints
    if "frames" in found:
        single = given["frames"].reshape(-1, 1, *given["frames"].shape[2:])
        np.testing.assert_allclose(unit(found["frames"]), encoded(model, "video", single), atol=ATOL)
        clip = found["frames"].reshape(*given["frames"].shape[:2], -1).mean(axis=1)
        np.testing.assert_allclose(unit(clip), encoded(model, "video", given["frames"]), atol=ATOL)
    if "video" in found:
        np.testing.assert_allclose(unit(found["video"]), encoded(model, "video", given["frames"]), atol=ATOL)
    if "text" in found:
        np.testing.assert_allclose(unit(found["text"]), encoded(model, "text", given["ids"], given["mask"]), atol=ATOL)
    if "text_tokens" in found:
        tokens = model.text.tokens(given["ids"], mask=given["mask"])
        np.testing.assert_allclose(found["text_tokens"][given["mask"]], np.asarray(tokens)[given["mask"]], atol=1e-4)
    if "text_ids" in found:
        cleaned = [text_cleaner(spec.input.text)(text) for text in TEXTS]
        tokenizer = tokenizer_from_meta(dict(spec.tokenizer))
        ids = tokenizer.encode(cleaned, context_length=spec.input.context_length)[0]
        np.testing.assert_array_equal(found["text_ids"], ids)
    if "picture" in found:
        frames = Frames.of_video(given["picture"][None])
        for operation in parse_video(spec.input.eval_video, field="config.data.eval_video").operations:
            frames = operation(frames, np.zeros(0, np.float32))
        frame = frames.video()[0]
        mean, std = (np.float32(values) for values in (spec.input.pixel_mean, spec.input.pixel_std))
        wanted = (frame / np.float32(255) - mean) / std
        np.testing.assert_allclose(found["picture"].transpose(1, 2, 0), wanted, atol=1.01 / 255 / std.min())


@pytest.mark.filterwarnings("ignore")  # of jax2onnx
@pytest.mark.parametrize("name", ["trained", "siglip", "videoprism/hf_lvt"])
def test_onnx_runtime_gives_our_embeddings_for_any_batch(name, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, *([ONNX] if ONNX else [])])
    _, _, onnxruntime = libraries()
    model_folder = trained_clip(tmp_path / "model") if name == "trained" else source(name, tmp_path / "model")
    made = export(model_folder, out=tmp_path / "out", options=ExportOptions(format="onnx"))
    assert max(one.difference for one in made.checks) < ATOL
    located = locate(model_folder)
    model = built(located.spec, located.params())
    for side, arrays in random_inputs(located.spec, rows=2).items():
        session = onnxruntime.InferenceSession(str(tmp_path / "out" / f"encode_{side}.onnx"))
        wanted = np.asarray(encoded(model, side, *arrays))
        for rows in (1, 2):
            given = {one.name: x[:rows] for one, x in zip(session.get_inputs(), arrays, strict=True)}
            np.testing.assert_allclose(session.run(None, given)[0], wanted[:rows], atol=ATOL)


def inputs(spec):
    rng = np.random.default_rng(5)
    given = {"texts": np.array(TEXTS), "picture": rng.integers(0, 256, (40, 56, 3), dtype=np.uint8)}
    if "video" in spec.towers:
        given["frames"] = rng.integers(0, 256, (2, *clip_shape(spec)), dtype=np.uint8)
    length = spec.input.context_length
    words = spec.towers.get("text", {}).get("vocab_size", 5)
    given["ids"] = rng.integers(0, words, (2, length), dtype=np.int32)
    given["mask"] = np.ones((2, length), bool)
    if spec.towers.get("text", {}).get("pool") in ("cls", "mean", "pooler"):
        given["mask"] = np.arange(length)[None] < np.array([[3], [length - 1]])
    return given


def run(format, folder, given, tmp_path):
    np.savez(tmp_path / "in.npz", **given)
    script = Path(__file__).parent / "load_public.py"
    argv = [PYTHON, str(script), format, str(folder), str(tmp_path / "in.npz"), str(tmp_path / "out.npz")]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if "TWINREEL_INTEROP_PATH" in os.environ:  # further libraries
        environment["PYTHONPATH"] = os.environ["TWINREEL_INTEROP_PATH"]
    done = subprocess.run(argv, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(tmp_path / "out.npz") as file:
        return {key: file[key] for key in file.files}
