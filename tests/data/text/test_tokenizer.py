"""How tokenizers are named, found and refused; lengths and truncation against loops."""

import json
import shutil
import types
from pathlib import Path

import numpy as np
import pytest
import tokenizers

from twinreel.base.errors import UserError
from twinreel.data.text.clean import text_cleaner
from twinreel.data.text.hf import HfTokenizer
from twinreel.data.text.lengths import token_lengths, truncation_note
from twinreel.data.text.pieces import SentencePieceTokenizer
from twinreel.data.text.tokenizer import load_tokenizer, tokenizer_from_meta

GOLDEN = Path(__file__).parents[2] / "golden" / "tokenizers"
TEXTS = ["", "a dog", "a man runs across the street " * 5, "a café owner"]


def copy(name: str, to: Path) -> Path:
    return Path(shutil.copytree(GOLDEN / name, to / name))


@pytest.mark.parametrize("name,kind", [("clip_slow", HfTokenizer), ("t5_slow", SentencePieceTokenizer)])
def test_a_folder_and_the_file_in_it_name_the_same(name, kind, tmp_path):
    assert isinstance(load_tokenizer(GOLDEN / name), kind)
    one, other = load_tokenizer(GOLDEN / "clip_fast"), load_tokenizer(GOLDEN / "clip_fast" / "tokenizer.json")
    np.testing.assert_array_equal(*(t.encode(TEXTS, context_length=9)[0] for t in (one, other)))


def test_a_bare_model_file_goes_by_its_own_tokens():
    tokenizer = load_tokenizer(GOLDEN / "gemma_slow" / "tokenizer.model")
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (2, 1, 0)
    family = load_tokenizer(GOLDEN / "gemma_slow")
    assert (family.bos_id, family.eos_id) == (2, -1), "Gemma's class adds no end token"


def test_settings_of_the_folder_count(tmp_path):
    folder = copy("gemma_slow", tmp_path)
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "GemmaTokenizerFast", "add_bos_token": False, "add_eos_token": True})
    )
    tokenizer = load_tokenizer(folder)
    assert (tokenizer.bos_id, tokenizer.eos_id) == (-1, 1)
    folder = copy("bert_slow", tmp_path)
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False}))
    cased, uncased = load_tokenizer(folder), load_tokenizer(GOLDEN / "bert_slow")
    assert cased.encode(["A"], context_length=9)[0].tolist() != uncased.encode(["A"], context_length=9)[0].tolist()
    folder = copy("clip_fast", tmp_path)
    (folder / "special_tokens_map.json").write_text(json.dumps({"pad_token": {"content": "!"}}))
    (folder / "tokenizer_config.json").unlink()
    assert load_tokenizer(folder).pad_id == json.loads((GOLDEN / "clip_slow/vocab.json").read_text())["!"]


def test_the_hub_is_asked_for_tokenizer_files_only(monkeypatch):
    asked = []

    def snapshot_download(repository, *, revision, allow_patterns, local_files_only):
        assert revision is None
        asked.append((repository, allow_patterns, local_files_only))
        return str(GOLDEN / "bert_fast")

    hub = types.SimpleNamespace(snapshot_download=snapshot_download)
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", hub)
    assert load_tokenizer("hf:someone/something").vocab_size == load_tokenizer(GOLDEN / "bert_fast").vocab_size
    assert asked[0][0] == "someone/something" and "tokenizer.json" in asked[0][1]
    assert not any(pattern.endswith((".bin", ".safetensors", "*")) for pattern in asked[0][1])
    load_tokenizer("hf:someone/something", fetch=False)
    assert [local_files_only for *_, local_files_only in asked] == [False, True]
    with pytest.raises(UserError, match=r"write hf:ORGANISATION/NAME\[@REVISION\]"):
        load_tokenizer("hf:something")

    def offline(*_, **__):
        raise OSError("no network")

    hub.snapshot_download = offline
    with pytest.raises(UserError, match="no network"):
        load_tokenizer("hf:someone/something")
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(UserError, match="pip install huggingface_hub"):
        load_tokenizer("hf:someone/something")


