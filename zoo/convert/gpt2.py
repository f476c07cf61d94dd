"""GPT-2 as Hugging Face's transformers writes it (Radford et al. 2019; openai-community/gpt2*)."""

from typing import Any

from ...data.options import InputSpec
from ..spec import ModelSpec
from .clip import norm
from .family import ACTIVATIONS, Conversion, Family, choice, number
from .files import SourceFiles
from .hf import beginning
from .rules import Rule, prefixed, rule
from .transforms import fused_bias, rearranged


def _conversion(files: SourceFiles) -> Conversion:
    config, name = files.config, files.name
    for key in ("scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn", "add_cross_attention"):
        choice(bool(config.get(key)), known={False: 0}, key=key, source=name)
    for key in ("scale_attn_weights", "tie_word_embeddings"):
        choice(bool(config.get(key, True)), known={True: 0}, key=key, source=name)
    act = number(config, "activation_function", default="gelu_new", source=name)
    width = number(config, "n_embd", source=name)
    length = number(config, "n_positions", source=name)
    decoder = {
        "vocab_size": number(config, "vocab_size", source=name),
        "width": width,
        "depth": number(config, "n_layer", source=name),
        "heads": number(config, "n_head", source=name),
        "activation": choice(act, known=ACTIVATIONS, key="activation_function", source=name),
        "block": {
            "mlp_hidden": number(config, "n_inner", default=4 * width, source=name),
            "norm_epsilon": number(config, "layer_norm_epsilon", default=1e-5, source=name),
        },
    }
    spec = ModelSpec(
        towers={"decoder": {"family": "transformer", **decoder}},
        input=InputSpec(num_frames=0, context_length=length),
        tokenizer=files.tokenizer(ends=True),
    )
    start = beginning(files, models=("transformer",), marker="wte.weight")
    ignored = (r".*\.attn\.(masked_)?bias", r"lm_head\.weight")  # masks; the table of the embeddings again
    return Conversion(spec=spec, rules=table(decoder=decoder, start=start), ignored=ignored)


def table(*, decoder: dict[str, Any], start: str = "") -> list[Rule]:
    """Return the table of a decoder; import and export read it. Kernels are `[in, out]`, as ours.

    Args:
      decoder: arguments of our decoder.
      start: what all names of tensors begin with, "transformer." in models with a head.
    """
    heads = decoder["heads"]
    layer = [
        *norm("ln_1", "norm1"),
        rule(
            "attn.c_attn.weight", "attention/qkv/kernel", rearranged("i (three k d)", "i (k three d)", three=3, k=heads)
        ),
        rule("attn.c_attn.bias", "attention/qkv/bias", fused_bias(heads=heads)),
        *_as_ours("attn.c_proj", "attention/out"),
        *norm("ln_2", "norm2"),
        *_as_ours("mlp.c_fc", "up"),
        *_as_ours("mlp.c_proj", "down"),
    ]
    rules = [
        rule("wte.weight", "embedding"),
        rule("wpe.weight", "position"),
        *prefixed(layer, source="h.#.", path="blocks/layers/"),
        *norm("ln_f", "blocks/norm"),
    ]
    return prefixed(rules, source=start, path="decoder/")


def _as_ours(source: str, path: str) -> list[Rule]:
    return [rule(f"{source}.weight", f"{path}/kernel"), rule(f"{source}.bias", f"{path}/bias")]


FAMILY = Family(
    name="gpt2",
    models=("openai-community/gpt2{,-medium,-large,-xl}", "distilbert/distilgpt2"),
    licence="MIT (GPT-2), Apache-2.0 (DistilGPT2)",
    matches=lambda files: files.config.get("model_type") == "gpt2",
    conversion=_conversion,
)
