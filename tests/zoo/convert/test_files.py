"""Files of public models: shards, half-width floats, damaged files, pickles and what is no model at all."""

import json
import shutil
import sys

import ml_dtypes
import numpy as np
import pytest
from public_models import GOLDEN, source
from safetensors.numpy import load_file, save_file

from twinreel.base.errors import UserError
from twinreel.zoo.convert.convert import convert
from twinreel.zoo.convert.files import Tensors, find
from twinreel.zoo.load import locate

TOKENIZERS = GOLDEN.parent / "tokenizers"


@pytest.fixture
def clip(tmp_path):
    return source("clip/quick", tmp_path / "clip")


def test_shards_are_read_as_one(clip):
    whole = convert(clip).params
    tensors = load_file(clip / "model.safetensors")
    (clip / "model.safetensors").unlink()
    names, where = sorted(tensors), {}
    for number, part in enumerate((names[::2], names[1::2])):
        file = f"model-{number}.safetensors"
        save_file({name: tensors[name] for name in part}, clip / file)
        where |= dict.fromkeys(part, file)
    (clip / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    for path, value in convert(clip).params.items():
        np.testing.assert_array_equal(value, whole[path], err_msg=path)
    (clip / "model-1.safetensors").unlink()
    with pytest.raises(UserError, match=r"names 2 shards, of which model-1\.safetensors are missing"):
        convert(clip)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_width_floats_become_float32(clip, dtype):
    tensors = load_file(clip / "model.safetensors")
    save_file(
        {k: v.astype(dtype) if v.dtype == np.float32 else v for k, v in tensors.items()}, clip / "model.safetensors"
    )
    found = Tensors(clip, name="clip")["visual_projection.weight"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, tensors["visual_projection.weight"].astype(dtype).astype(np.float32))


@pytest.mark.parametrize("how", ["cut short", "header too large", "not one"])
def test_damaged_safetensors(clip, how):
    path = clip / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes({"cut short": data[:-100], "header too large": b"\xff" * 8 + data[8:], "not one": b"<html>"}[how])
    with pytest.raises(UserError, match=r"model\.safetensors is no whole safetensors file.*fetch it again"):
        convert(clip)


def test_a_pickle_is_refused_with_the_way_out(clip):
    (clip / "model.safetensors").rename(clip / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"(?s)pickle.*torch\.load\('pytorch_model\.bin'.*'pytorch_model\.safetensors'"):
        convert(clip)


def test_pictures_are_no_model(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"has no weights: wanted \*\.safetensors.*found a\.jpg"):
        convert(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        convert(tmp_path / "gone")


def test_several_files_of_weights(clip):
    (clip / "other.safetensors").write_bytes((clip / "model.safetensors").read_bytes())
    with pytest.raises(UserError, match=r"several files of weights \(model\.safetensors, other\.safetensors\)"):
        convert(clip)


def test_names_of_the_hub(monkeypatch, tmp_path):
    with pytest.raises(UserError, match=r"write hf:ORGANISATION/NAME\[@REVISION\]"):
        find("hf:clip")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match="pip install huggingface_hub"):
        find("hf:openai/clip-vit-base-patch32")


def test_the_hub_is_asked_for_a_revision_and_safe_files(monkeypatch, tmp_path):
    asked, snapshot = {}, tmp_path / "snapshots" / "0123abc"

    class Hub:
        @staticmethod
        def snapshot_download(repository, **options):
            asked.update(repository=repository, **options)
            if repository == "a/offline":
                raise OSError("no network")
            return str(snapshot)

    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub)
    found = find("hf:a/b@refs/pr/4")
    assert (found.folder, found.revision) == (snapshot, "0123abc")  # the commit, not the name of a branch that moves
    assert asked["repository"] == "a/b" and asked["revision"] == "refs/pr/4"
    assert not {"*.bin", "*.pt", "*.pth"} & set(asked["allow_patterns"]) and "*.safetensors" in asked["allow_patterns"]
    with pytest.raises(UserError, match=r"cannot be fetched.*no network.*give their folder"):
        find("hf:a/offline")


@pytest.mark.parametrize("family", ["clip/quick", "siglip", "bert"])
def test_a_tokenizer_with_ids_beyond_the_embeddings(family, tmp_path):
    folder = source(family, tmp_path / "model")
    for name in ("vocab.json", "merges.txt", "spiece.model", "tokenizer.model"):
        (folder / name).unlink(missing_ok=True)
    shutil.copy(TOKENIZERS / "gemma_fast" / "tokenizer.json", folder)
    shutil.copy(TOKENIZERS / "gemma_fast" / "tokenizer_config.json", folder)
    with pytest.raises(UserError, match=r"has 600 ids, its text tower embeddings for \d+: .*own tokenizer files"):
        convert(folder)


def test_a_folder_of_pictures_is_no_model(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"a bundle \(spec\.json\), or a folder of public weights .*It holds a\.jpg"):
        locate(tmp_path)
