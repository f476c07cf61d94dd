"""A public language model with its tokenizer: from strings to strings."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from flax import nnx
from language_models import GOLDEN, WORDS, gpt2_folder

import twinreel
from twinreel.base.errors import UserError
from twinreel.encode.embed.encoder import load as load_encoder
from twinreel.encode.predict.writer import Writer
from twinreel.models.generate import GenerateOptions, generate
from twinreel.zoo.convert.command import main
from twinreel.zoo.load import load_model, locate


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return gpt2_folder(tmp_path_factory.mktemp("lm") / "gpt2")


@pytest.fixture(scope="module")
def writer(folder):
    return twinreel.load(folder)


def ids_of(text):
    return [3 + WORDS.index(word) for word in text.split()]


def test_texts_are_those_of_the_decoder(folder, writer):
    """By hand: each prompt alone, without padding, and ids from the list of words."""
    decoder = load_model(locate(folder)).decoder
    write = nnx.jit(generate, static_argnames=("options", "eos_id", "pad_id"))
    prompts = ["w1 w2 w3", "w30"]
    for options in ({"max_tokens": 5}, {"max_tokens": 5, "method": "beam", "beams": 2}):
        found = writer.write(prompts, **options)
        for prompt, texts in zip(prompts, found, strict=True):
            given = {"prompt": np.array([ids_of(prompt)], np.int32), "eos_id": 0, "pad_id": 1}
            made = write(decoder, options=GenerateOptions(**options), **given)
            for rank, one in enumerate(texts):
                tokens = made.tokens[0, rank, : int(made.lengths[0, rank])].tolist()
                assert one["text"] == "".join(" " + ["<unk>", *WORDS][i - 2] for i in tokens if i >= 2)
                assert one["score"] == pytest.approx(float(made.scores[0, rank]), abs=1e-4)


def test_given_texts_are_all_that_is_written(writer):
    texts = ["w1", "w1 w2", "w20 w21 w22"]
    [found] = writer.write(["w5"], among=texts, method="beam", beams=4, max_tokens=4)
    assert sorted(one["text"] for one in found) == sorted(texts)
    scores = [one["score"] for one in found]
    assert scores == sorted(scores, reverse=True)
    [[greedy]] = writer.write(["w5"], among=texts, max_tokens=4)
    assert greedy["text"] in texts


def test_samples_depend_on_seed_and_prompt_number_alone(writer):
    prompts = ["w1 w2", "w3", "w1 w2"]
    given = {"method": "sample", "max_tokens": 6, "temperature": 2.0}
    whole = writer.write(prompts, seed=1, **given)
    assert writer.write(prompts, seed=1, batch_size=1, **given) == whole
    assert whole[0] != whole[2] and writer.write(prompts, seed=2, **given) != whole


def test_a_bundle_writes_the_same(folder, writer, tmp_path):
    assert main([str(folder), "--out", str(tmp_path / "bundle")]) == 0
    again = twinreel.load(tmp_path / "bundle")
    assert again.write(["w1 w2", ""], max_tokens=5) == writer.write(["w1 w2", ""], max_tokens=5)


def test_what_does_not_fit_is_told(folder, writer, tmp_path):
    with pytest.raises(UserError, match="has 30 tokens, and with max_tokens=3 more it does not fit into the context"):
        writer.write([" ".join(["w1"] * 30)], max_tokens=3)
    with pytest.raises(UserError, match="'' has 1 tokens, and with max_tokens=32 more it does not fit"):
        writer.write([""], max_tokens=32)
    assert writer.write([]) == []
    with pytest.raises(UserError, match=r"write \['w1'\]"):
        writer.write("w1")
    with pytest.raises(UserError, match="did you mean 'max_tokens'"):
        writer.write(["w1"], max_token=3)
    with pytest.raises(UserError, match=r"has 3 tokens, and with the end token it does not fit into max_tokens=3"):
        writer.write(["w1"], among=["w1 w2 w3"], max_tokens=3)
    with pytest.raises(UserError, match="is a decoder alone and has no joint space"):
        load_encoder(folder)
    with pytest.raises(UserError, match="has no tokenizer, so it cannot read a prompt"):
        twinreel.load(GOLDEN / "llama")
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    (other / "tokenizer_config.json").write_text("{}")
    with pytest.raises(UserError, match="does not say which token ends a text; add eos_token"):
        twinreel.load(other)
    located = locate(folder)
    small = located.spec.replace(towers={"decoder": {**located.spec.towers["decoder"], "vocab_size": 30}})
    with pytest.raises(UserError, match="has 39 tokens and the decoder 30"):
        Writer(spec=small, model=load_model(located))


def test_blanks_belong_to_the_text_also_where_a_tokenizer_marks_them(folder, tmp_path):
    """A tokenizer of Llama's kind: a blank becomes "▁", one is put before a text, and decoding strips it."""
    other = Path(shutil.copytree(folder, tmp_path / "llama"))
    names = ["<|end|>", "<pad>", "<unk>", "▁", *["▁a", "▁b", "▁c", "a", "b", "c", "."]]
    merges = [("▁", letter) for letter in "abc"]
    backend = tokenizers.Tokenizer(
        tokenizers.models.BPE({n: i for i, n in enumerate(names)}, merges, unk_token="<unk>")
    )
    normalizers, decoders = tokenizers.normalizers, tokenizers.decoders
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    backend.add_special_tokens(names[:3])
    backend.save(str(other / "tokenizer.json"))
    writer = twinreel.load(other)
    found = writer.write(["a b"], among=[" a", " c b", " b"], method="beam", beams=3, max_tokens=4)[0]
    assert sorted(one["text"] for one in found) == [" a", " b", " c b"]
    assert writer._tokens_of([" c b"], room=8) == {(names.index("▁c"), names.index("▁b")): " c b"}
    assert writer._after([names.index("▁a")], tokens=(names.index("▁b"),)) == " b"
