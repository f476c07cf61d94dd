"""The tokenizer folders that Hugging Face's libraries write: which files there are, and what each family adds.

Beside `tokenizer.json`, which says everything, there are the older files of a family alone: `vocab.json` and
`merges.txt` (CLIP), `vocab.txt` (BERT), `spiece.model` or `tokenizer.model` (T5, SigLIP, Gemma),
`sentencepiece.bpe.model` (XLM-R). No tensorflow.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from ...base.errors import UserError
from .fairseq import FairseqTokenizer
from .hf import HfTokenizer, around
from .pieces import SentencePieceTokenizer

FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "vocab.txt", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model"),
)
_FAIRSEQ = "sentencepiece.bpe.model"
WHOLE = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model", _FAIRSEQ)
"""Each of these is, or begins, a whole tokenizer."""
_KINDS = (
    "tokenizer.json, or vocab.json + merges.txt (CLIP), vocab.txt (BERT), spiece.model or tokenizer.model (T5, SigLIP, "
    "Gemma), sentencepiece.bpe.model (XLM-R)"
)
_CLIP_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_CLIP_BEGIN, _CLIP_END = "<|startoftext|>", "<|endoftext|>"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Pieces:
    """What a family puts around the pieces of its SentencePiece model."""

    add_bos: bool
    add_eos: bool
    pad: str


_PIECES = {
    "T5": _Pieces(add_bos=False, add_eos=True, pad="<pad>"),
    "Siglip": _Pieces(add_bos=False, add_eos=True, pad="</s>"),
    "Siglip2": _Pieces(add_bos=False, add_eos=True, pad="<pad>"),
    "Gemma": _Pieces(add_bos=True, add_eos=False, pad="<pad>"),
    "VideoPrism": _Pieces(add_bos=False, add_eos=False, pad="<pad>"),
}


def read_folder(folder: Path, *, ends: bool = False) -> HfTokenizer | SentencePieceTokenizer:
    """Build the tokenizer that a folder holds; where it has `tokenizer.json`, that file decides.

    Args:
      folder: of the tokenizer.
      ends: an end token follows each text: that of the settings where the files put none, as those of language models
        do, which are given texts to continue.

    What a family's class in `transformers` does to a text in code, beside its files, is not done here: SigLIP's
    lower-casing and dropping of punctuation, SigLIP 2's lower-casing. Declare it (`config.data.text="canonicalize"`,
    `"lower"`).

    Raises:
      UserError: none of the known files is there, or one is damaged or of a family that is not known.
    """
    config = _settings(folder)
    if (folder / "tokenizer.json").is_file():
        file = _read(folder / "tokenizer.json")
        if ends:
            file = with_end(file, token=_token(config, "eos_token", ""), folder=folder)
        return HfTokenizer(file, pad_id=_pad(folder, config, HfTokenizer(file)))
    added = _json(folder / "added_tokens.json")
    if added:
        raise UserError(
            f"{folder / 'added_tokens.json'} adds {len(added)} tokens to the vocabulary, which twinreel reads from a "
            "tokenizer.json alone; save the folder anew with save_pretrained of transformers"
        )
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        return _clip(folder, config)
    if (folder / "vocab.txt").is_file():
        return _bert(folder, config)
    for name in ("spiece.model", "tokenizer.model"):
        if (folder / name).is_file():
            return _pieces(folder / name, config)
    if (folder / _FAIRSEQ).is_file():
        return _fairseq(folder, config)
    names = sorted(path.name for path in folder.iterdir())
    raise UserError(
        f"folder {str(folder)!r} has no tokenizer that twinreel knows ({_KINDS}); "
        f"it has {', '.join(names[:8]) or 'nothing'}. Set config.data.tokenizer to the folder with these files"
    )


def with_end(file: str, *, token: str, folder: Path) -> str:
    """Return a `tokenizer.json` that puts an end token after each text, besides what it puts before.

    Args:
      file: the text of a `tokenizer.json`; one that puts a token after each text is returned as it is.
      token: the end token.
      folder: of the file, for messages.

    Raises:
      UserError: no end token is named, or the vocabulary lacks it.
    """
    backend = tokenizers.Tokenizer.from_str(file)
    begin, end = around(backend)
    if end:
        return file
    if not token:
        raise UserError(
            f"{folder} does not say which token ends a text; add eos_token to its tokenizer_config.json, as "
            "save_pretrained of transformers writes it"
        )
    names = [*map(backend.id_to_token, begin), token]
    ids = [(name, _id(backend, name, folder)) for name in dict.fromkeys(names)]
    single = " ".join([*names[:-1], "$A", token])
    backend.post_processor = processors.TemplateProcessing(single=single, special_tokens=ids)
    return backend.to_str()


def _clip(folder: Path, config: dict[str, Any]) -> HfTokenizer:
    """CLIP's byte-pair encoding of lower-cased words (Radford et al. 2021)."""
    vocabulary = _json(folder / "vocab.json")
    for name in (_CLIP_BEGIN, _CLIP_END):
        if name not in vocabulary:
            raise UserError(
                f"{folder / 'vocab.json'} has no {name!r}: it is not CLIP's, the one family that twinreel reads from "
                "vocab.json and merges.txt; save the folder with tokenizer.json"
            )
    lines = _read(folder / "merges.txt").splitlines()
    merges = [_merge(line, path=folder / "merges.txt") for line in lines if line.strip() and line[:8] != "#version"]
    backend = tokenizers.Tokenizer(
        models.BPE(
            vocabulary,
            merges,
            continuing_subword_prefix="",
            end_of_word_suffix="</w>",
            fuse_unk=False,
            unk_token=_token(config, "unk_token", _CLIP_END),
        )
    )
    spaces = normalizers.Replace(tokenizers.Regex(r"\s+"), " ")
    backend.normalizer = normalizers.Sequence([normalizers.NFC(), spaces, normalizers.Lowercase()])
    special = "|".join(name.replace("|", r"\|") for name in (_CLIP_BEGIN, _CLIP_END))
    words = pre_tokenizers.Split(tokenizers.Regex(f"{special}|{_CLIP_WORDS}"), behavior="removed", invert=True)
    backend.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    backend.decoder = decoders.ByteLevel()
    begin, end = ((name, vocabulary[name]) for name in (_CLIP_BEGIN, _CLIP_END))
    backend.post_processor = processors.RobertaProcessing(end, begin, trim_offsets=False, add_prefix_space=False)
    backend.add_special_tokens([_CLIP_BEGIN, _CLIP_END])
    return HfTokenizer(backend.to_str(), pad_id=_id(backend, _token(config, "pad_token", _CLIP_END), folder))


