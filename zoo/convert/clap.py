"""CLAP as Hugging Face's transformers writes it (Wu et al. 2023, arXiv:2211.06687): HTSAT for sound, RoBERTa for text.

Texts are cut at 77 tokens, as in its training. Its feature extractor takes a random part of sound that is longer than
the input, twinreel the middle one. In a model with fusion such sound would be seen as a whole, too; twinreel sees the
middle alone. With `--option audio_rate=16000` the model takes sound of the rate of prepared records, and upsamples it.
"""

from collections.abc import Mapping
from typing import Any

from ...base.errors import UserError
from ...data.options import SAMPLE_RATE, InputSpec
from ..spec import ModelSpec
from . import bert
from .clip import dense, norm
from .convolutions import batch_norm
from .family import ACTIVATIONS, Conversion, Family, choice, number
from .files import SourceFiles
from .hf_video import one_number
from .processor import SOUND, settings
from .rules import Rule, prefixed, rule
from .transforms import TRANSPOSED, Transform, rearranged, separate_biases, separate_kernels

_RATE = 48_000
_TRAINED_LENGTH = 77
_BUFFERS = (r".*\.(position_ids|token_type_ids|relative_position_index|num_batches_tracked)", "logit_scale_t")
_SCALES = {"rand_trunc": "slaney", "fusion": "htk"}
"""`truncation` of the feature extractor -> scale of its mel filters."""


def _conversion(files: SourceFiles, *, audio_rate: str) -> Conversion:
    config, name = files.config, files.name
    sound, text = (number(config, f"{side}_config", source=name) for side in ("audio", "text"))
    embed_dim = number(config, "projection_dim", default=512, source=name)
    choice(config.get("projection_hidden_act", "relu"), known={"relu": 0}, key="projection_hidden_act", source=name)
    features = settings(files, sections=SOUND)
    audio, seconds = (
        _audio(sound, features=features, source=name),
        number(features, "max_length_s", default=10, source=name),
    )
    skipped = number(text, "pad_token_id", default=1, source=name) + 1
    positions = number(text, "max_position_embeddings", default=514, source=name) - skipped
    words = _words(text, positions=positions, source=name)
    spec = ModelSpec(
        towers={"audio": {"family": "htsat", **audio}, "text": {"family": "transformer", **words}},
        projections={"audio": "mlp", "text": "mlp"},
        embed_dim=embed_dim,
        input=InputSpec(
            num_frames=0,
            context_length=min(positions, _TRAINED_LENGTH),
            audio_seconds=float(seconds),
            audio_rate=int(audio_rate),
        ),
        tokenizer=files.tokenizer(),
    )
    notes = ["of the two temperatures that of sound is kept (logit_scale_a); that of text (logit_scale_t) is left out"]
    if audio["fusion"]:
        notes.append(f"sound longer than {seconds:g} s is not seen as a whole: its middle is encoded")
    rules = table(audio=audio, text=words, skipped=skipped)
    return Conversion(spec=spec, rules=rules, ignored=_BUFFERS, notes=notes)


