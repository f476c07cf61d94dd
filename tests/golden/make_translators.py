"""Write tiny Marian and NLLB with random weights as CTranslate2's converter does.

Run with transformers 5.24.0, torch, sentencepiece and ctranslate2 4.8.5 (not with twinreel's own environment):
`python tests/golden/make_translators.py tests/golden/translators`
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import ctranslate2
import sentencepiece
import torch
import transformers as hf

OUT = Path(sys.argv[1])
LINES = ["a dog runs", "a red ball falls", "the small dog sees a ball", "go on", "a ball runs on the small dog"]
TEXTS = ["a dog runs", "the red ball", "go on", "a small red dog sees the ball"]
SIZES = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2}
SIZES |= {"decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_position_embeddings": 64}


def pieces(prefix: Path, *, size: int, special: bool) -> Path:
    """Train a SentencePiece model without normalisation, whose tables would be most of the file."""
    ids = {"bos_id": -1, "pad_id": -1, "eos_id": 0, "unk_id": 1} if special else {"pad_id": -1}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES * 20), model_prefix=str(prefix), vocab_size=size, model_type="unigram",
        normalization_rule_name="identity", hard_vocab_limit=False, **ids,
    )  # fmt: skip
    return prefix.with_suffix(".model")


def marian(folder: Path):
    """A folder as OPUS-MT's are, with two target languages."""
    file = pieces(folder / "source", size=40, special=True)
    model = sentencepiece.SentencePieceProcessor(model_file=str(file))
    names = [model.id_to_piece(i) for i in range(len(model))] + [">>deu<<", ">>fra<<", "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({name: i for i, name in enumerate(names)}))
    file.rename(folder / "source.spm")
    shutil.copy(folder / "source.spm", folder / "target.spm")
    given = {"source_spm": str(folder / "source.spm"), "target_spm": str(folder / "target.spm")}
    tokenizer = hf.MarianTokenizer(vocab=str(folder / "vocab.json"), **given)
    pad = len(names) - 1
    config = hf.MarianConfig(
        vocab_size=len(names), pad_token_id=pad, eos_token_id=0, decoder_start_token_id=pad, **SIZES
    )
    return tokenizer, hf.MarianMTModel(config), ["source.spm", "target.spm"]


def nllb(folder: Path):
    """A folder as NLLB's are: one SentencePiece model, and a token for each of its languages."""
    name = "sentencepiece.bpe.model"
    pieces(folder / "pieces", size=40, special=False).rename(folder / name)
    tokenizer = hf.NllbTokenizer(vocab_file=str(folder / name), src_lang="eng_Latn", tgt_lang="deu_Latn")
    ids = {"pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
    config = hf.M2M100Config(vocab_size=len(tokenizer), scale_embedding=False, **ids, **SIZES)
    return tokenizer, hf.M2M100ForConditionalGeneration(config), [name]


def randomised(model, *, seed: int, gain: float, end: float):
    """Give every parameter a value that matters, so that other texts have other translations, which soon end."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.1 if parameter.ndim < 2 else 0.5))
        for name, parameter in model.named_parameters():
            if "decoder.layers" in name and parameter.ndim == 2:
                parameter *= gain
        table = model.get_input_embeddings().weight
        table[model.config.eos_token_id] *= end
        table[25:] *= 0.1  # languages
    return model.eval()


def ends(folder: str, *, spm: str, first: list[str], prefix: list[str] | None) -> bool:
    """Tell whether three of the texts have translations of more than one token, which are different and end."""
    model = ctranslate2.Translator(folder, device="cpu")
    cut = sentencepiece.SentencePieceProcessor(model_file=f"{folder}/{spm}")
    source = [[*first, *cut.encode(text, out_type=str), "</s>"] for text in TEXTS]
    how = {"beam_size": 1, "max_decoding_length": 12, "return_end_token": True}
    found = model.translate_batch(source, target_prefix=[prefix] * len(TEXTS) if prefix else None, **how)
    tokens = [one.hypotheses[0] for one in found]
    whole = {tuple(one) for one in tokens if one[-1] == "</s>" and len(one) > 2 + bool(prefix)}
    return len(whole) > 2


def write(name: str, *, made, first: list[str], prefix: list[str] | None) -> None:
    """Search for weights with which texts end, as the converter writes them."""
    tokenizer, model, files = made
    start = {key: value.clone() for key, value in model.state_dict().items()}
    for seed in range(200):
        model.load_state_dict(start)
        model = randomised(model, seed=seed, gain=1 + seed % 4, end=2 + 3 * (seed % 3))
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            for file in files:
                shutil.copy(Path(tokenizer.source_folder) / file, folder)
            converter = ctranslate2.converters.TransformersConverter(folder, copy_files=files)
            converter.convert(str(OUT / name), force=True)
        if ends(str(OUT / name), spm=files[0], first=first, prefix=prefix):
            print(name, seed)
            return
    raise SystemExit(f"{name}: no seed of 200 ends")


for name, make, first, prefix in (
    ("marian", marian, [">>deu<<"], None),
    ("nllb", nllb, ["eng_Latn"], ["deu_Latn"]),
):
    with tempfile.TemporaryDirectory() as work:
        own = make(Path(work))
        own[0].source_folder = work
        write(name, made=own, first=first, prefix=prefix)
