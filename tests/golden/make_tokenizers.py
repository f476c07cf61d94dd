"""Make tests/golden/tokenizers: small tokenizers of each family and the ids that the public libraries give.

    python tests/golden/make_tokenizers.py

Wants transformers (5.23 when this was last run), tokenizers and sentencepiece; no download and no torch. Every family
is trained on `corpus()`, saved by the library's own class in its own file format, and asked for the ids of `texts()`
with `truncation=True, max_length=L` and, as `safe`, the same with `split_special_tokens=True`.

- clip_slow     vocab.json + merges.txt           transformers.CLIPTokenizer
- clip_fast     tokenizer.json ...                the same, saved
- bert_slow     vocab.txt                         transformers.BertTokenizer
- bert_fast     tokenizer.json ...                the same, saved
- siglip        spiece.model (unigram)            transformers.SiglipTokenizer (of canonical texts)
- t5_slow       spiece.model (unigram)            sentencepiece, and T5Tokenizer where it does the same
- t5_fast       tokenizer.json                    transformers.T5Tokenizer
- gemma_slow    tokenizer.model (BPE, bytes)      sentencepiece and transformers.GemmaTokenizer
- gemma_fast    tokenizer.json                    transformers.GemmaTokenizer
"""

import contextlib
import importlib
import io
import itertools
import json
import shutil
import tempfile
from pathlib import Path

import sentencepiece
import tokenizers
import transformers
from tokenizers import models, normalizers, pre_tokenizers, trainers
from transformers.utils import sentencepiece_model_pb2_new

# That of sentencepiece itself may want a newer protobuf than tensorflow allows.
importlib.import_module("transformers.convert_slow_tokenizer").import_protobuf = lambda *_: sentencepiece_model_pb2_new

OUT = Path(__file__).parent / "tokenizers"
LENGTHS = (77, 12, 4)
# A few rules in place of nmt_nfkc, whose table alone is 240 kB: white space, full width, a ligature, composed accents.
RULES = "".join(
    f"{' '.join(f'{ord(c):X}' for c in source)}\t{' '.join(f'{ord(c):X}' for c in target)}\n"
    for source, target in [
        ("\t", " "), ("\n", " "), ("\r", " "), ("\u00a0", " "), ("\ufeff", ""), ("\u200b", " "), ("\ufb01", "fi"),
        ("\uff21", "A"), ("\uff22", "B"), ("\uff23", "C"), ("e\u0301", "\u00e9"), ("i\u0308", "\u00ef"),
    ]
)  # fmt: skip
CLIP_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def corpus() -> list[str]:
    """The text to train on: captions as video sets have them, in a few scripts."""
    who = ("a man", "two children", "the old woman's dog", "someone in a red coat", "a café owner", "players")
    does = ("is playing the guitar", "runs across the street", "isn't looking at the camera", "cuts 3 onions")
    where = ("in front of a crowd.", "at 10:45, near the sea!", "while it's raining", "on a football field (indoors)")
    lines = [f"{w} {d} {p}" for w, d, p in itertools.product(who, does, where)]
    lines += [f"{w} {d} {p}".upper() for w, d, p in itertools.product(who[::2], does, where)]
    other = ["naïve façade, crème brûlée", "一只狗在草地上奔跑", "собака бежит по траве", "犬が走る。", "🎥 filming 🐶"]
    return lines + 3 * other


def texts() -> list[str]:
    """Strings that break tokenizers."""
    return [
        *corpus()[::17],
        "",
        " ",
        "\t\n  \r\n",
        "A DOG, Running -- FAST!!!",
        "caf\u00e9 cafe\u0301 na\u00efve nai\u0308ve \u00c5ngstr\u00f6m \u212b",
        "一只狗在草地上奔跑，很快。",
        "犬が走る。ｶﾀｶﾅ ＡＢＣ",
        "собака бежит по траве",
        "emoji 👩‍🚀 🎥🎥 👍🏽 ❤️ end",
        "many    spaces\tand\n\nlines   ",
        "   leading and trailing   ",
        "it's we're they've I'm you'll he'd don't O'Brien rock'n'roll",
        "3.14159 1,000,000 10:45 2nd 42 x² ½ ٣",
        "zero\u200bwidth soft\u00adhyphen nb\u00a0space \ufeffbom",
        "control \x00 \x01 \x07 \x1b[0m \x7f end",
        "unk \ue000 \U0010fffd private",
        "http://example.org/a_b?c=d&e=f#g user@example.org",
        "under_score snake_case <b>bold</b> &amp; &quot;",
        "supercalifragilisticexpialidocious" * 4,
        "word " * 300,
        "שלום עולם مرحبا بالعالم नमस्ते ไทย",
        "ﬁ ligature ǅ İstanbul ß ẞ Σς",
        "“curly” ‘quotes’ – en — em … dots",
        "▁ metaspace ▁▁ x",
        "a ##b [x] </w> <0x41>",
    ]


