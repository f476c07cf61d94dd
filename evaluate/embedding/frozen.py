"""The frozen features of a model's video side for the clips of a split, computed once and kept on disk."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from ...base.errors import UserError, unknown
from ...data.options import DataOptions, FeedOptions
from ...encode.devices.rows import apply_to_rows, placed_on, rounded_up
from ...encode.embed.views import embed_views
from ...engine.sharding.mesh import make_mesh
from ...engine.start.processes import in_step, of_the_first
from ..npz import read_npz, write_npz
from ..progress import track
from ..protocols.identity import identity

if TYPE_CHECKING:
    from ...data.batches.records import Records

VERSION = 1
"""Of the files; a change of what they hold needs another."""
Rows = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoModel:
    """A model whose video tower gives features: a dual tower, or an encoder of video alone.

    Attributes:
      spec: what it is.
      model: the towers.
      mesh: the devices that compute.
      source: where it was loaded from.
      meta: of the checkpoint that it comes from; {} of a bundle.
    """

    spec: Any
    model: Any
    mesh: Mesh
    source: str
    meta: dict[str, Any]

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """What a protocol says of weights and machine, see `protocols.identity`."""
        return identity(self.model)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrozenOptions:
    """Which features are computed, and of what.

    Attributes:
      kind: "embedding" of the joint space, rows of unit length [m,E]; "pooled", what the video tower gives before the
        projection [m,D]; or "tokens", its vectors over time [m,L,D].
      batch_size: clips at a time, over all devices.
      windows: windows V of each clip, evenly spread: embeddings and pooled vectors are averaged, tokens put together.
      window_seconds: length of a window; 0 = the whole clip, or with several windows its V-th part.
      progress: draw progress bars on standard error.
    """

    kind: str = "embedding"
    batch_size: int = 32
    windows: int = 1
    window_seconds: float = 0.0
    progress: bool = True

    def __post_init__(self):
        if self.kind not in KINDS:
            raise unknown("value of --features", self.kind, KINDS)
        if self.batch_size < 1:
            raise UserError(f"--batch_size is {self.batch_size}; wanted 1 or more")


def load_video(path: str | Path) -> VideoModel:
    """Open a model with a video tower.

    Args:
      path: a run, one of its checkpoints, a bundle, or public weights.

    Raises:
      UserError: nothing readable there, or a model without a video tower.
    """
    from ...zoo.load import load_model, locate

    located = locate(path)
    if "video" not in located.spec.towers:
        raise UserError(
            f"{located.path} has no video tower to probe (it has: {', '.join(located.spec.towers)}); give another MODEL"
        )
    return VideoModel(
        spec=located.spec, model=load_model(located), mesh=make_mesh(), source=str(located.path), meta=located.meta
    )


def frozen_features(video: VideoModel, *, records: "Records", split: str, folder: Path, options: FrozenOptions) -> Rows:
    """Return the features of every clip of a split, from the file in `folder` if it has those of this model.

    All processes must call this; the first one gets the features. The file appears whole or not at all, so a command
    that was interrupted goes on with the split that it was at.

    Args:
      video: the model.
      records: the opened folder of prepared records.
      split: which split.
      folder: receives `SPLIT.KIND.npz`.
      options: which features.

    Returns:
      `features` float32, see `FrozenOptions.kind`, in record order; and for tokens of a tower of precomputed features
      `mask` bool [m,L], True where a token is real.

    Raises:
      UserError: no such split, a model without a joint space where the embedding is asked for, or damaged records.
    """
    if split not in records.splits:
        raise unknown("split", split, records.splits)
    if options.kind == "embedding" and video.spec.embed_dim is None:
        raise UserError(f"{video.source} has a video tower and no joint space, so no embedding; give --features pooled")
    about = _about(video, records=records, split=split, options=options)
    path = folder / f"{split}.{options.kind}.npz"
    kept = _read(path, about=about) if jax.process_index() == 0 else {}
    if of_the_first({"kept": float(bool(kept))})["kept"]:
        return kept
    found = _compute(video, records=records, split=split, options=options)
    if jax.process_index() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        write_npz(path, about=np.frombuffer(json.dumps(about).encode(), np.uint8), **found)
    return found


def _about(video: VideoModel, *, records: "Records", split: str, options: FrozenOptions) -> dict[str, Any]:
    """Return what the features depend on, as JSON values."""
    spec, prepared = video.spec.input, (records.folder / "prepare.json").read_bytes()
    return {
        "version": VERSION,
        "weights_sha256": video.identity["weights_sha256"],
        "prepared_sha256": hashlib.sha256(prepared).hexdigest(),
        "clips": len(records.rows(split)),
        "frames": spec.num_frames,
        "sampling": spec.eval_sampling,
        "preprocessing": spec.eval_video,
        "pixels": [list(spec.pixel_mean), list(spec.pixel_std)],
        "windows": options.windows,
        "window_seconds": options.window_seconds,
    }


def _read(path: Path, *, about: dict[str, Any]) -> Rows:
    """Return the features of a file, {} if there is none of these; says which there are instead."""
    if not path.is_file():
        return {}
    arrays = read_npz(path, wanted={"features": "[m,…]", "about": "JSON"})
    was = json.loads(arrays.pop("about").tobytes())
    if other := [key for key in about if was.get(key) != about[key]]:
        print(f"{path} has features of other {', '.join(other)}; they are computed again", flush=True)
        return {}
    return arrays


def _compute(video: VideoModel, *, records: "Records", split: str, options: FrozenOptions) -> Rows:
    from ...data.batches.pipeline import eval_batches

    size, rows = rounded_up(options.batch_size, mesh=video.mesh), records.rows(split)
    batches = eval_batches(
        _data(video, records=records, options=options),
        tokenizer=cast(Any, _NoTexts()),
        split=split,
        batch_size=size,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    graph, state = nnx.split(video.model)
    state, key, parts = placed_on(video.mesh, state), _key(video), []
    place: list[int] = []
    for batch in track(
        in_step(batches), what=f"{split} clips", total=len(rows), batch_size=size, progress=options.progress
    ):
        got = _of_views(
            lambda one: apply_to_rows(graph, state, one, function=_FUNCTIONS[options.kind], mesh=video.mesh),
            batch,
            key=key,
            kind=options.kind,
        )
        real = got["clip_index"] >= 0
        place += got["clip_index"][real].tolist()
        parts.append({name: got[name][real] for name in ("features", "mask") if name in got})
    if place != list(range(len(rows))):
        raise UserError(
            f"the input pipeline gave {len(place)} of the {len(rows)} clips of split {split!r}; the records are "
            "damaged: prepare the data set again"
        )
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _data(video: VideoModel, *, records: "Records", options: FrozenOptions) -> DataOptions:
    spec = dataclasses.replace(video.spec.input, audio_seconds=0.0, text="")
    feed = FeedOptions(
        batch_size=1, dir=str(records.folder), eval_clips=options.windows, window_seconds=options.window_seconds
    )
    data = DataOptions(input=spec, feed=feed)
    if video.spec.towers["video"]["family"] != "features":
        return data
    return data.replace(num_frames=0, features={video.spec.features["video"]: spec.num_frames})


def _key(video: VideoModel) -> str:
    features = video.spec.towers["video"]["family"] == "features"
    return f"features_{video.spec.features['video']}" if features else "video"


def _of_views(apply: Callable[[Rows], Rows], batch: Rows, *, key: str, kind: str) -> Rows:
    """Return `features`, `clip_index` and, of padded features, `mask` of a batch, over the windows of each clip."""
    rest = {"clip_index": batch["clip_index"]}
    rest |= {"video_mask": batch[f"{key}_mask"]} if f"{key}_mask" in batch else {}
    masks = rest.get("video_mask")
    got: Rows = {}
    seen: list[np.ndarray] = []

    def one(view: np.ndarray) -> np.ndarray:
        own = {"video_mask": masks[:, len(seen)]} if masks is not None and masks.ndim == 3 else {}
        got.update(apply({"video": view, **rest, **own}))
        seen.append(got["features"])
        return got["features"]

    mean = embed_views(one, batch[key]) if kind == "embedding" else None
    if mean is None:
        for view in batch[key].swapaxes(0, 1) if batch[key].ndim == 6 else (batch[key],):
            one(np.ascontiguousarray(view))
        mean = np.concatenate(seen, axis=1) if kind == "tokens" else np.mean(seen, axis=0, dtype=np.float32)
    found = {"features": mean, "clip_index": got["clip_index"]}
    return found | ({"mask": got["video_mask"]} if kind == "tokens" and "video_mask" in got else {})


class _NoTexts:
    """Stands for the tokenizer where texts are not wanted."""

    pad_id, vocab_size = 0, 1

    def encode(self, strings: Any, *, context_length: int) -> tuple[np.ndarray, np.ndarray, int]:
        """Return ids of padding alone."""
        shape = (len(strings), context_length)
        return np.zeros(shape, np.int32), np.zeros(shape, bool), 0

    def lengths(self, strings: Any) -> np.ndarray:
        """Return zeros."""
        return np.zeros(len(strings), np.int64)


def _embedding(model: Any, rows: dict[str, jax.Array]) -> dict[str, jax.Array]:
    rest = dict(rows)
    found = model.encode_video(rest.pop("video"), mask=rest.get("video_mask"))
    return {"features": found.astype(jnp.float32), **rest}


def _pooled(model: Any, rows: dict[str, jax.Array]) -> dict[str, jax.Array]:
    rest = dict(rows)
    found = model.video(rest.pop("video"), drop_patches=False, **_mask(rest))
    return {"features": found.astype(jnp.float32), **rest}


def _tokens(model: Any, rows: dict[str, jax.Array]) -> dict[str, jax.Array]:
    rest = dict(rows)
    found = model.video.features(rest.pop("video"), drop_patches=False, **_mask(rest))
    return {"features": found.astype(jnp.float32), **rest}


def _mask(rows: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return {"mask": rows["video_mask"]} if "video_mask" in rows else {}


_FUNCTIONS = {"embedding": _embedding, "pooled": _pooled, "tokens": _tokens}
KINDS = tuple(_FUNCTIONS)
"""Values of `FrozenOptions.kind`."""
