"""The verb `convert`, and that everything which takes a model takes public weights."""

import json

import numpy as np
import pytest
from public_models import outputs, source, unit

import twinreel
from twinreel.base.errors import UserError
from twinreel.zoo.convert.command import main
from twinreel.zoo.convert.convert import FAMILIES


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return source("clip/quick", tmp_path_factory.mktemp("public") / "clip")


def test_a_bundle_gives_the_public_embeddings(clip, tmp_path, capsys):
    bundle = tmp_path / "bundle"
    assert main([str(clip), "--out", str(bundle)]) == 0
    assert "note" not in capsys.readouterr().out  # nothing was left to say
    assert sorted(path.name for path in bundle.iterdir()) == ["model.safetensors", "spec.json", "tokenizer.json"]
    wanted, encoder = outputs("clip/quick"), twinreel.load(bundle)
    np.testing.assert_allclose(encoder.encode_video_arrays(wanted["pixels"][:, None]), unit(wanted["image"]), atol=1e-5)
    assert encoder.spec.origin["source"] == str(clip)
    changed = (bundle / "model.safetensors").stat().st_mtime_ns
    assert main([str(clip), "--out", str(bundle)]) == 0  # the same command again does nothing
    assert (bundle / "model.safetensors").stat().st_mtime_ns == changed
    with pytest.raises(UserError, match=r"is a bundle of .*clip'; give another --out"):
        main(["elsewhere", "--out", str(bundle)])


def test_a_folder_of_public_weights_is_a_model(clip, tmp_path):
    """Strings go through the tokenizer of the folder: ids as transformers makes them are in the golden file's form."""
    encoder = twinreel.load(clip)
    texts = ["a dog runs", "RUNS  a dog!"]
    found = encoder.encode_text(texts)
    ids, mask, _ = encoder.tokenizer.encode([text.lower() for text in texts], context_length=16)
    np.testing.assert_array_equal(found, encoder.encode_text_ids(ids, mask=mask))
    assert ids[0, 0] == ids.max() - 1 and ids.max() == encoder.tokenizer.vocab_size - 1


def test_an_encoder_alone_says_what_it_is_for(tmp_path):
    with pytest.raises(UserError, match=r"is a text encoder alone.*pretrain --init"):
        twinreel.load(source("bert", tmp_path / "bert"))


def test_list_names_every_family(capsys):
    assert main(["--list"]) == 0
    shown = capsys.readouterr().out
    assert all(f"{family.name}  ({family.licence})" in shown for family in FAMILIES.values())
    assert main(["--list", "--json"]) == 0
    assert [row["family"] for row in json.loads(capsys.readouterr().out)] == list(FAMILIES)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "give SOURCE and --out BUNDLE"),
        (["x", "--out", "y", "--option", "colour"], "'colour': wanted NAME=VALUE"),
        (["gone", "--out", "y"], "'gone' does not exist"),
    ],
)
def test_mistakes(argv, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        main(argv)
    assert not any(tmp_path.iterdir())


def test_an_option_that_the_family_lacks(clip, tmp_path):
    with pytest.raises(UserError, match=r"option of the family 'clip'.*colour"):
        main([str(clip), "--out", str(tmp_path / "y"), "--option", "colour=red"])
