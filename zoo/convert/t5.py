"""The encoder of T5 as Hugging Face's transformers writes it, alone or with the decoder, which is left out.

Sources: Raffel et al. 2020; Shazeer 2020 (the gated MLP of version 1.1); Xue et al. 2021 (mT5).
"""

from typing import Any

from ...data.options import InputSpec
from ..spec import ModelSpec
from .family import Conversion, Family, choice, number
from .files import SourceFiles
from .hf import context_length, sentence_pool
from .rules import Rule, prefixed, rule
from .transforms import TRANSPOSED, separate_kernels

_MLPS = {"relu": "relu", "gelu": "gelu_exact", "gated-gelu": "geglu", "gated-silu": "swiglu", "gated-relu": "reglu"}
"""`feed_forward_proj` -> a name of `models.layers.activations`: the gate of "gated-gelu" is the tanh form."""
_TRAINED_LENGTH = 512
"""Tokens on which T5 was trained, where the folder does not say otherwise."""


def _conversion(files: SourceFiles) -> Conversion:
    config, name = files.config, files.name
    project = number(config, "feed_forward_proj", default="relu", source=name)
    text = {
        "vocab_size": number(config, "vocab_size", source=name),
        "width": number(config, "d_model", source=name),
        "depth": number(config, "num_layers", source=name),
        "heads": number(config, "num_heads", source=name),
        "activation": choice(project, known=_MLPS, key="feed_forward_proj", source=name),
        "position": "relative",
        "relative_buckets": number(config, "relative_attention_num_buckets", source=name),
        "relative_distance": number(config, "relative_attention_max_distance", default=128, source=name),
        "pool": sentence_pool(files) or "mean",
        "block": {
            "head_width": number(config, "d_kv", source=name),
            "mlp_hidden": number(config, "d_ff", source=name),
            "norm": "rmsnorm",
            "norm_epsilon": number(config, "layer_norm_epsilon", default=1e-6, source=name),
            "attention_scale": 1.0,
            "qkv_bias": False,
            "out_bias": False,
            "mlp_bias": False,
        },
    }
    longest = number(config, "n_positions", default=_TRAINED_LENGTH, source=name)
    spec = ModelSpec(
        towers={"text": {"family": "transformer", **text}},
        input=InputSpec(num_frames=0, context_length=context_length(files, positions=longest)),
        tokenizer=files.tokenizer(),
    )
    tied = "shared.weight" if "shared.weight" in files.tensors else "encoder.embed_tokens.weight"
    ignored = [r"decoder\..*", r"lm_head\.weight"]
    if tied == "shared.weight":
        ignored.append(r"encoder\.embed_tokens\.weight")  # the same table again
    notes = ["the decoder is left out"] if any(key.startswith("decoder.") for key in files.tensors) else []
    return Conversion(spec=spec, rules=table(text=text, embedding=tied), ignored=ignored, notes=notes)


def table(*, text: dict[str, Any], embedding: str = "shared.weight") -> list[Rule]:
    """Return the table of an encoder; import and export read it.

    Args:
      text: arguments of our text tower.
      embedding: name of the tensor that holds the embeddings.
    """
    attention = "layer.0.SelfAttention"
    queries = [f"{attention}.{side}.weight" for side in "qkv"]
    mlp = {"up": "wi", "down": "wo"}
    if text["activation"] in ("geglu", "swiglu", "reglu"):
        mlp = {"gate": "wi_0", "up": "wi_1", "down": "wo"}
    block = [
        rule(queries, "attention/qkv/kernel", separate_kernels(heads=text["heads"])),
        rule(f"{attention}.o.weight", "attention/out/kernel", TRANSPOSED),
        rule("layer.0.layer_norm.weight", "norm1/scale"),
        rule("layer.1.layer_norm.weight", "norm2/scale"),
        *(rule(f"layer.1.DenseReluDense.{name}.weight", f"{ours}/kernel", TRANSPOSED) for ours, name in mlp.items()),
    ]
    rules = [
        rule(embedding, "embedding"),
        rule(f"encoder.block.0.{attention}.relative_attention_bias.weight", "relative_bias/table"),
        *prefixed(block, source="encoder.block.#.", path="blocks/layers/"),
        rule("encoder.final_layer_norm.weight", "blocks/norm/scale"),
    ]
    return prefixed(rules, path="text/")


FAMILY = Family(
    name="t5",
    models=("google-t5/t5-{small,base,large,3b,11b}", "google/t5-v1_1-*", "google/flan-t5-*", "google/mt5-*"),
    licence="Apache-2.0",
    matches=lambda files: files.config.get("model_type") in ("t5", "mt5"),
    conversion=_conversion,
)
