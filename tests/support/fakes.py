"""Embeddings, rows and frames without a model or a data set."""

import io

import numpy as np
from PIL import Image

from twinreel.evaluate.embedding.embeddings import Embeddings
from twinreel.evaluate.protocols.minimal_pairs import Foils


def embeddings(*, videos=24, captions=2, width=16, noise=0.6, groups=True, foils=False, seed=0) -> Embeddings:
    """Captions near their clip; clips 0 and 1, 2 and 3, ... of the first half are twins.

    With `foils` each clip's first caption has two: of the colour, far from it, and of the shape, with its embedding.
    """
    rng = np.random.default_rng(seed)
    video = rng.normal(size=(videos, width))
    video_of_text = np.repeat(np.arange(videos), captions)
    text = video[video_of_text] + noise * rng.normal(size=(len(video_of_text), width))
    half = videos // 2
    rows = [
        {
            "split": "test",
            "index": i,
            "clip_id": f"clip{i:03d}",
            "captions": [f"caption {k} of <clip> {i} & more" for k in range(captions)],
            "labels": [],
            "group": f"pair{i // 2}" if groups and i < half else None,
            "width": 64,
            "height": 48,
            "duration_s": 1.0 + i % 8 / 4,
            "meta": {"camera": ("still", "moving")[i % 2], "film_id": f"film {i}"},
        }
        for i in range(videos)
    ]
    return Embeddings(
        text=text.astype(np.float32),
        video=video.astype(np.float32),
        video_of_text=video_of_text,
        controls={"shuffled_frames": rng.normal(size=(videos, width)).astype(np.float32)} if groups else {},
        captions=[text for row in rows for text in row["captions"]],
        rows=rows,
        protocol={"dataset": "fakes", "split": "test", "frames": 4, "step": 7, "captions": "all"},
        foils=colour_and_shape(text[::captions].astype(np.float32), captions=captions) if foils else None,
        coverage={"expected": videos, "found": videos, "missing": 0, "fraction": 1.0, "missing_clips": []},
    )


def colour_and_shape(text: np.ndarray, *, captions: int) -> Foils:
    """Foils of a model that reads colours only, of each clip's first caption [m,E]."""
    of_text = captions * np.repeat(np.arange(len(text)), 2)
    embedding = np.stack([-text, text], axis=1).reshape(-1, text.shape[1])
    return Foils(embedding=embedding, of_text=of_text, names=np.array(["colour", "shape"] * len(text)))


def jpeg(value: int, *, size=(64, 48)) -> bytes:
    """One grey frame."""
    out = io.BytesIO()
    Image.new("RGB", size, (value, value, value)).save(out, "JPEG", quality=95)
    return out.getvalue()


def frames(records, *, split, index):
    """Stand in for `pictures.clip_frames`: eight frames, a quarter of a second apart, ever brighter."""
    del records
    assert split == "test"
    return [jpeg(30 * k) for k in range(8)], np.arange(8, dtype=np.float32) / 4
