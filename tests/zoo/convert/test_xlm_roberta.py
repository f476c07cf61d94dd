"""XLM-R, for texts in many languages: its tokenizer in both forms and its tower give what transformers gives."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from flax import nnx

from twinreel.base.errors import UserError
from twinreel.data.text.tokenizer import load_tokenizer, tokenizer_from_files, tokenizer_from_meta, tokenizer_to_files
from twinreel.engine.keeping.transfer import fill
from twinreel.zoo.build import build
from twinreel.zoo.convert.convert import convert

GOLDEN = Path(__file__).parents[2] / "golden" / "weights" / "xlm_roberta"
GIVEN = json.loads((GOLDEN / "texts.json").read_text())
TEXTS = GIVEN["texts"][:-1]  # the last one spells special tokens, which transformers then makes of it


@pytest.fixture(params=["tokenizer.json", "sentencepiece.bpe.model"])
def folder(request, tmp_path):
    """The public folder with one of the two files of its tokenizer."""
    made = Path(shutil.copytree(GOLDEN, tmp_path / "xlmr"))
    for name in {"tokenizer.json", "sentencepiece.bpe.model"} - {request.param}:
        (made / name).unlink()
    return made


def test_ids_are_those_of_transformers(folder):
    tokenizer = load_tokenizer(folder)
    with np.load(GOLDEN / "io.npz") as wanted:
        ids, mask, _ = tokenizer.encode(TEXTS, context_length=GIVEN["length"])
        np.testing.assert_array_equal(ids, wanted["ids"][:-1])
        np.testing.assert_array_equal(mask, wanted["mask"][:-1])
        assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, tokenizer.vocab_size) == (0, 2, 1, 117)
    whole, _, _ = tokenizer.encode(["собака runs over the grass"], context_length=60)
    assert tokenizer.decode(whole[0]) == "собака runs over the grass"
    assert (tokenizer.id_of("<mask>"), tokenizer.id_of("<unk>"), tokenizer.id_of("nowhere")) == (116, 3, None)
    [inner], _, _ = tokenizer.encode(GIVEN["texts"][-1:], context_length=60)
    inside = inner[1 : np.flatnonzero(inner == 2)[0]].tolist()
    assert not {0, 1, 116} & set(inside) and (inner == 2).sum() == 1  # no text makes a special token


def test_the_tower_gives_the_tokens_of_transformers():
    made = convert(GOLDEN)
    model = build(made.spec, rngs=nnx.Rngs(0))
    fill(model, values=made.params)
    with np.load(GOLDEN / "io.npz") as wanted:
        ids, mask, hidden, pooled = (wanted[name][:-1] for name in ("ids", "mask", "hidden", "pooled"))
    tokens = np.asarray(model.text.tokens(ids, mask=mask))
    np.testing.assert_allclose(tokens[mask], hidden[mask], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.text(ids, mask=mask), pooled, rtol=1e-4, atol=1e-5)
    assert made.family == "bert" and made.spec.input.context_length == 24
    assert made.spec.tokenizer["kind"] == "tokenizers"


def test_the_tokenizer_travels_with_a_checkpoint_and_a_bundle(folder, tmp_path):
    tokenizer = load_tokenizer(folder)
    meta = json.loads(json.dumps(tokenizer.to_meta()))
    (tmp_path / "bundle").mkdir()
    written = json.loads(json.dumps(tokenizer_to_files(tokenizer, folder=tmp_path / "bundle")))
    wanted = tokenizer.encode(TEXTS, context_length=12)
    for other in (tokenizer_from_meta(meta), tokenizer_from_files(written, folder=tmp_path / "bundle")):
        for a, b in zip(wanted, other.encode(TEXTS, context_length=12), strict=True):
            np.testing.assert_array_equal(a, b)
        assert (other.pad_id, other.vocab_size) == (1, 117)


def test_other_families_with_a_file_of_that_name_are_refused(tmp_path):
    shutil.copy(GOLDEN / "sentencepiece.bpe.model", tmp_path)
    with pytest.raises(UserError, match=r"is of model_type ''; twinreel reads this file of XLM-R alone"):
        load_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "xlm-roberta"}')
    assert load_tokenizer(tmp_path).vocab_size == 117
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "CamembertTokenizer"}')
    with pytest.raises(UserError, match=r"tokenizer_class 'CamembertTokenizer'.*save the folder with tokenizer.json"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "XLMRobertaTokenizer"}')
    shutil.copy(
        Path(__file__).parents[2] / "golden/tokenizers/t5_slow/spiece.model", tmp_path / "sentencepiece.bpe.model"
    )
    with pytest.raises(UserError, match=r"begins with the pieces \('<pad>', '</s>', '<unk>'\), wanted XLM-R's"):
        load_tokenizer(tmp_path)
