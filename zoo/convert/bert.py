"""BERT, RoBERTa and XLM-R as Hugging Face's transformers writes them, MiniLM and other sentence encoders among them.

Sources: Devlin et al. 2019; Liu et al. 2019 (RoBERTa); Conneau et al. 2020 (XLM-R); Reimers & Gurevych 2019 (pools).
"""

from typing import Any

import numpy as np

from ...data.options import InputSpec
from ..spec import ModelSpec
from .clip import dense, norm
from .family import ACTIVATIONS, Conversion, Family, choice, number
from .files import SourceFiles
from .hf import beginning, bert_attention, context_length, layer_sizes, sentence_pool
from .rules import Rule, prefixed, rule
from .transforms import SAME, Transform

_KINDS = {"bert": False, "roberta": True, "xlm-roberta": True}
"""`model_type` -> whether positions start after that of the padding token."""
_HEADS = (
    r"cls\..*",
    r"lm_head\..*",
    r"classifier\..*",
    r"qa_outputs\..*",
    r".*\.position_ids",
    r"embeddings\.position_ids",
)


def _conversion(files: SourceFiles) -> Conversion:
    config, name = files.config, files.name
    choice(config.get("position_embedding_type", "absolute"), known={"absolute": 0}, key="position type", source=name)
    choice(bool(config.get("is_decoder")), known={False: 0}, key="is_decoder", source=name)
    skipped = number(config, "pad_token_id", source=name) + 1 if _KINDS[config["model_type"]] else 0
    positions = number(config, "max_position_embeddings", source=name) - skipped
    start = beginning(files, models=("bert", "roberta"), marker="embeddings.word_embeddings.weight")
    pooled = f"{start}pooler.dense.weight" in files.tensors
    pool = sentence_pool(files) or ("pooler" if pooled else "mean")
    act = choice(number(config, "hidden_act", source=name), known=ACTIVATIONS, key="hidden_act", source=name)
    text = layer_sizes(config, source=name) | {
        "vocab_size": number(config, "vocab_size", source=name),
        "activation": act,
        "positions": positions,
        "token_types": number(config, "type_vocab_size", source=name),
        "embedding_norm": True,
        "pool": pool,
        "block": {
            "mlp_hidden": number(config, "intermediate_size", source=name),
            "norm_epsilon": number(config, "layer_norm_eps", default=1e-12, source=name),
            "norm_position": "post",
            "final_norm": False,
        },
    }
    spec = ModelSpec(
        towers={"text": {"family": "transformer", **text}},
        input=InputSpec(num_frames=0, context_length=context_length(files, positions=positions)),
        tokenizer=files.tokenizer(),
    )
    return Conversion(
        spec=spec,
        rules=table(text=text, start=start, skipped=skipped),
        ignored=(*_HEADS, *((r"(.*\.)?pooler\..*",) if pool != "pooler" else ())),
        notes=_notes(files, pool=pool),
    )


def _notes(files: SourceFiles, *, pool: str) -> list[str]:
    if files.has("1_Pooling/config.json"):
        return []
    return [
        f"texts are pooled with {pool!r}, as the folder does not say otherwise (a model of sentence-transformers has "
        "1_Pooling/config.json)"
    ]


def table(*, text: dict[str, Any], start: str = "", skipped: int = 0) -> list[Rule]:
    """Return the table of a text encoder; import and export read it.

    Args:
      text: arguments of our text tower.
      start: what all names of tensors begin with, "bert." in models with a head.
      skipped: first rows of the position table that belong to no real token (RoBERTa: up to the padding token's).
    """
    layer = [
        *bert_attention(heads=text["heads"], inner="attention.self", outer="attention.output.dense"),
        *norm("attention.output.LayerNorm", "norm1"),
        *dense("intermediate.dense", "up"),
        *dense("output.dense", "down"),
        *norm("output.LayerNorm", "norm2"),
    ]
    rules = [
        rule("embeddings.word_embeddings.weight", "embedding"),
        rule("embeddings.position_embeddings.weight", "position", without_rows(skipped) if skipped else SAME),
        rule("embeddings.token_type_embeddings.weight", "token_type"),
        *norm("embeddings.LayerNorm", "embedding_norm"),
        *prefixed(layer, source="encoder.layer.#.", path="blocks/layers/"),
        *(dense("pooler.dense", "pooler/out") if text["pool"] == "pooler" else []),
    ]
    return prefixed(rules, source=start, path="text/")


def without_rows(count: int) -> Transform:
    """Leave out the first rows of a table; on the way back they are zeros."""
    return Transform(lambda x: x[count:], lambda x: (np.pad(x, ((count, 0), (0, 0))),))


FAMILY = Family(
    name="bert",
    models=(
        "google-bert/bert-*",
        "FacebookAI/roberta-{base,large}",
        "FacebookAI/xlm-roberta-*",
        "sentence-transformers/*",
    ),
    licence="Apache-2.0 (BERT, MiniLM), MIT (RoBERTa, XLM-R)",
    matches=lambda files: files.config.get("model_type") in _KINDS,
    conversion=_conversion,
)
