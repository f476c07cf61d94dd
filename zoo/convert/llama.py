"""Decoders in the form of Llama and of Gemma as Hugging Face's transformers writes them.

Sources: Touvron et al. 2023 (Llama); Allal et al. 2025 (SmolLM2, in the form of Llama); Gemma Team 2024 (Gemma 1).
"""

from typing import Any

from ...base.errors import UserError
from ...data.options import InputSpec
from ..spec import ModelSpec
from .family import Conversion, Family, choice, number
from .files import SourceFiles
from .hf import layer_sizes
from .rules import Rule, prefixed, rule
from .transforms import TRANSPOSED, grouped_kernels

_GATED = {"silu": "swiglu", "swish": "swiglu", "gelu_pytorch_tanh": "geglu", "gelu_new": "geglu"}
"""`hidden_act` -> the gated MLP with it: its "geglu" is the tanh form."""


def _conversion(files: SourceFiles) -> Conversion:
    config, name = files.config, files.name
    gemma = config["model_type"] == "gemma"
    for key in ("attention_bias", "mlp_bias"):
        choice(bool(config.get(key)), known={False: 0}, key=key, source=name)
    tied = bool(config.get("tie_word_embeddings", gemma))
    length = number(config, "max_position_embeddings", source=name)
    block = {
        "kv_heads": number(config, "num_key_value_heads", default=config["num_attention_heads"], source=name),
        "mlp_hidden": number(config, "intermediate_size", source=name),
        "norm": "rmsnorm",
        "norm_epsilon": number(config, "rms_norm_eps", default=1e-6, source=name),
        "norm_plus_one": gemma,
        "rotary": "halves",
        "rotary_base": _rotary_base(files),
        "qkv_bias": False,
        "out_bias": False,
        "mlp_bias": False,
    }
    if config.get("head_dim"):
        block["head_width"] = config["head_dim"]
    decoder = layer_sizes(config, source=name) | {
        "vocab_size": number(config, "vocab_size", source=name),
        "activation": _activation(files, gemma=gemma),
        "position": "none",
        "scale_embedding": gemma,
        "tied": tied,
        "block": block,
    }
    spec = ModelSpec(
        towers={"decoder": {"family": "transformer", **decoder}},
        input=InputSpec(num_frames=0, context_length=length),
        tokenizer=files.tokenizer(ends=True),
    )
    ignored = (r".*\.rotary_emb\.inv_freq", *((r"lm_head\.weight",) if tied else ()))
    return Conversion(spec=spec, rules=table(decoder=decoder), ignored=ignored)


def _activation(files: SourceFiles, *, gemma: bool) -> str:
    """Gemma's code takes the tanh form where an old config says "gelu" and has no `hidden_activation`."""
    config = files.config
    act = config.get("hidden_activation") or config.get("hidden_act")
    if gemma and act in (None, "gelu"):
        act = "gelu_pytorch_tanh"
    return choice(act or "silu", known=_GATED, key="hidden_act", source=files.name)


def _rotary_base(files: SourceFiles) -> float:
    """Return the base of the rotary positions, in the form of transformers 4 or 5.

    Raises:
      UserError: positions that are scaled for longer texts (Llama 3.1 and later), which twinreel does not have.
    """
    config = files.config
    given = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = given.get("rope_type", given.get("type", "default"))
    if kind != "default":
        raise UserError(
            f"{files.name} scales its rotary positions ({kind!r}); twinreel has unscaled ones only. Take a model whose "
            "config has rope_scaling null, such as Llama 2 or SmolLM2"
        )
    return float(given.get("rope_theta") or config.get("rope_theta") or 10_000.0)


def table(*, decoder: dict[str, Any]) -> list[Rule]:
    """Return the table of a decoder with these arguments; import and export read it."""
    heads, groups = decoder["heads"], decoder["block"]["kv_heads"]
    queries = [f"self_attn.{side}_proj.weight" for side in "qkv"]
    layer = [
        rule("input_layernorm.weight", "norm1/scale"),
        rule(queries, "attention/qkv/kernel", grouped_kernels(heads=heads, groups=groups)),
        rule("self_attn.o_proj.weight", "attention/out/kernel", TRANSPOSED),
        rule("post_attention_layernorm.weight", "norm2/scale"),
        *(rule(f"mlp.{side}_proj.weight", f"{side}/kernel", TRANSPOSED) for side in ("gate", "up", "down")),
    ]
    rules = [
        rule("model.embed_tokens.weight", "embedding"),
        *prefixed(layer, source="model.layers.#.", path="blocks/layers/"),
        rule("model.norm.weight", "blocks/norm/scale"),
        *([] if decoder["tied"] else [rule("lm_head.weight", "head/kernel", TRANSPOSED)]),
    ]
    return prefixed(rules, path="decoder/")


FAMILY = Family(
    name="llama",
    models=("HuggingFaceTB/SmolLM2-{135M,360M,1.7B}", "meta-llama/Llama-2-*", "google/gemma-{2b,7b}"),
    licence="Apache-2.0 (SmolLM2), Llama 2 Community License, Gemma Terms of Use",
    matches=lambda files: files.config.get("model_type") in ("llama", "gemma"),
    conversion=_conversion,
)
