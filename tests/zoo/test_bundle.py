"""Bundles: what is written comes back, other libraries read the files, damage is named."""

import json
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from flax import nnx
from safetensors import safe_open

from twinreel.base.errors import UserError
from twinreel.base.section import section
from twinreel.data.options import InputSpec
from twinreel.data.text.tokenizer import load_tokenizer, tokenizer_from_meta
from twinreel.engine.step.state import split_model
from twinreel.zoo.build import build
from twinreel.zoo.bundle import WEIGHTS, is_bundle, read_params, read_spec, write_bundle
from twinreel.zoo.load import load_model, locate
from twinreel.zoo.spec import ModelOptions

GOLDEN = Path(__file__).parents[1] / "golden" / "tokenizers"
MODEL = {
    "embed_dim": 4,
    "video": {"image_size": 16, "patch": 8, "width": 8, "depth": 1, "heads": 2, "temporal_depth": 1},
    "text": {"width": 8, "depth": 1, "heads": 2},
}


def model_and_spec(tokenizer):
    options = section(ModelOptions, MODEL, name="model")
    spec = options.spec(input=InputSpec(num_frames=2, context_length=8), vocab_size=tokenizer.vocab_size)
    spec = spec.replace(tokenizer=tokenizer.to_meta(), origin={"made_by": "pretrain"})
    return build(spec, rngs=nnx.Rngs(0)), spec


@pytest.fixture(scope="module", params=["clip_fast", "gemma_slow"])
def written(request, tmp_path_factory):
    tokenizer = load_tokenizer(GOLDEN / request.param)
    model, spec = model_and_spec(tokenizer)
    params = {path: np.asarray(value) for path, value in split_model(model).items()}
    folder = write_bundle(tmp_path_factory.mktemp("bundles") / "mine", spec=spec, params=params)
    return folder, spec, params, tokenizer


def test_a_bundle_comes_back_whole(written):
    folder, spec, params, tokenizer = written
    assert is_bundle(folder) and read_spec(folder) == spec
    again = read_params(folder)
    assert again.keys() == params.keys() and all((again[path] == params[path]).all() for path in params)
    located = locate(folder)
    assert located.spec == spec and located.meta == {}
    for path, value in split_model(load_model(located)).items():
        np.testing.assert_array_equal(value, params[path])
    texts = ["a dog jumps", "über 3 cats"]
    for got, want in zip(
        tokenizer_from_meta(dict(read_spec(folder).tokenizer)).encode(texts, context_length=12),
        tokenizer.encode(texts, context_length=12),
        strict=True,
    ):
        np.testing.assert_array_equal(got, want)


def test_other_libraries_read_its_files(written):
    folder, _, params, tokenizer = written
    with safe_open(folder / WEIGHTS, framework="numpy") as file:
        assert set(file.keys()) == set(params)
    spec = json.loads((folder / "spec.json").read_text(encoding="utf-8"))
    assert spec["towers"]["video"]["patch"] == 8
    assert sorted(path.name for path in folder.iterdir()) == sorted(["spec.json", WEIGHTS, spec["tokenizer"]["file"]])
    if spec["tokenizer"]["file"] == "tokenizer.json":
        theirs = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        assert theirs.get_vocab_size() <= tokenizer.vocab_size


def test_nothing_is_overwritten_or_left_half_written(written, tmp_path):
    folder, spec, params, _ = written
    with pytest.raises(UserError, match="is not empty; give another folder"):
        write_bundle(folder, spec=spec, params=params)
    with pytest.raises(Exception, match="Unknown dtype"):
        write_bundle(tmp_path / "bad", spec=spec, params={"a": np.array(["not-an-array"])})
    assert list(tmp_path.iterdir()) == []


def test_damage_is_named(written, tmp_path):
    folder, *_ = written
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in folder.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    (broken / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:100])
    with pytest.raises(UserError, match=r"model\.safetensors cannot be read: .*incomplete or damaged"):
        read_params(broken)
    (broken / "spec.json").write_text("{")
    with pytest.raises(UserError, match=r"spec\.json cannot be read"):
        read_spec(broken)
    with pytest.raises(UserError, match="no readable checkpoint"):
        locate(tmp_path)


def test_arrays_saved_in_a_run_do_not_make_it_public_weights(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    np.savez(tmp_path / "embeddings.npz", text=np.zeros((1, 2)), video=np.zeros((1, 2)))  # evaluate RUN --out RUN
    with pytest.raises(UserError, match="no readable checkpoint"):
        locate(tmp_path)
