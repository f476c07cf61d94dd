"""A trained generator on the devices of a mesh: texts or clips to clips, and edits of clips by text."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import UInt8
from rich.console import Console
from rich.progress import Progress

from ...base.errors import UserError, unknown
from ...data.text.clean import text_cleaner
from ...data.text.tokenizer import tokenizer_from_meta
from ...encode.devices.rows import apply_to_rows, padded, placed_on, rounded_up, shares
from ...encode.media.files import frames_of_files
from ...engine.keeping.checkpoint import read_meta, read_params, resolve
from ...engine.keeping.transfer import fill, plan_transfer, shapes
from ...engine.sharding.mesh import make_mesh
from ...models.layers.draws import numbered_keys
from ..flow.edit import METHODS, edit_by_difference, edit_by_noise, edit_by_way_back
from ..flow.solve import SolverOptions, Velocity, guided, solve
from ..models.condition import Cue, TowerCondition
from ..models.generator import Generator, GeneratorSpec, build_generator
from ..train.begin import META

Clips = UInt8[np.ndarray, "n T H W 3"]


class Painter:
    """A generator with its tokenizer and its input.

    In a run of several processes all of them must make the same calls, and all get all results.

    Attributes:
      spec: what the model is.
      mesh: the devices that compute.
      source: where the model was loaded from.
      progress: whether a bar is drawn on standard error while clips are generated.
    """

    def __init__(
        self,
        *,
        spec: GeneratorSpec,
        model: Generator,
        mesh: Mesh | None = None,
        source: str = "",
        progress: bool = False,
    ):
        """Put a model on the devices; None = all of them."""
        self.spec, self.source, self.mesh, self.progress = spec, source, mesh or make_mesh(), progress
        self._graph, state = nnx.split(model)
        self._state = placed_on(self.mesh, state)
        self._tokenizer = tokenizer_from_meta(dict(spec.tokenizer))

    @property
    def model(self) -> Generator:
        """The module."""
        return nnx.merge(self._graph, self._state)

    @property
    def takes_clips(self) -> bool:
        """Whether the condition may be a clip's embedding."""
        return self.spec.condition["kind"] == "tower"

    def paint(
        self,
        texts: Sequence[str],
        *,
        solver: SolverOptions | None = None,
        seed: int = 0,
        first: int = 0,
        batch_size: int = 16,
    ) -> Clips:
        """Generate a clip for each text.

        Args:
          texts: what the clips show; n of them.
          solver: how they are drawn; None = its defaults.
          seed: with the number of a text it determines the clip's noise: the same whatever the batch size.
          first: the number of the first text.
          batch_size: clips at a time.

        Returns:
          uint8 RGB [n,T,H,W,3].

        Raises:
          UserError: no text, or one without a known word.
        """
        rows = self._texts(texts) | {"number": first + np.arange(len(texts))}
        return self._apply(rows, function=_from_text(solver or SolverOptions()), seed=seed, batch_size=batch_size)

    def paint_like(
        self, video: Clips, *, solver: SolverOptions | None = None, seed: int = 0, first: int = 0, batch_size: int = 16
    ) -> Clips:
        """Generate clips that the condition's tower embeds like the given ones; for the arguments see `paint`.

        Raises:
          UserError: the generator is conditioned on texts alone.
        """
        if not self.takes_clips:
            raise UserError(
                f"the generator {self.source} is conditioned on texts alone; train one with config.condition.kind="
                "'tower' (`--config demo_generate:tower`) to generate from the embedding of a clip"
            )
        rows = {"video": self._checked(video), "number": first + np.arange(len(video))}
        return self._apply(rows, function=_from_clip(solver or SolverOptions()), seed=seed, batch_size=batch_size)

    def edit(
        self,
        video: Clips,
        *,
        new: Sequence[str],
        old: Sequence[str] | None = None,
        strength: float = 0.7,
        method: str = "difference",
        solver: SolverOptions | None = None,
        seed: int = 0,
        batch_size: int = 16,
    ) -> Clips:
        """Change what a text says of clips, and keep the rest.

        Pixels that the edit leaves alone, to within 6 of 255 in the decoded clips, are those of the given clip.

        Args:
          video: uint8 RGB [n,T,H,W,3], n clips.
          new: n texts that describe the clips after the edit.
          old: n texts that describe the clips as they are; None = "about them nothing is known" (weaker).
          strength: share of the way to noise that the edit goes back, 0..1: 0 returns the clips, 1 allows anything.
          method: one of `flow.edit.METHODS`.
          solver: steps over the whole way and guidance, which the new text alone gets; None = the defaults.
          seed: of the noise of clip i.
          batch_size: clips at a time.

        Returns:
          uint8 RGB [n,T,H,W,3].

        Raises:
          UserError: an unknown method, a strength outside of 0..1, or another number of texts than of clips.
        """
        if method not in METHODS:
            raise unknown("--method of an edit", method, METHODS)
        if not 0 <= strength <= 1:
            raise UserError(f"--strength must be a share from 0 to 1, got {strength:g}")
        video = self._checked(video)
        rows = {"video": video, "number": np.arange(len(video))} | self._texts(new)
        if old is not None:
            rows |= {f"old_{key}": value for key, value in self._texts(old).items()}
        for key, value in rows.items():
            if len(value) != len(video):
                raise UserError(f"{len(video)} clips, but {len(value)} values of {key}; give one text for each clip")
        solver = solver or SolverOptions()
        function = _edited(solver, float(strength), method, old is not None)
        return self._apply(rows, function=function, seed=seed, batch_size=batch_size)

    def repaint(self, video: Clips, *, batch_size: int = 16) -> Clips:
        """Encode and decode clips by the autoencoder alone: the best that the generator can paint."""
        return self._apply({"video": self._checked(video)}, function=_repainted, seed=0, batch_size=batch_size)

    def frames_of(self, paths: Sequence[Path], *, workers: int = 0) -> Clips:
        """Decode media files to the frames that the generator works on.

        Raises:
          UserError: a file that cannot be decoded.
        """
        parts = list(frames_of_files(self.spec.input, paths, batch_size=max(len(paths), 1), workers=workers))
        return np.concatenate([part["video"] for part in parts])

    def check_lengths(self, texts: Sequence[str]) -> None:
        """Refuse texts that have more tokens than the generator reads: what is behind them would not be painted.

        Raises:
          UserError: there is one.
        """
        length = self.spec.input.context_length
        for text, tokens in zip(texts, self.lengths(texts), strict=True):
            if tokens > length:
                raise UserError(f"the text {text!r} has {tokens} tokens, and the generator reads {length}; shorten it")

    def lengths(self, texts: Sequence[str]) -> np.ndarray:
        """Return the tokens of each text, int64 [n]; those beyond `spec.input.context_length` are not read."""
        clean = text_cleaner(self.spec.input.text)
        return self._tokenizer.lengths([clean(text) for text in texts])

    def _texts(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        if isinstance(texts, str) or not len(texts):
            raise UserError(f"wanted a list of texts, got {texts!r}")
        clean = text_cleaner(self.spec.input.text)
        length = self.spec.input.context_length
        ids, mask, _ = self._tokenizer.encode([clean(text) for text in texts], context_length=length)
        for text, real in zip(texts, np.asarray(mask, bool), strict=True):
            if not text.strip() or not real.any():
                raise UserError(f"the text {text!r} has no word that the generator knows; say what the clip shows")
        return {"text": np.asarray(ids, np.int32), "text_mask": np.asarray(mask, bool)}

    def _checked(self, video: Clips) -> Clips:
        video, size = np.asarray(video), self.spec.size
        wanted = (self.spec.input.num_frames, size, size, 3)
        if video.dtype != np.uint8 or video.ndim != 5 or video.shape[1:] != wanted:
            raise UserError(
                f"clips of dtype {video.dtype} and shape {video.shape}; wanted uint8 [n,{','.join(map(str, wanted))}]"
            )
        return video

    def _apply(self, rows: dict[str, np.ndarray], *, function: Any, seed: int, batch_size: int) -> Clips:
        if batch_size < 1:
            raise UserError(f"--batch_size must be at least 1, got {batch_size}")
        if not 0 <= seed < 2**32:
            raise UserError(f"--seed must be from 0 to 2**32 - 1, got {seed}")
        total = len(next(iter(rows.values())))
        size = rounded_up(min(batch_size, max(total, 1)), mesh=self.mesh)
        if "number" in rows:
            rows = rows | {"number": rows["number"].astype(np.int32)}
        shared = {"seed": np.asarray(seed, np.uint32)}
        found = []
        for own in self._shares(total, batch_size=size):
            part = {key: padded(value[own], size=size // jax.process_count()) for key, value in rows.items()}
            made = apply_to_rows(
                self._graph, self._state, part, function=function, mesh=self.mesh, shared=shared
            )  # fmt: skip
            found.append(made["video"])
        return np.concatenate(found)[:total]

    def _shares(self, total: int, *, batch_size: int) -> Iterator[slice]:
        """Yield the rows of each batch that are this process's own, under a progress bar."""
        shown = self.progress and jax.process_index() == 0
        with Progress(console=Console(stderr=True), transient=True, disable=not shown) as bar:
            task = bar.add_task("clips", total=total)
            for _, own in shares(total, batch_size=batch_size):
                yield own
                bar.advance(task, batch_size)


def load_painter(path: str | Path, *, mesh: Mesh | None = None, progress: bool = False) -> Painter:
    """Open a generator: a run of `twinreel generate train` (its newest checkpoint), or one checkpoint.

    Raises:
      UserError: nothing readable there, another kind of model, or parameters that do not fit.
    """
    folder = resolve(path)
    meta = read_meta(folder)
    spec = generator_spec(meta, name=str(path))
    model = nnx.eval_shape(lambda: build_generator(spec, rngs=nnx.Rngs(0)))
    plan = plan_transfer(read_params(folder), target=shapes(model), parts=(".*",), name=str(folder))
    fill(model, values=plan.values)
    return Painter(spec=spec, model=model, mesh=mesh, source=str(path), progress=progress)


def generator_spec(meta: Mapping[str, Any], *, name: str) -> GeneratorSpec:
    """Read the spec of a generator in the meta of a checkpoint.

    Raises:
      UserError: the checkpoint is of another kind of run, or of the first stage.
    """
    if META not in meta:
        raise UserError(
            f"{name} holds no video generator (its objective is {meta.get('objective', 'unknown')!r}); give a workdir "
            "of `twinreel generate train`"
        )
    if meta.get("objective") == "autoencoder":
        raise UserError(f"{name} is the first stage of a generator, its autoencoder; give the workdir of the whole run")
    return GeneratorSpec.from_dict(meta[META], name=f"the generator of {name}")


_KEPT = 6  # of 255: what an edit changes less than this stays as it was


def _noise(rows: Mapping[str, jax.Array], *, shape: tuple[int, ...]) -> jax.Array:
    """Return the noise of rows, a function of the seed and of their numbers."""
    keys = numbered_keys(jax.random.key(rows["seed"]), numbers=rows["number"])
    return jax.vmap(lambda key: jax.random.normal(key, shape, jnp.float32))(keys)


def _field(model: Generator, cue: Cue, *, guidance: float) -> Velocity:
    """Return the velocity field under a cue; with guidance each call asks twice as many rows at once."""
    told_nothing = model.told_nothing(cue)
    both = Cue(*(jnp.concatenate(pair) for pair in zip(cue, told_nothing, strict=True)))

    def velocity(x: jax.Array, time: jax.Array) -> jax.Array:
        rows = len(x)
        if guidance in (0.0, 1.0):
            return model.velocity(x, time=jnp.full((rows,), time), cue=cue if guidance else told_nothing)
        found = model.velocity(jnp.concatenate([x, x]), time=jnp.full((2 * rows,), time), cue=both)
        return guided(found[:rows], found[rows:], guidance=guidance)

    return velocity


def _painted(model: Generator, cue: Cue, rows: Mapping[str, jax.Array], *, solver: SolverOptions) -> dict[str, Any]:
    noise = _noise(rows, shape=model.flow.shape)
    field = _field(model, cue, guidance=solver.guidance)
    latents = solve(field, noise, begin=0.0, end=1.0, steps=solver.steps, method=solver.method)
    return {"video": model.frames(latents)}


@functools.cache
def _from_text(solver: SolverOptions) -> Any:
    """Return the function from texts to clips; one for each way to draw, so that each compiles once."""

    def function(model: Generator, rows: dict[str, jax.Array]) -> dict[str, jax.Array]:
        cue = model.condition.of_text(rows["text"], mask=rows["text_mask"])
        return _painted(model, cue, rows, solver=solver)

    return function


@functools.cache
def _from_clip(solver: SolverOptions) -> Any:
    def function(model: Generator, rows: dict[str, jax.Array]) -> dict[str, jax.Array]:
        assert isinstance(model.condition, TowerCondition)
        return _painted(model, model.condition.of_video(rows["video"]), rows, solver=solver)

    return function


def _repainted(model: Generator, rows: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return {"video": model.frames(model.latents(rows["video"]))}


@functools.cache
def _edited(solver: SolverOptions, strength: float, method: str, has_old: bool) -> Any:
    def function(model: Generator, rows: dict[str, jax.Array]) -> dict[str, jax.Array]:
        data = model.latents(rows["video"])
        cue = model.condition.of_text(rows["text"], mask=rows["text_mask"])
        before = model.told_nothing(cue)
        if has_old:
            before = model.condition.of_text(rows["old_text"], mask=rows["old_text_mask"])
        how = {"new": _field(model, cue, guidance=solver.guidance), "strength": strength, "solver": solver}
        old = _field(model, before, guidance=1.0)
        if method == "difference":
            made = edit_by_difference(data, _noise(rows, shape=data.shape[1:]), old=old, **how)
        elif method == "invert":
            made = edit_by_way_back(data, old=old, **how)
        else:
            made = edit_by_noise(data, _noise(rows, shape=data.shape[1:]), **how)
        return {"video": _kept(rows["video"], before=model.frames(data), after=model.frames(made))}

    return function


def _kept(video: jax.Array, *, before: jax.Array, after: jax.Array) -> jax.Array:
    """Return `after`, but the clip itself where `before` and `after`, both decoded from latents, hardly differ."""
    moved = jnp.abs(after.astype(jnp.int32) - before.astype(jnp.int32)).max(axis=-1, keepdims=True)
    return jnp.where(moved < _KEPT, video, after)
