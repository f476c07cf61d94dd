"""A video generator: frame autoencoder, condition and velocity field, and the spec that builds it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float, UInt8

from ...base.errors import UserError, unknown
from ...base.section import section
from ...data.options import InputSpec
from ...zoo.spec import ModelSpec
from .autoencoder import AutoencoderOptions, FrameAutoencoder, rgb
from .condition import Cue, TextCondition, TextOptions, TowerCondition, without
from .velocity import VelocityField, VelocityOptions

FORMAT = 1
"""Version of the JSON form of a spec."""


class Fixed(nnx.Variable):
    """A number that is measured once and not trained."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeneratorSpec:
    """All that is needed to build a generator; JSON-able.

    Attributes:
      input: what turns files and strings into its arrays.
      size: side of the square frames, pixels.
      autoencoder: fields of `AutoencoderOptions`.
      flow: fields of `VelocityOptions`.
      condition: `{"kind": "text", "vocab_size": V, fields of TextOptions}` or `{"kind": "tower", "spec": of a
        ModelSpec}`.
      tokenizer: its meta.
      origin: where the parameters come from.
    """

    input: InputSpec
    size: int
    autoencoder: Mapping[str, Any]
    flow: Mapping[str, Any]
    condition: Mapping[str, Any]
    tokenizer: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    origin: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def latents(self) -> tuple[int, int, int, int]:
        """The shape of a clip's latents, [T,h,w,C]."""
        options = self.autoencoder_options
        side = options.grid(self.size)
        return self.input.num_frames, side, side, options.channels

    @property
    def autoencoder_options(self) -> AutoencoderOptions:
        """Sizes of the autoencoder."""
        return section(AutoencoderOptions, self.autoencoder, name="autoencoder")

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form; `from_dict` reads it."""
        return {"format": FORMAT, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, name: str) -> "GeneratorSpec":
        """Read the JSON form.

        Raises:
          UserError: another version of the form, or a field that is unknown or missing.
        """
        if values.get("format") != FORMAT:
            raise UserError(
                f"{name} is of format {values.get('format')!r}, this version of twinreel reads generators of format "
                f"{FORMAT}; use it with the version that wrote it"
            )
        fields: dict[str, Any] = {key: value for key, value in values.items() if key != "format"}
        known = [field.name for field in dataclasses.fields(cls)]
        for key in fields:
            if key not in known:
                raise unknown(f"field of {name}", key, known)
        fields["input"] = section(InputSpec, fields.get("input", {}), name=f"{name}.input")
        return cls(**fields)


class Generator(nnx.Module):
    """Autoencoder, condition and velocity field.

    Attributes:
      autoencoder: of frames.
      condition: reads what a clip is to show.
      flow: the velocity field, over latents of zero mean and unit deviation.
      latent_mean: float32 [C], of the autoencoder's latents.
      latent_std: float32 [C].
    """

    def __init__(self, spec: GeneratorSpec, *, rngs: nnx.Rngs):
        """Build the networks.

        Raises:
          UserError: sizes that do not fit each other.
        """
        shape = spec.latents
        self.autoencoder = FrameAutoencoder(spec.autoencoder_options, rngs=rngs)
        self.condition = _condition(spec, rngs=rngs)
        options = section(VelocityOptions, spec.flow, name="flow")
        self.flow = VelocityField(options, shape=shape, context_width=self.condition.width, rngs=rngs)
        self.latent_mean = Fixed(jnp.zeros((shape[3],), jnp.float32))
        self.latent_std = Fixed(jnp.ones((shape[3],), jnp.float32))

    def latents(self, video: UInt8[Array, "B T H W 3"]) -> Float[Array, "B T h w C"]:
        """Encode clips: the means of their latents, normalised; float32."""
        mean, _ = self.autoencoder.encode(rearrange(video, "b t h w c -> (b t) h w c"))
        mean = (mean - _channels(self.latent_mean, mean)) / _channels(self.latent_std, mean)
        return rearrange(mean, "(b t) h w c -> b t h w c", t=video.shape[1])

    def frames(self, latents: Float[Array, "B T h w C"]) -> UInt8[Array, "B T H W 3"]:
        """Decode normalised latents to RGB."""
        x = latents * _channels(self.latent_std, latents) + _channels(self.latent_mean, latents)
        made = rgb(self.autoencoder.decode(rearrange(x, "b t h w c -> (b t) h w c")))
        return rearrange(made, "(b t) h w c -> b t h w c", t=latents.shape[1])

    def velocity(self, latents: Float[Array, "B T h w C"], *, time: Float[Array, "B"], cue: Cue) -> Array:
        """Return the velocity at points of the flow, float32 [B,T,h,w,C]."""
        return self.flow(latents, time=time, **cue._asdict())

    def told_nothing(self, cue: Cue) -> Cue:
        """Return the cue of clips about which nothing is said, in the shape of `cue`."""
        return without(cue, nothing=self.condition.nothing[...], rows=jnp.ones(len(cue.vector), bool))


def build_generator(spec: GeneratorSpec, *, rngs: nnx.Rngs) -> Generator:
    """Build a generator with fresh parameters; those of a tower are to be filled in.

    Raises:
      UserError: sizes that do not fit each other, or a field that does not exist.
    """
    return Generator(spec, rngs=rngs)


def _condition(spec: GeneratorSpec, *, rngs: nnx.Rngs) -> TextCondition | TowerCondition:
    fields = dict(spec.condition)
    if fields.pop("kind") == "tower":
        return TowerCondition(ModelSpec.from_dict(fields["spec"], name="the spec of the condition's tower"), rngs=rngs)
    vocab_size = fields.pop("vocab_size")
    options = section(TextOptions, fields, name="condition")
    return TextCondition(options, vocab_size=vocab_size, context_length=spec.input.context_length, rngs=rngs)


def _channels(values: Fixed, x: Array) -> Array:
    """Give a value of each channel the rank of `x`."""
    return values[...].reshape(*(1,) * (x.ndim - 1), -1)
