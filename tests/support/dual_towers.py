"""Builds small models for tests, as `zoo` builds them from the sections of a config."""

from flax import nnx

from twinreel.data.options import SAMPLE_RATE, InputSpec
from twinreel.zoo.build import build as build_spec
from twinreel.zoo.spec import ModelOptions, ModelSpec


def input_of(*, num_frames=4, context_length=8, audio_samples=0, **fields):
    """What towers of these sizes take."""
    seconds = audio_samples / SAMPLE_RATE
    return InputSpec(num_frames=num_frames, context_length=context_length, audio_seconds=seconds, **fields)


def build(*, rngs, num_frames, context_length, vocab_size, audio_samples=0, **model):
    """Build the dual tower of a section `model`."""
    options = ModelOptions(**model)
    given = input_of(num_frames=num_frames, context_length=context_length, audio_samples=audio_samples)
    spec = options.spec(input=given, vocab_size=vocab_size)
    return build_spec(spec, rngs=rngs, remat=options.remat, unroll=options.unroll)


def build_classifier(*, video, num_frames, num_classes, head="linear", head_options=None, rngs=None, **layers):
    """Build a video tower with a classification head."""
    labels = [f"class {i}" for i in range(num_classes)]
    spec = ModelSpec(
        towers={"video": {"family": "vivit", **video}},
        input=input_of(num_frames=num_frames),
        heads={"classify": {"kind": head, "labels": labels, **(head_options or {})}},
    )
    return build_spec(spec, rngs=rngs or nnx.Rngs(0), **layers)