def _merge(line: str, *, path: Path) -> tuple[str, str]:
    parts = line.split(" ")
    if len(parts) != 2:
        raise UserError(f"{path}: {line[:40]!r} is no merge of two pieces; copy the file anew")
    return parts[0], parts[1]


def _bert(folder: Path, config: dict[str, Any]) -> HfTokenizer:
    """BERT's WordPiece (Devlin et al. 2019); `tokenizer_config.json` says whether it lower-cases."""
    lines = _read(folder / "vocab.txt").split("\n")
    vocabulary = {line.removesuffix("\r"): index for index, line in enumerate(lines[:-1] if not lines[-1] else lines)}
    settings = {"do_lower_case": True, "tokenize_chinese_chars": True, "strip_accents": None} | config
    unknown = _token(config, "unk_token", "[UNK]")
    backend = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token=unknown, max_input_chars_per_word=100))
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=settings["tokenize_chinese_chars"],
        strip_accents=settings["strip_accents"],
        lowercase=settings["do_lower_case"],
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    names = {"cls": "[CLS]", "sep": "[SEP]", "pad": "[PAD]", "mask": "[MASK]"}
    names = {name: _token(config, f"{name}_token", default) for name, default in names.items()}
    for name in (unknown, names["cls"], names["sep"]):
        _id(backend, name, folder)
    backend.add_special_tokens([unknown, *(name for name in names.values() if name in vocabulary)])
    begin, end = names["cls"], names["sep"]
    backend.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}",
        special_tokens=[(begin, vocabulary[begin]), (end, vocabulary[end])],
    )
    return HfTokenizer(backend.to_str(), pad_id=_id(backend, names["pad"], folder))


