"""DistilBERT as Hugging Face's transformers writes it (Sanh et al. 2019): BERT without token types and pooler."""

from typing import Any

from ...data.options import InputSpec
from ..spec import ModelSpec
from .clip import dense, norm
from .family import ACTIVATIONS, Conversion, Family, choice, number
from .files import SourceFiles
from .hf import beginning, context_length, sentence_pool
from .rules import Rule, prefixed, rule
from .transforms import separate_biases, separate_kernels

EPSILON = 1e-12
"""Of all LayerNorms; the config does not say."""
_HEADS = r"(vocab_transform|vocab_layer_norm|vocab_projector|pre_classifier|classifier|qa_outputs)\..*"


def _conversion(files: SourceFiles) -> Conversion:
    config, name = files.config, files.name
    choice(bool(config.get("sinusoidal_pos_embds")), known={False: 0}, key="sinusoidal_pos_embds", source=name)
    positions, pool = number(config, "max_position_embeddings", source=name), sentence_pool(files)
    act = choice(number(config, "activation", default="gelu", source=name), known=ACTIVATIONS, key="act", source=name)
    text = {
        "vocab_size": number(config, "vocab_size", source=name),
        "width": number(config, "dim", source=name),
        "depth": number(config, "n_layers", source=name),
        "heads": number(config, "n_heads", source=name),
        "activation": act,
        **tower_form(positions=positions, hidden=number(config, "hidden_dim", source=name)),
        "pool": pool or "cls",
    }
    spec = ModelSpec(
        towers={"text": {"family": "transformer", **text}},
        input=InputSpec(num_frames=0, context_length=context_length(files, positions=positions)),
        tokenizer=files.tokenizer(),
    )
    start = beginning(files, models=("distilbert",), marker="embeddings.word_embeddings.weight")
    guessed = "texts are pooled with 'cls', as the folder does not say otherwise (1_Pooling/config.json)"
    rules = table(heads=text["heads"], start=start)
    return Conversion(spec=spec, rules=rules, ignored=(_HEADS,), notes=[] if pool else [guessed])


def tower_form(*, positions: int, hidden: int) -> dict[str, Any]:
    """Return the arguments of a text tower that all models of this form share.

    Args:
      positions: rows of the table of positions.
      hidden: width of the MLPs' hidden layer.
    """
    block = {"mlp_hidden": hidden, "norm_epsilon": EPSILON, "norm_position": "post", "final_norm": False}
    return {"positions": positions, "embedding_norm": True, "block": block}


def table(*, heads: int, start: str = "") -> list[Rule]:
    """Return the table of a text encoder; import and export read it.

    Args:
      heads: K.
      start: what all names of tensors begin with, "distilbert." in models with a head.
    """
    sides = [f"attention.{side}_lin" for side in "qkv"]
    layer = [
        rule([f"{side}.weight" for side in sides], "attention/qkv/kernel", separate_kernels(heads=heads)),
        rule([f"{side}.bias" for side in sides], "attention/qkv/bias", separate_biases(heads=heads)),
        *(*dense("attention.out_lin", "attention/out"), *norm("sa_layer_norm", "norm1")),
        *(*dense("ffn.lin1", "up"), *dense("ffn.lin2", "down"), *norm("output_layer_norm", "norm2")),
    ]
    rules = [
        rule("embeddings.word_embeddings.weight", "embedding"),
        rule("embeddings.position_embeddings.weight", "position"),
        *norm("embeddings.LayerNorm", "embedding_norm"),
        *prefixed(layer, source="transformer.layer.#.", path="blocks/layers/"),
    ]
    return prefixed(rules, source=start, path="text/")


FAMILY = Family(
    name="distilbert",
    models=("distilbert/distilbert-base-*", "sentence-transformers/*distilbert*"),
    licence="Apache-2.0",
    matches=lambda files: files.config.get("model_type") == "distilbert",
    conversion=_conversion,
)
