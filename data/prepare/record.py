"""What a record holds, as a tf.train.Example that TFDS reads, and the line of clips.jsonl that lists it."""

import dataclasses
import functools
import json
from collections.abc import Mapping
from typing import Any

import tensorflow_datasets as tfds

from ..manifest import REFUSED, Clip
from ..media.decode import DecodedClip
from ..said import within
from ..tf_cpu import tf
from .features import Features

_LISTED = ("group", "foils", "features_scale", REFUSED)  # fields of `meta` for which the line has a place of its own


def features() -> tfds.features.FeaturesDict:
    """Return the features of a record (names, types and units: see `example`)."""
    return tfds.features.FeaturesDict(
        {
            "clip_id": tf.string,
            "frames": tfds.features.Sequence(tf.string),
            "timestamps_s": tfds.features.Sequence(tf.float32),
            "height": tf.int32,
            "width": tf.int32,
            "audio": tf.string,
            "has_audio": tf.bool,
            "captions": tfds.features.Sequence(tf.string),
            "labels": tfds.features.Sequence(tf.string),
            "transcript": tf.string,
            "sentences": tf.string,
            "feature_names": tfds.features.Sequence(tf.string),
            "feature_data": tfds.features.Sequence(tf.string),
            "group": tf.string,
            "start_s": tf.float32,
            "end_s": tf.float32,
            "meta": tf.string,
        }
    )


def example(clip: Clip, decoded: DecodedClip, *, stored: Mapping[str, Features]) -> dict[str, Any]:
    """Return the features of one record.

    `frames` n JPEG files or access units of H.264 (see `transforms.units`); `timestamps_s` [n] seconds from the clip's
    start; `height`, `width` pixels of the frames; `audio` little-endian int16 samples, 16 kHz mono, b"" without sound;
    `sentences` JSON, see `sentences`; `feature_names`, `feature_data` precomputed features by modality, a `.npy` file
    each ([n,D] float32, float16 or uint8; of uint8, value = byte * scale + offset, as `features_scale` of `meta` and of
    the line of clips.jsonl say); `start_s`, `end_s` the window in the file; `meta` JSON. A clip without video has no
    frames, height and width 0.
    """
    start = clip.start_s or 0.0
    return {
        "clip_id": clip.clip_id,
        "frames": decoded.encoded,
        "timestamps_s": decoded.timestamps_s,
        "height": decoded.height,
        "width": decoded.width,
        "audio": b"" if decoded.audio is None else decoded.audio.astype("<i2").tobytes(),
        "has_audio": decoded.audio is not None,
        "captions": list(clip.captions),
        "labels": list(clip.labels),
        "transcript": clip.transcript,
        "sentences": json.dumps(sentences(clip, duration_s=decoded.duration_s), ensure_ascii=False),
        "feature_names": list(stored),
        "feature_data": [part.npy for part in stored.values()],
        "group": clip.group,
        "start_s": start,
        "end_s": start + decoded.duration_s,
        "meta": json.dumps(clip.meta, ensure_ascii=False, sort_keys=True),
    }


def sentences(clip: Clip, *, duration_s: float) -> list[dict[str, Any]]:
    """Return what is said within the clip's window, cut to it: the form of `Sentence.to_json`, times from its start."""
    moved = (sentence.moved(-(clip.start_s or 0.0)).to_json() for sentence in clip.sentences)
    cut = (within(sentence, start_s=0.0, end_s=duration_s) for sentence in moved)
    return [_rounded(sentence) for sentence in cut if sentence is not None]


def spans(clip: Clip, *, duration_s: float) -> list[dict[str, Any]]:
    """Return the spans that overlap the clip's window, cut to it: the fields of `Span`, times from its start."""
    start = clip.start_s or 0.0
    return [
        dataclasses.asdict(stretch)
        | {
            "start_s": round(max(stretch.start_s - start, 0.0), 4),
            "end_s": round(min(stretch.end_s - start, duration_s), 4),
        }
        for stretch in clip.spans
        if stretch.start_s - start < duration_s and stretch.end_s > start
    ]


def _rounded(sentence: dict[str, Any]) -> dict[str, Any]:
    """A sentence with times to a tenth of a millisecond."""
    made = sentence | {key: round(sentence[key], 4) for key in ("start_s", "end_s")}
    if "words" in sentence:
        made["words"] = [[round(first, 4), round(last, 4), word] for first, last, word in sentence["words"]]
    return made


def _further(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of `meta` that stand nowhere else in the line of clips.jsonl."""
    return {key: value for key, value in meta.items() if key not in _LISTED}


def serialize(fields: dict[str, Any]) -> bytes:
    """Return the record of the features that `example` returns, as TFDS serializes them (tf.train.Example).

    Written here for its speed, and because protobuf's own order of the features changes from process to process.
    """
    specs = _specs()
    if fields.keys() != specs.keys():
        raise KeyError(f"features of records: {sorted(specs)}, got {sorted(fields)}")
    made = {}
    for name, value in fields.items():
        values = value if specs[name].shape.rank else [value]
        if specs[name].dtype == tf.string:
            encoded = [item.encode() if isinstance(item, str) else item for item in values]
            made[name] = tf.train.Feature(bytes_list=tf.train.BytesList(value=encoded))
        elif specs[name].dtype.is_floating:
            made[name] = tf.train.Feature(float_list=tf.train.FloatList(value=values))
        else:
            made[name] = tf.train.Feature(int64_list=tf.train.Int64List(value=list(map(int, values))))
    return tf.train.Example(features=tf.train.Features(feature=made)).SerializeToString(deterministic=True)


@functools.cache
def _specs() -> Any:
    return features().get_tensor_spec()


def row_of(clip: Clip, decoded: DecodedClip, *, stored: Mapping[str, Features], index: int) -> dict[str, Any]:
    """Return the line of clips.jsonl for one record; `index` counts from the shard's first record."""
    return {
        "split": clip.split,
        "index": index,
        "clip_id": clip.clip_id,
        "file": str(clip.path),
        "captions": list(clip.captions),
        "labels": list(clip.labels),
        "spans": spans(clip, duration_s=decoded.duration_s),
        "questions": [dataclasses.asdict(question) for question in clip.questions],
        "transcript": clip.transcript,
        "sentences": sentences(clip, duration_s=decoded.duration_s),
        "features": {name: list(part.shape) for name, part in stored.items()},
        "features_scale": {name: list(part.scale) for name, part in stored.items() if part.scale},
        "group": clip.group or None,
        **({"foils": clip.foils} if clip.foils else {}),
        **({"meta": meta} if (meta := _further(clip.meta)) else {}),
        "duration_s": round(decoded.duration_s, 4),
        "num_frames": len(decoded.encoded),
        "has_audio": decoded.audio is not None,
        "silent": decoded.silent,
        "height": decoded.height,
        "width": decoded.width,
        "source": decoded.source,
        **({} if decoded.fingerprint is None else dataclasses.asdict(decoded.fingerprint)),
    }
