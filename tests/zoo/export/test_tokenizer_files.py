"""Tokenizer files: those that transformers reads, or an error."""

import dataclasses
import json

import pytest
from exported_models import clip_spec
from public_models import GOLDEN, source

from twinreel.base.errors import UserError
from twinreel.data.text.families import read_folder
from twinreel.data.text.pieces import SentencePieceTokenizer
from twinreel.data.text.tokenizer import WordTokenizer
from twinreel.zoo.convert.convert import convert
from twinreel.zoo.export.tokenizer_files import write_tokenizer

TEXTS = ["a dog runs", "A DOG,  runs!", "ünïcode 犬", "", "don't 12"]


def write(spec, folder, mode="public"):
    folder.mkdir()
    return write_tokenizer(spec, folder=folder, mode=mode)


def test_clip_is_there_in_both_forms(tmp_path):
    spec = clip_spec()
    assert write(spec, tmp_path / "whole") == []
    wanted = read_folder(GOLDEN / "clip" / "exact").encode(TEXTS, context_length=12)[0]
    assert (read_folder(tmp_path / "whole").encode(TEXTS, context_length=12)[0] == wanted).all()
    (tmp_path / "whole" / "tokenizer.json").unlink()  # vocab.json and merges.txt, which older readers take
    assert (read_folder(tmp_path / "whole").encode(TEXTS, context_length=12)[0] == wanted).all()
    about = json.loads((tmp_path / "whole" / "tokenizer_config.json").read_text())
    assert about["tokenizer_class"] == "CLIPTokenizer" and about["model_max_length"] == 12
    assert about["pad_token"] == about["eos_token"] == "<|endoftext|>"


def test_lower_casing_goes_into_the_file(tmp_path):
    spec = clip_spec()
    lowered = spec.replace(input=dataclasses.replace(spec.input, text="lower"))
    assert write(lowered, tmp_path / "lower") == []
    assert "Lowercase" in (tmp_path / "lower" / "tokenizer.json").read_text()
    cleaned = spec.replace(input=dataclasses.replace(spec.input, text="canonicalize"))
    (note,) = write(cleaned, tmp_path / "other")
    assert "cleaned by 'canonicalize' before" in note


def test_siglip_keeps_its_pieces(tmp_path):
    spec = convert(source("siglip", tmp_path / "siglip")).spec
    assert write(spec, tmp_path / "out") == []
    assert (tmp_path / "out" / "spiece.model").read_bytes() == (tmp_path / "siglip" / "spiece.model").read_bytes()
    assert read_folder(tmp_path / "out").to_meta() == spec.tokenizer
    uncleaned = spec.replace(input=dataclasses.replace(spec.input, text=""))
    assert "not cleaned" in write(uncleaned, tmp_path / "uncleaned")[0]


@pytest.fixture(scope="module")
def trained():
    return SentencePieceTokenizer.train(["a dog runs", "two cats sleep"], vocab_size=320)


def test_a_tokenizer_that_pretrain_made(trained, tmp_path):
    spec = clip_spec(tokenizer=trained.to_meta())
    with pytest.raises(UserError, match=r"SentencePiece \(begin token: True.*--tokenizer own.*none.*stablehlo"):
        write(spec, tmp_path / "public")
    (note,) = write(spec, tmp_path / "own", mode="own")
    assert "tokenizer.model (add_bos=True, add_eos=True, pad_id=0)" in note
    assert read_folder(tmp_path / "own").to_meta() == trained.to_meta()
    (note,) = write(spec, tmp_path / "none", mode="none")
    assert "token ids" in note and not list((tmp_path / "none").iterdir())


def test_a_list_of_words_and_a_foreign_vocabulary(tmp_path):
    with pytest.raises(UserError, match=r"list of word vectors.*--tokenizer own"):
        write(clip_spec(tokenizer=WordTokenizer(["dog", "cat"]).to_meta()), tmp_path / "words")
    with pytest.raises(UserError, match=r"520 ids.*vocab_size=100.*belongs to another model"):
        write(clip_spec(text={"vocab_size": 100}), tmp_path / "foreign")