def special_texts() -> list[str]:
    """Captions that spell special tokens."""
    return [
        "a dog <|endoftext|> and a cat",
        "<|startoftext|> a dog",
        "a dog [SEP] a cat [CLS] [PAD] [MASK] [UNK]",
        "a dog</s>a cat </s> x <s> <pad> <unk>",
        "<bos> a dog <eos> a cat <mask>",
    ]


def unigram(path: Path) -> None:
    """Train a SentencePiece model laid out as T5's: pad 0, end 1, unknown 2, no begin."""
    model, rules = io.BytesIO(), Path("rules.tsv")  # relative, because the model keeps the path
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        rules.write_text(RULES)
        sentencepiece.SentencePieceTrainer.Train(
            sentence_iterator=iter(corpus()), model_writer=model, model_type="unigram", vocab_size=260,
            normalization_rule_tsv=str(rules),
            hard_vocab_limit=False, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, num_threads=1, minloglevel=2,
        )  # fmt: skip
    path.write_bytes(model.getvalue())


def byte_bpe(path: Path) -> None:
    """Train a SentencePiece model laid out as Gemma's: BPE with bytes, digits alone, spaces kept."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(corpus()), model_writer=model, model_type="bpe", vocab_size=600, byte_fallback=True,
        hard_vocab_limit=False, pad_id=0, eos_id=1, bos_id=2, unk_id=3, pad_piece="<pad>", eos_piece="<eos>",
        bos_piece="<bos>", user_defined_symbols=["<mask>"], add_dummy_prefix=False, remove_extra_whitespaces=False,
        normalization_rule_name="identity", split_digits=True, num_threads=1, minloglevel=2,
    )  # fmt: skip
    path.write_bytes(model.getvalue())


def train_clip(folder: Path) -> None:
    """Train lower-cased byte-level BPE with `</w>` and write vocab.json and merges.txt as OpenAI laid them out."""
    trained = tokenizers.Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token="<|endoftext|>"))
    trained.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(tokenizers.Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(CLIP_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=800, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False
    )
    trained.train_from_iterator(corpus(), trainer)
    merges = json.loads(trained.to_str())["model"]["merges"]
    # As OpenAI's: the bytes, the bytes at a word's end, one token per merge, the two special ones.
    tokens = [*alphabet, *(f"{c}</w>" for c in alphabet), *("".join(m) for m in merges)]
    tokens = [*dict.fromkeys(tokens), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))


def train_bert(folder: Path) -> None:
    """Train WordPiece and write vocab.txt."""
    trained = tokenizers.BertWordPieceTokenizer(lowercase=True)
    trained.train_from_iterator(corpus(), vocab_size=500, min_frequency=1, show_progress=False)
    trained.save_model(str(folder))


def expect(name: str, tokenizer, *, special: bool = True) -> None:
    """Write the ids of all texts by a transformers tokenizer; `safe` is with split_special_tokens.

    T5's (`special=False`) reads special tokens from a text even so, because its model has them among its pieces.
    SigLIP's are asked for texts that are canonical already: in others its class keeps a token of its own for white
    space at the start, which the original (big_vision) does not have. It also reads "▁" as a space.
    """
    tokenizer.padding_side = "right"
    for split in (False, True):
        given = [*texts(), *(special_texts() if split and special else [])]
        if name == "siglip":
            given = [tokenizer.canonicalize_text(text) for text in given if "▁" not in text]
        for length in LENGTHS:
            found = tokenizer(
                given, truncation=True, max_length=length, padding="max_length", split_special_tokens=split
            )
            whole = tokenizer(given, split_special_tokens=split)["input_ids"]
            write(name, f"{'safe' if split else 'plain'}_{length}", given, found, [len(row) for row in whole], length)


def expect_pieces(name: str, model: Path, *, begin: list[int], end: list[int], pad: int) -> None:
    """Write the ids of all texts by sentencepiece alone, with what the family puts around by hand."""
    processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
    given = [*texts(), *special_texts()]
    for length in LENGTHS:
        whole = [[*begin, *processor.encode(text), *end] for text in given]
        cut = [row if len(row) <= length else row[: length - len(end)] + end for row in whole]
        found = {
            "input_ids": [row + [pad] * (length - len(row)) for row in cut],
            "attention_mask": [[1] * len(row) + [0] * (length - len(row)) for row in cut],
        }
        write(name, f"pieces_{length}", given, found, [len(row) for row in whole], length)


def without_paths(folder: Path) -> None:
    """Take from tokenizer_config.json where this machine had the files."""
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    kept = {key: value for key, value in settings.items() if key != "vocab_file"}
    path.write_text(json.dumps(kept, indent=2) + "\n")


EXPECTED: dict[str, dict[str, object]] = {}


def write(name: str, case: str, given, found, lengths, length) -> None:
    """Keep one case, real tokens only: padding is one number."""
    rows = [
        [i for i, real in zip(ids, mask, strict=True) if real]
        for ids, mask in zip(found["input_ids"], found["attention_mask"], strict=True)
    ]
    fill = {
        i for ids, mask in zip(found["input_ids"], found["attention_mask"], strict=True)
        for i, real in zip(ids, mask, strict=True) if not real
    }  # fmt: skip
    assert all(ids[: len(r)] == r for ids, r in zip(found["input_ids"], rows, strict=True)), "padding is on the right"
    assert len(fill) == 1
    EXPECTED.setdefault(name, {})[case] = {
        "context_length": length,
        "pad_id": fill.pop(),
        "truncated": sum(n > length for n in lengths),
        "lengths": lengths,
        "ids": rows,
    }


def main() -> None:
    """Make everything anew."""
    shutil.rmtree(OUT, ignore_errors=True)
    folders = {n: OUT / n for n in ("clip_slow", "clip_fast", "bert_slow", "bert_fast", "siglip", "t5_slow", "t5_fast",
                                    "gemma_slow", "gemma_fast")}  # fmt: skip
    for folder in folders.values():
        folder.mkdir(parents=True)
    train_clip(folders["clip_slow"])
    train_bert(folders["bert_slow"])
    unigram(folders["t5_slow"] / "spiece.model")
    byte_bpe(folders["gemma_slow"] / "tokenizer.model")
    for family, cls in (("clip", transformers.CLIPTokenizer), ("bert", transformers.BertTokenizer),
                        ("t5", transformers.T5Tokenizer), ("gemma", transformers.GemmaTokenizer)):  # fmt: skip
        begin = {"add_bos_token": True} if family == "gemma" else {}  # as Gemma's own tokenizer_config.json has it
        loaded = cls.from_pretrained(folders[f"{family}_slow"], model_max_length=77, **begin)
        loaded.save_pretrained(folders[f"{family}_fast"])
        without_paths(folders[f"{family}_fast"])
        expect(f"{family}_fast", loaded, special=family != "t5")
    for family in ("clip", "bert"):
        EXPECTED[f"{family}_slow"] = EXPECTED[f"{family}_fast"]
    shutil.copy(folders["t5_slow"] / "spiece.model", folders["siglip"] / "spiece.model")
    siglip = transformers.SiglipTokenizer.from_pretrained(folders["siglip"])
    siglip.save_pretrained(folders["siglip"])
    without_paths(folders["siglip"])
    expect("siglip", siglip)
    expect_pieces("t5_slow", folders["t5_slow"] / "spiece.model", begin=[], end=[1], pad=0)
    expect_pieces("gemma_slow", folders["gemma_slow"] / "tokenizer.model", begin=[2], end=[], pad=0)
    for family, cls in (("t5", "T5Tokenizer"), ("gemma", "GemmaTokenizer")):
        settings = json.dumps({"tokenizer_class": cls})
        (folders[f"{family}_slow"] / "tokenizer_config.json").write_text(settings + "\n")
    canonical = [siglip.canonicalize_text(text) for text in [*texts(), *special_texts()]]
    given = {"texts": texts(), "special": special_texts(), "canonical": canonical}
    (OUT / "texts.json").write_text(json.dumps(given) + "\n")
    for name, cases in EXPECTED.items():
        (OUT / f"{name}.json").write_text(json.dumps(cases, separators=(",", ":")) + "\n")
    versions = {m.__name__: m.__version__ for m in (transformers, tokenizers, sentencepiece)}
    (OUT / "versions.json").write_text(json.dumps(versions, indent=2) + "\n")


if __name__ == "__main__":
    main()
