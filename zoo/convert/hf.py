"""What folders of Hugging Face's transformers and sentence-transformers have in common."""

from collections.abc import Sequence
from typing import Any

from ...base.errors import UserError
from .clip import dense, norm
from .family import choice, number
from .files import SourceFiles
from .rules import Rule, prefixed, rule
from .transforms import separate_biases, separate_kernels

_SENTENCE_POOLS = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean"}
_SENTENCE_MODULES = ("Transformer", "Pooling", "Normalize")


def bert_attention(*, heads: int, inner: str, outer: str, bias: bool = True) -> list[Rule]:
    """Return the rules of an attention with the names of BERT, which ViT, DINOv2 and AST took over.

    Args:
      heads: K.
      inner: prefix of `query`, `key` and `value`.
      outer: name of the output's Linear.
      bias: queries, keys and values have biases.
    """
    names = [f"{inner}.{name}" for name in ("query", "key", "value")]
    rules = [rule([f"{name}.weight" for name in names], "attention/qkv/kernel", separate_kernels(heads=heads))]
    if bias:
        rules.append(rule([f"{name}.bias" for name in names], "attention/qkv/bias", separate_biases(heads=heads)))
    return [*rules, *dense(outer, "attention/out")]


def vit_layers(*, heads: int, bias: bool) -> list[Rule]:
    """Return the rules of a stack of pre-norm layers with the names of ViT and AST, `layer.#.` -> `layers/`."""
    own = [
        *bert_attention(heads=heads, inner="attention.attention", outer="attention.output.dense", bias=bias),
        *(*norm("layernorm_before", "norm1"), *norm("layernorm_after", "norm2")),
        *(*dense("intermediate.dense", "up"), *dense("output.dense", "down")),
    ]
    return prefixed(own, source="layer.#.", path="layers/")


def beginning(files: SourceFiles, *, models: Sequence[str], marker: str) -> str:
    """Return what the names of the encoder's tensors begin with: "", or the name of the model inside one with a head.

    Args:
      files: of the source.
      models: such names, "bert".
      marker: name of a tensor that every encoder has.
    """
    return next((f"{model}." for model in models if f"{model}.{marker}" in files.tensors), "")


def context_length(files: SourceFiles, *, positions: int) -> int:
    """Return the most tokens of a text: of sentence-transformers or of the tokenizer, at most `positions`."""
    sentences = files.json("sentence_bert_config.json").get("max_seq_length")
    longest = sentences or files.json("tokenizer_config.json").get("model_max_length") or positions
    return int(min(longest, positions))


def sentence_pool(files: SourceFiles) -> str | None:
    """Return the pool of a folder of sentence-transformers, None for any other folder.

    Raises:
      UserError: a pool or a module that twinreel does not have.
    """
    modules = _modules(files)
    for module in modules:
        if module not in _SENTENCE_MODULES:
            raise UserError(
                f"{files.name} has the module {module!r} of sentence-transformers; twinreel reads models made of "
                f"{', '.join(_SENTENCE_MODULES)}. Remove modules.json to take the encoder alone"
            )
    config = files.json("1_Pooling/config.json")
    if not config:
        return None
    pools = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
    if len(pools) != 1:
        raise UserError(f"1_Pooling/config.json of {files.name} names {len(pools)} pools, twinreel has one of them")
    return choice(pools[0], known=_SENTENCE_POOLS, key="pool", source=files.name)


def _modules(files: SourceFiles) -> list[str]:
    """Return the names of the classes in modules.json, which is a list."""
    return [str(one["type"]).rpartition(".")[2] for one in files.listing("modules.json")]


def layer_sizes(config: dict[str, Any], *, source: str) -> dict[str, Any]:
    """Return width, depth and heads, which all these configs call alike."""
    return {
        "width": number(config, "hidden_size", source=source),
        "depth": number(config, "num_hidden_layers", source=source),
        "heads": number(config, "num_attention_heads", source=source),
    }
