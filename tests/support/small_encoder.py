"""A tiny dual tower of video, text and sound, with the tokenizer of a golden folder."""

from pathlib import Path

from flax import nnx
from tower_loops import drawn

from twinreel.base.section import section
from twinreel.data.options import InputSpec
from twinreel.data.text.tokenizer import load_tokenizer
from twinreel.encode.embed.encoder import Encoder
from twinreel.zoo.build import build
from twinreel.zoo.spec import ModelOptions, ModelSpec

MODEL = {
    "embed_dim": 6,
    "video": {"image_size": 16, "patch": 8, "width": 8, "depth": 1, "heads": 2, "temporal_depth": 1},
    "text": {"width": 8, "depth": 1, "heads": 2},
    "audio": {"mels": 16, "width": 8, "depth": 1, "heads": 2},
}


def small_spec(**model) -> ModelSpec:
    """Four frames of 16 pixels, 16 tokens, half a second of sound; `model` replaces parts of `config.model`."""
    tokenizer = load_tokenizer(Path(__file__).parents[1] / "golden" / "tokenizers" / "clip_fast")
    given = InputSpec(num_frames=4, eval_video="resize_short(16)|center_crop(16)", context_length=16, audio_seconds=0.5)
    options = section(ModelOptions, MODEL | model, name="model")
    return options.spec(input=given, vocab_size=tokenizer.vocab_size).replace(tokenizer=tokenizer.to_meta())


def small_encoder(**model) -> Encoder:
    """The model of `small_spec`, with initial parameters."""
    spec = small_spec(**model)
    return Encoder(spec=spec, model=build(spec, rngs=nnx.Rngs(0)))


def drawn_encoder(**model) -> Encoder:
    """The model of `small_spec` with random parameters, which is sooner there."""
    spec = small_spec(**model)
    return Encoder(spec=spec, model=drawn(lambda: build(spec, rngs=nnx.Rngs(0))))