def _audio(config: Mapping[str, Any], *, features: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return the arguments of the audio tower, from its config and the settings of the feature extractor."""
    given, fused = dict(config), bool(config.get("enable_fusion", False))
    sizes = {"patch": ("patch_size", 4), "stride": ("patch_stride", 4), "side": ("spec_size", 256)}
    made = {
        key: one_number(given.get(field, default), key=field, source=source) for key, (field, default) in sizes.items()
    }
    mels = number(given, "num_mel_bins", default=64, source=source)
    fixed = {
        "stride": made["patch"],
        "patch_embed_input_channels": 1,
        "flatten_patch_embeds": True,
        "num_mel_bins": mels,
    }
    found = {"stride": made.pop("stride"), "num_mel_bins": features.get("feature_size", mels)}
    found |= {key: given.get(key, fixed[key]) for key in ("patch_embed_input_channels", "flatten_patch_embeds")}
    if fused and given.get("fusion_type") == "channel_map":
        raise UserError(
            f"{source}: fusion_type='channel_map' in its config; twinreel has that of CLAP's releases, 'aff_2d'"
        )
    if found != fixed:
        raise UserError(f"{source}: its config has {found}, wanted {fixed}; twinreel has no other form")
    choice(features.get("sampling_rate", _RATE), known={_RATE: 0}, key="sampling_rate", source=source)
    truncation = features.get("truncation", "fusion" if fused else "rand_trunc")
    act = number(given, "hidden_act", default="gelu", source=source)
    return made | {
        "mels": mels,
        "fft": features.get("fft_window_size", 1024),
        "hop": features.get("hop_length", 480),
        "low_hz": float(features.get("frequency_min", 0)),
        "high_hz": float(features.get("frequency_max", 14_000)),
        "mel_scale": choice(truncation, known=_SCALES, key="truncation", source=source),
        "padding": features.get("padding", "repeatpad"),
        "width": number(given, "patch_embeds_hidden_size", default=96, source=source),
        "depths": list(given.get("depths", (2, 2, 6, 2))),
        "stage_heads": list(given.get("num_attention_heads", (4, 8, 16, 32))),
        "window": number(given, "window_size", default=8, source=source),
        "mlp_ratio": number(given, "mlp_ratio", default=4.0, source=source),
        "activation": choice(act, known=ACTIVATIONS, key="hidden_act", source=source),
        "patch_norm": bool(given.get("enable_patch_layer_norm", True)),
        "fusion": fused,
        "fusion_ratio": number(given, "aff_block_r", default=4, source=source),
        "block": {
            "norm_epsilon": number(given, "layer_norm_eps", default=1e-5, source=source),
            "qkv_bias": bool(given.get("qkv_bias", True)),
        },
    }


def _words(config: Mapping[str, Any], *, positions: int, source: str) -> dict[str, Any]:
    given = dict(config)
    defaults = {"vocab_size": 50_265, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
    defaults |= {"intermediate_size": 3072, "type_vocab_size": 1, "layer_norm_eps": 1e-12, "hidden_act": "gelu"}
    found = {key: number(given, key, default=value, source=source) for key, value in defaults.items()}
    block = {"mlp_hidden": found["intermediate_size"], "norm_epsilon": found["layer_norm_eps"]}
    return {
        "vocab_size": found["vocab_size"],
        "width": found["hidden_size"],
        "depth": found["num_hidden_layers"],
        "heads": found["num_attention_heads"],
        "activation": choice(found["hidden_act"], known=ACTIVATIONS, key="hidden_act", source=source),
        **{"positions": positions, "token_types": found["type_vocab_size"], "embedding_norm": True, "pool": "pooler"},
        "block": block | {"norm_position": "post", "final_norm": False},
    }


def table(*, audio: dict[str, Any], text: dict[str, Any], skipped: int) -> list[Rule]:
    """Return the table of a model with these towers; import and export read it.

    Args:
      audio: arguments of the audio tower.
      text: arguments of the text tower.
      skipped: first rows of the table of positions, which belong to no real token.
    """
    patch = audio["patch"]
    tower = [
        *batch_norm("batch_norm", "mel_norm"),
        rule("patch_embed.proj.weight", "embed/kernel", _patches(patch, columns=patch)),
        rule("patch_embed.proj.bias", "embed/bias"),
        *(norm("patch_embed.norm", "patch_norm") if audio["patch_norm"] else []),
        *(_fusion(patch) if audio["fusion"] else []),
        *norm("norm", "norm"),
    ]
    for stage, depth in enumerate(audio["depths"]):
        heads = audio["stage_heads"][stage]
        for block in range(depth):
            own = _block(heads=heads, bias=audio["block"]["qkv_bias"])
            tower += prefixed(own, source=f"layers.{stage}.blocks.{block}.", path=f"stages/{stage}/{block}/")
        if stage + 1 < len(audio["depths"]):
            tower += norm(f"layers.{stage}.downsample.norm", f"merges/{stage}/norm")
            tower.append(rule(f"layers.{stage}.downsample.reduction.weight", f"merges/{stage}/out/kernel", TRANSPOSED))
    return [
        *prefixed(tower, source="audio_model.audio_encoder.", path="audio/"),
        *bert.table(text=text, start="text_model.", skipped=skipped),
        *dense("audio_projection.linear1", "audio_projection/hidden"),
        *dense("audio_projection.linear2", "audio_projection/out"),
        *dense("text_projection.linear1", "text_projection/hidden"),
        *dense("text_projection.linear2", "text_projection/out"),
        rule("logit_scale_a", "log_scale"),
    ]


def _block(*, heads: int, bias: bool) -> list[Rule]:
    sides = [f"attention.self.{side}" for side in ("query", "key", "value")]
    rules = [
        rule("attention.self.relative_position_bias_table", "relative_bias"),
        rule([f"{side}.weight" for side in sides], "block/attention/qkv/kernel", separate_kernels(heads=heads)),
        *(*dense("attention.output.dense", "block/attention/out"), *norm("layernorm_before", "block/norm1")),
        *(*norm("layernorm_after", "block/norm2"), *dense("intermediate.dense", "block/up")),
        *dense("output.dense", "block/down"),
    ]
    if bias:
        rules.append(rule([f"{side}.bias" for side in sides], "block/attention/qkv/bias", separate_biases(heads=heads)))
    return rules


def _fusion(patch: int) -> list[Rule]:
    rules = [
        rule("patch_embed.mel_conv2d.weight", "fusion/pieces/kernel", _patches(patch, columns=3 * patch)),
        rule("patch_embed.mel_conv2d.bias", "fusion/pieces/bias"),
    ]
    for source, path, first in (("local_att", "near", 0), ("global_att", "far", 1)):
        start = f"patch_embed.fusion_model.{source}"
        for place, layer in ((0, "up"), (3, "down")):
            weight = rule(
                f"{start}.{first + place}.weight", f"fusion/{path}/{layer}/kernel", rearranged("d c 1 1", "c d")
            )
            rules += [weight, rule(f"{start}.{first + place}.bias", f"fusion/{path}/{layer}/bias")]
        for place, layer in ((1, "norm1"), (4, "norm2")):
            rules += batch_norm(f"{start}.{first + place}", f"fusion/{path}/{layer}")
    return rules


def _patches(rows: int, *, columns: int) -> Transform:
    """The kernel of a convolution over patches of one channel as that of a linear map."""
    return rearranged("d 1 p q", "(p q) d", p=rows, q=columns)


FAMILY = Family(
    name="clap",
    models=("laion/clap-htsat-{unfused,fused} (pickles)", "laion/larger_clap_{general,music,music_and_speech}"),
    licence="Apache-2.0",
    matches=lambda files: files.config.get("model_type") == "clap",
    conversion=_conversion,
    options={"audio_rate": (str(_RATE), str(SAMPLE_RATE))},
)