def _pieces(path: Path, config: dict[str, Any]) -> SentencePieceTokenizer:
    """A SentencePiece model with what its family puts around; without a family, what the model itself has."""
    model = path.read_bytes()
    name = (
        config["tokenizer_class"].removesuffix("Fast").removesuffix("Tokenizer") if "tokenizer_class" in config else ""
    )
    if not name:
        return SentencePieceTokenizer(model)
    if name not in _PIECES:
        raise UserError(
            f"{path.parent / 'tokenizer_config.json'}: tokenizer_class is {config['tokenizer_class']!r}, twinreel "
            f"knows {path.name} of {', '.join(_PIECES)}; save the folder with tokenizer.json, or set "
            f"config.data.tokenizer to {path.name} itself to go by the model's own begin and end tokens"
        )
    family = _PIECES[name]
    bare = SentencePieceTokenizer(model, add_bos=False, add_eos=False)
    found = bare.id_of(_token(config, "pad_token", family.pad))
    if found is None:
        raise UserError(f"{path} has no piece {_token(config, 'pad_token', family.pad)!r}, the padding token of {name}")
    given = {key: config[f"{key}_token"] for key in ("add_bos", "add_eos") if config.get(f"{key}_token") is not None}
    layout = {"add_bos": family.add_bos, "add_eos": family.add_eos} | given
    return SentencePieceTokenizer(model, pad_id=found, **layout)


def _fairseq(folder: Path, config: dict[str, Any]) -> FairseqTokenizer:
    """XLM-R's; other families (CamemBERT, mBART) have a file of that name, and number its pieces in other ways."""
    model = _json(folder / "config.json").get("model_type", "")
    name = str(config.get("tokenizer_class", "")).removesuffix("Fast").removesuffix("Tokenizer")
    if name != "XLMRoberta" and (name or model != "xlm-roberta"):
        found = f"tokenizer_class {config['tokenizer_class']!r}" if name else f"model_type {model!r}"
        raise UserError(
            f"{folder / _FAIRSEQ} is of {found}; twinreel reads this file of XLM-R alone (tokenizer_class "
            "XLMRobertaTokenizer in tokenizer_config.json); save the folder with tokenizer.json"
        )
    return FairseqTokenizer((folder / _FAIRSEQ).read_bytes())


def _settings(folder: Path) -> dict[str, Any]:
    """`tokenizer_config.json` over `special_tokens_map.json`; both may be absent."""
    return _json(folder / "special_tokens_map.json") | _json(folder / "tokenizer_config.json")


def _token(config: dict[str, Any], name: str, default: str) -> str:
    """The text of a special token, which the files give as a string or as `{"content": ...}`."""
    value = config[name] if config.get(name) is not None else default
    return value["content"] if isinstance(value, dict) else str(value)


def _pad(folder: Path, config: dict[str, Any], tokenizer: HfTokenizer) -> int | None:
    """The padding token that the settings name; None where they name none."""
    name = _token(config, "pad_token", "")
    if not name:
        return None
    found = tokenizer.id_of(name)
    if found is None:
        raise UserError(f"{folder}: pad_token {name!r} is not in the vocabulary of tokenizer.json")
    return found


def _id(backend: tokenizers.Tokenizer, name: str, folder: Path) -> int:
    found = backend.token_to_id(name)
    if found is None:
        raise UserError(f"{folder}: the vocabulary has no special token {name!r}; the files do not belong together")
    return found


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(_read(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not JSON ({error}); copy it anew") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} holds {type(value).__name__}, wanted a JSON object; copy it anew")
    return value


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}); copy it anew") from error