def spoil(folder: Path, how: str) -> Path:
    """Make a folder with a fault."""
    folder.mkdir()
    name, text = {
        "empty": ("readme.txt", "nothing"),
        "not json": ("tokenizer.json", "{"),
        "no tokenizer": ("tokenizer.json", '{"a": 1}'),
        "not clip": ("vocab.json", '{"a": 0}'),
        "no specials": ("vocab.txt", "a\nb\n"),
        "not utf-8": ("vocab.txt", "caf\udce9"),
    }[how]
    (folder / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    (folder / "merges.txt").write_text("#version: 0.2\na b\n")
    return folder


@pytest.mark.parametrize(
    "how,match",
    [
        ("empty", "no tokenizer that twinreel knows"),
        ("not json", "no tokenizer.json"),
        ("no tokenizer", "no tokenizer.json"),
        ("not clip", "it is not CLIP's"),
        ("no specials", r"no special token '\[UNK\]'"),
        ("not utf-8", "not UTF-8"),
    ],
)
def test_faulty_folders_are_named(how, match, tmp_path):
    with pytest.raises(UserError, match=match):
        load_tokenizer(spoil(tmp_path / "t", how))


def test_other_faults_are_named(tmp_path):
    folder = copy("t5_slow", tmp_path)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer"}))
    with pytest.raises(UserError, match=r"LlamaTokenizer.*T5"):
        load_tokenizer(folder)
    folder = copy("clip_slow", tmp_path)
    (folder / "added_tokens.json").write_text('{"<new>": 900}')
    with pytest.raises(UserError, match="adds 1 tokens"):
        load_tokenizer(folder)
    (folder / "added_tokens.json").unlink()
    (folder / "merges.txt").write_text("abc\n")
    with pytest.raises(UserError, match="no merge of two pieces"):
        load_tokenizer(folder)
    with pytest.raises(UserError, match=r"does not exist.*hf:"):
        load_tokenizer(tmp_path / "none")
    with pytest.raises(UserError, match="'bert'"):
        tokenizer_from_meta({"kind": "bert"})
    bare = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    with pytest.raises(UserError, match="no special token before or after"):
        HfTokenizer(bare.to_str())


def test_a_checkpoint_from_before_the_first_release_is_refused():
    meta = load_tokenizer(GOLDEN / "gemma_slow" / "tokenizer.model").to_meta()
    old = {"kind": "sentencepiece", "model_base64": meta["model_base64"]}
    with pytest.raises(UserError, match=r"has no add_bos, add_eos, pad_id: .*train the checkpoint again"):
        tokenizer_from_meta(old)


@pytest.mark.parametrize("name", ["clip_fast", "siglip"])
def test_half_a_surrogate_pair_is_refused_and_a_whole_one_made_of_two_texts_is_not(name):
    tokenizer = load_tokenizer(GOLDEN / name)
    for texts in (["fine", "half \ud83d"], ["\ud83d", "\udc36"]):
        with pytest.raises(UserError, match="surrogate"):
            tokenizer.encode(texts, context_length=9)


@pytest.mark.parametrize("name", ["clip_fast", "bert_slow", "gemma_slow", "t5_fast"])
def test_no_texts_and_too_short_a_context(name):
    tokenizer = load_tokenizer(GOLDEN / name)
    ids, mask, truncated = tokenizer.encode([], context_length=9)
    assert ids.shape == mask.shape == (0, 9) and truncated == 0 and tokenizer.lengths([]).shape == (0,)
    with pytest.raises(UserError, match=r"config\.data\.context_length"):
        tokenizer.encode(["a"], context_length=1)
    ids, mask, truncated = tokenizer.encode(["a dog", ""], context_length=2)
    assert truncated == 1 and mask[0].all()


def test_a_template_with_several_tokens_around_keeps_them_all():
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "[B]": 1, "[C]": 2, "[E]": 3}))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="[B] [C] $A [E]", special_tokens=[("[B]", 1), ("[C]", 2), ("[E]", 3)]
    )
    backend.add_special_tokens(["[B]", "[C]", "[E]"])
    tokenizer = HfTokenizer(backend.to_str())
    ids, mask, truncated = tokenizer.encode(["a a a", ""], context_length=4)
    assert ids.tolist() == [[1, 2, 0, 3], [1, 2, 3, 3]] and mask.sum() == 7 and truncated == 1
    assert tokenizer.decode(ids[0]) == "a"
    with pytest.raises(UserError, match="3 or more"):
        tokenizer.encode(["a"], context_length=2)


@pytest.mark.parametrize("name", ["clip_fast", "t5_slow"])
def test_token_lengths_against_a_loop(name):
    tokenizer = load_tokenizer(GOLDEN / name)
    clean = text_cleaner("lower")
    captions = [text.upper() for text in TEXTS * 3] + ["word " * 40]
    each = [int(tokenizer.encode([clean(c)], context_length=500)[1].sum()) for c in captions]
    found = token_lengths(iter(captions), tokenizer=tokenizer, clean=clean)
    assert found.total == len(captions) and found.longest == max(each) and found.mean == pytest.approx(np.mean(each))
    for context in range(2, max(each) + 2):
        assert found.truncated(context) == sum(n > context for n in each)
        assert found.truncated(context) == tokenizer.encode(list(map(clean, captions)), context_length=context)[2]
    for share in (0.1, 0.5, 0.8, 1.0):
        least = found.covering(share)
        assert sum(n <= least for n in each) >= share * len(each) > sum(n <= least - 1 for n in each)
    rows = found.histogram(bins=7)
    assert sum(n for _, _, n in rows) == len(captions) and len(rows) <= 7
    assert all(n == sum(a <= e <= b for e in each) for a, b, n in rows)
    assert token_lengths([], tokenizer=tokenizer, clean=clean).longest == 0


def test_truncation_note_says_share_and_longest():
    note = truncation_note(truncated=1, total=8, longest=1234, context_length=8)
    assert "1 of 8 texts (12.5 %)" in note and note.endswith("has 1,234")
    assert truncation_note(truncated=0, total=4, longest=3, context_length=8) == ""
