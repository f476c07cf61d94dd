"""Where reference statistics lie, and how they are recorded."""

import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...base.errors import UserError
from ...data.hub import is_hub
from ...data.text.clean import text_cleaner
from ...encode.embed.encoder import Encoder
from ...engine.step.state import split_model
from ...evaluate.embedding.statistics import FILE, Canary, SideStatistics, Statistics, TextStatistics, enough
from ...evaluate.measures.ranks import ranks
from ...evaluate.measures.rows import cosine, unit_rows
from ...evaluate.runs import around
from ...zoo.digest import model_sha256, params_sha256
from .rows import Data, RowOptions, read_sources

_MOST_SCORES = 10**8


def place_of(model: str, *, stats: Path | None) -> Path:
    """Return where the reference statistics of a model lie, or are to be recorded.

    Args:
      model: MODEL of the command line.
      stats: the file that was asked for; None = in the folder of the model.

    Raises:
      UserError: a model without a local folder.
    """
    if stats is not None:
        return stats
    if is_hub(model) or "://" in model or not Path(model).is_dir():
        raise UserError(f"{model} is no local folder in which statistics can lie; give --stats FILE.npz")
    return Path(model) / FILE


def find(model: str, *, stats: Path | None) -> Path:
    """Return the file of the reference statistics.

    Args:
      model: MODEL: a file of statistics or embeddings, or a model in or around whose folder they lie.
      stats: the file that was asked for; None = to be found.

    Raises:
      UserError: there is none.
    """
    if stats is not None:
        return stats
    path = Path(model)
    if path.suffix == ".npz":
        return path
    places = [path / FILE, path / "report" / FILE, path / "report" / "embeddings.npz", path / "embeddings.npz"]
    found = next((place for place in places if place.is_file()), None) or around(path, name=FILE)
    if found is None:
        raise UserError(
            f"{model} has no reference statistics ({FILE}); record them once from data that the model was checked on: "
            f"`twinreel monitor {model} --record DATA`, or give --stats FILE"
        )
    return found


def identity_of(encoder: Encoder) -> dict[str, Any]:
    """Return the keys of `Statistics.model`."""
    weights = params_sha256({path: np.asarray(value) for path, value in split_model(encoder.model).items()})
    digest = model_sha256(weights, given=encoder.input)
    return {"width": encoder.embed_dim, "weights_sha256": weights, "model_sha256": digest, "source": encoder.source}


def record(data: Data, *, queries: list[str], canary: Canary | None, encoder: Encoder | None) -> Statistics:
    """Measure reference data.

    Args:
      data: what the model was checked on.
      queries: real queries; [] = the texts of the data.
      canary: ranks on the canary set; None without one.
      encoder: the model; None = unknown.

    Raises:
      UserError: too few rows.
    """
    sides = dict(data.sides)
    texts = queries or data.texts
    if queries and encoder is not None:
        sides["text"] = encoder.encode_text(queries)
    kept, few = enough(sides)
    for line in few:
        print(f"warning: {line}", file=sys.stderr)
    unknown = of_tokens(encoder, texts)["unknown"] if texts else None
    model = identity_of(encoder) if encoder else {"width": next(iter(sides.values())).shape[1]}
    if encoder is None and len(data.models) == 1:
        model["model_sha256"] = next(iter(data.models))
    return Statistics(
        sides={name: SideStatistics.of(rows, name=name) for name, rows in kept.items()},
        texts=TextStatistics.of(texts, unknown=unknown) if texts else None,
        canary=canary,
        model=model,
        made={"kind": data.kind},
    )


def of_tokens(encoder: Encoder | None, texts: Sequence[str]) -> dict[str, Any]:
    """Return what the tokenizer makes of texts: None where there is none.

    Returns:
      `unknown`, the share of tokens that the vocabulary does not have, and `truncated`, how many texts are too long.
    """
    if encoder is None or not encoder.spec.tokenizer:
        return {"unknown": None, "truncated": None}
    clean = text_cleaner(encoder.input.text)
    cleaned = [clean(text) for text in texts]
    truncated = int((encoder.tokenizer.lengths(cleaned) > encoder.input.context_length).sum())
    return {"unknown": encoder.tokenizer.unknown_share(cleaned), "truncated": truncated}


def check_model(reference: Statistics, *, encoder: Encoder | None) -> None:
    """Raise UserError if the reference is of another model than the one that embeds the new data."""
    if encoder is None:
        return
    own, known = identity_of(encoder), reference.model
    if known.get("width") not in (None, own["width"]):
        raise UserError(
            f"the reference has embeddings of width {known['width']}, and {encoder.source} makes {own['width']}: it is "
            "of another model; record it again"
        )
    for key in ("model_sha256", "weights_sha256"):
        if known.get(key) not in (None, own[key]):
            raise UserError(
                f"the reference is of other weights ({known.get('source') or 'unknown'}, {key} {known[key][:12]}) than "
                f"{encoder.source} ({own[key][:12]}), and embeddings of two models cannot be compared; record the "
                "reference again: `twinreel monitor MODEL --record DATA`"
            )


def measure_canary(source: str, *, encoder: Encoder, options: RowOptions) -> Canary:
    """Rank the clips of a canary set for each of their captions.

    Args:
      source: a prepared folder, or a manifest with captions.
      encoder: the model.
      options: how it is embedded; `split` is its split.

    Raises:
      UserError: no captions, or too many clips.
    """
    data = read_sources([source], encoder=encoder, options=options)
    if data.video_of_text is None or not data.texts:
        raise UserError(f"--canary {source} has no captions to search by; give a prepared folder or a manifest of some")
    if data.rejected:
        path, reason = data.rejected[0]
        raise UserError(f"--canary {source}: {path} cannot be decoded ({reason}); repair it")
    text, video = data.sides["text"], data.sides["video"]
    if len(text) * len(video) > _MOST_SCORES:
        raise UserError(
            f"--canary {source} has {len(text):,} captions and {len(video):,} clips; a canary set is small: at most "
            f"{_MOST_SCORES:,} pairs"
        )
    scores = cosine(unit_rows(text, name="text"), gallery=unit_rows(video, name="video"))
    found = ranks(scores, positives=data.video_of_text)
    name = json.dumps([data.texts, data.video_of_text.tolist(), len(video)])
    identity = hashlib.sha256(name.encode()).hexdigest()
    return Canary(above=found.above, equal=found.equal, clips=data.video_of_text, identity=identity)
