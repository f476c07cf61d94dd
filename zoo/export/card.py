"""The model card of an export: README.md with the header that the Hugging Face Hub reads."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ...base.errors import UserError
from ...engine.keeping.checkpoint import FOLDER
from ..load import Located
from ..spec import MODALITIES, ModelSpec
from .compare import Check, Written
from .folder import CARD, MARK, files_section
from .model_index import model_index

RESULTS = "retrieval.json"
_LIBRARIES = {"hf": "transformers", "open_clip": "open_clip", "stablehlo": "jax", "onnx": "onnx"}
_LICENCES = {"MIT": "mit", "Apache-2.0": "apache-2.0", "BSD-3-Clause": "bsd-3-clause"}
"""Licence as `zoo.convert` states it -> its id on the Hub."""
_DIRECTIONS = {"text_to_video": "text to video", "video_to_text": "video to text"}
_SECTIONS = ("model", "data", "loss", "optimizer", "train", "seed")
"""Sections of the run's config that a card shows."""


def write_card(
    folder: Path,
    *,
    located: Located,
    source: str,
    format: str,
    written: Written,
    results: Mapping[str, Any],
    name: str,
) -> None:
    """Write README.md.

    Args:
      folder: of the export.
      located: the model.
      source: what the user called it.
      format: of the export.
      written: what was written, and what was compared.
      results: content of `retrieval.json`, {} for none.
      name: what `FOLDER` in its lines of Python stands for.
    """
    spec = located.spec
    parts = [
        _header(spec, format=format, index=model_index(results, name=name) if results else []),
        f"# {name.rpartition('/')[2]}\n\n{_summary(spec, title=written.title)}",
        f"## Use\n\n```python\n{_usage(written.usage, name=name)}\n```\n\n{_input(spec)}",
        _origin(located, source=source),
        _training(located.meta),
        _numbers(results, meta=located.meta),
        _equality(written.checks),
        "## Notes\n\n" + "\n".join(f"- {note}" for note in written.notes) if written.notes else "",
        files_section(folder),
    ]
    text = "\n\n".join(part for part in parts if part) + f"\n\nWritten by {MARK}.\n"
    (folder / CARD).write_text(text, encoding="utf-8")


def find_results(given: str, *, located: Located, source: str) -> dict[str, Any]:
    """Read the numbers of an evaluation: those of `given`, or of a retrieval.json in the workdir or its report/.

    Raises:
      UserError: the file cannot be read, is no such file, or belongs to another run or step.
    """
    own = located.meta.get("step")
    if not given:
        places = [Path(source) / folder / RESULTS for folder in ("", "report")]
        read = [_read(path) for path in places if path.is_file()]
        return next((one for one in read if one["protocol"].get("step") == own), {})
    path = Path(given)
    chosen = _read(path / RESULTS if path.is_dir() else path)
    step = chosen["protocol"].get("step")
    if step != own:
        raise UserError(
            f"--results {given} is of step {step}, the model of step {own}; evaluate the model that you export"
        )
    measured = chosen["protocol"].get("checkpoint")
    if own is not None and measured and not _runs(measured) & _runs(str(located.path)):
        raise UserError(
            f"--results {given} is of {measured}, which is not the run of {located.path}; evaluate the model that you "
            "export"
        )
    return chosen


def _runs(path: str) -> set[str]:
    """Return what the workdir of a run may be called whose path, perhaps on another machine, this is.

    >>> sorted(_runs("runs/demo")), sorted(_runs("/home/me/runs/demo/checkpoints/720"))
    (['demo'], ['720', 'demo'])
    """
    place = Path(path)
    names = [place.name, place.parent.name, place.parent.parent.name]
    return {names[0], *(names[i + 1] for i in (0, 1) if names[i] == FOLDER)}


def _read(path: Path) -> dict[str, Any]:
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"--results {path} cannot be read: {error}; give the {RESULTS} of `twinreel evaluate`"
        ) from error
    if not isinstance(read, dict) or not isinstance(read.get("protocol"), dict):
        raise UserError(f"--results {path} has no protocol; give the {RESULTS} of `twinreel evaluate`")
    return read


def _header(spec: ModelSpec, *, format: str, index: Sequence[Any]) -> str:
    ids = {_LICENCES.get(licence, "other") for licence in _licences(spec.origin)}
    values: dict[str, Any] = {"license": ids.pop() if len(ids) == 1 else "other"} if ids else {}
    tags = ["twinreel", *(side for side in spec.towers), "feature-extraction"]
    if spec.embed_dim is not None and "video" in spec.towers:
        tags.append("video-text-retrieval")
    values |= {"library_name": _LIBRARIES.get(format, format), "pipeline_tag": "feature-extraction", "tags": tags}
    values |= {"model-index": index} if index else {}
    return f"---\n{yaml.safe_dump(values, sort_keys=False, allow_unicode=True)}---"


def _usage(lines: str, *, name: str) -> str:
    if "/" in name:
        lines = lines.replace("local-dir:FOLDER", f"hf-hub:{name}")
    return lines.replace("FOLDER", name)


def _summary(spec: ModelSpec, *, title: str) -> str:
    towers = {side: _described(tower) for side, tower in spec.towers.items()}
    lines = [f"- {side}: {text}" for side, text in towers.items()]
    if spec.embed_dim is not None:
        kind = f"A dual tower with {spec.embed_dim}-dimensional embeddings"
    else:
        kind = f"A {' and '.join(spec.towers)} encoder"
    return f"{kind}, exported from twinreel as {title}.\n\n" + "\n".join(lines)


def _described(tower: Mapping[str, Any]) -> str:
    inner = tower.get("image", tower)
    sizes = [f"{key} {inner[key]}" for key in ("variant", "width", "depth", "heads", "patch", "pool") if key in inner]
    over = [f"over time: {tower.get('over_time', 'mean')}"] if "image" in tower else []
    return ", ".join([str(tower["family"]), *sizes, *over])


def _input(spec: ModelSpec) -> str:
    given, lines = spec.input, []
    if "video" in spec.towers:
        mean, std = (", ".join(f"{x:.6g}" for x in values) for values in (given.pixel_mean, given.pixel_std))
        lines += [
            f"- frames: {given.num_frames}, drawn by `{given.eval_sampling}`, made by `{given.eval_video}`",
            f"- pixels: scaled to 0..1, mean ({mean}), standard deviation ({std})",
        ]
    if "text" in spec.towers:
        cleaning = f"`{given.text}`" if given.text else "none"
        lines.append(f"- texts: at most {given.context_length} tokens; cleaning: {cleaning}")
    if "audio" in spec.towers:
        lines.append(f"- sound: {given.audio_seconds:g} s at 16 kHz")
    return "Input on which the model was trained and evaluated:\n\n" + "\n".join(lines)


def _origin(located: Located, *, source: str) -> str:
    origin = located.spec.origin
    rows = {
        "exported from": f"`{_short(source)}`" + (f", step {located.meta['step']}" if "step" in located.meta else ""),
        "made by": origin.get("made_by"),
        "public source": _short(str(origin.get("source", ""))) if origin.get("made_by") == "convert" else None,
        "revision": origin.get("revision"),
        **{
            f"{side} tower from" if side in MODALITIES else f"{side} from": _source(one)
            for side, one in (origin.get("sources") or {}).items()
        },
        "licence of the weights": ", ".join(_licences(origin)) or "not stated",
        "sha256 of the public parameters": origin.get("sha256"),
        "began with": _began(located.meta),
    }
    return "## Origin\n\n" + "\n".join(f"- {key}: {value}" for key, value in rows.items() if value)


def _licences(origin: Mapping[str, Any]) -> list[str]:
    """Return the licences of a model and of those that its towers come from, each once."""
    sources = [*(origin.get("sources") or {}).values(), *([origin["init"]] if origin.get("init") else [])]
    found = [str(origin.get("licence") or ""), *(name for one in sources for name in _licences(one))]
    return [name for name in dict.fromkeys(found) if name]


def _source(origin: Mapping[str, Any]) -> str:
    name = f"`{_short(str(origin.get('source') or origin.get('name', '')))}`"
    known = [f"{key} {origin[key]}" for key in ("revision", "sha256") if origin.get(key)]
    return f"{name} ({', '.join(known)})" if known else name


def _began(meta: Mapping[str, Any]) -> str:
    start = meta.get("init")
    return f"`{_short(str(start.get('checkpoint', '')))}`" if isinstance(start, Mapping) else ""


def _training(meta: Mapping[str, Any]) -> str:
    config = meta.get("config")
    if not isinstance(config, Mapping):
        return ""
    shown = {key: _plain(config[key]) for key in _SECTIONS if key in config}
    data = meta.get("data") or {}
    head = f"Prepared data: `{data['name']}`.\n\n" if data.get("name") else ""
    return f"## Data and recipe\n\n{head}```yaml\n{yaml.safe_dump(shown, sort_keys=False, allow_unicode=True)}```"


def _plain(value: Any) -> Any:
    """Return a JSON value in which absolute paths, which mean nothing elsewhere, are their last component."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, bool | int | float) or value is None:
        return value
    return _short(str(value))


def _short(text: str) -> str:
    return Path(text).name if text.startswith("/") else text


def _numbers(results: Mapping[str, Any], *, meta: Mapping[str, Any]) -> str:
    if results:
        protocol = {key: value for key, value in results["protocol"].items() if value not in (None, [], "")}
        mark = "*" if results.get("marked") else ""
        rows = [
            f"| {_DIRECTIONS[key]} | {name} | {value:.4g}{mark} |"
            for key in _DIRECTIONS
            for name, value in (results.get(key) or {}).items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        ]
        if mark:
            found, expected = (results["coverage"][key] for key in ("found", "expected"))
            rows.append(
                f"\n{mark} measured on {found:,} of {expected:,} clips: not comparable with the whole test set."
            )
        table = "\n".join(["| direction | measure | value |", "|---|---|---:|", *rows])
        said = yaml.safe_dump(_plain(protocol), sort_keys=False, allow_unicode=True)
        return f"## Evaluation\n\n{table}\n\nProtocol:\n\n```yaml\n{said}```"
    scores = meta.get("scores") or {}
    own = (scores.get("values") or {}).get(str(meta.get("step")))
    if own is None:
        return "## Evaluation\n\nNo evaluation came with this checkpoint."
    return f"## Evaluation\n\nDuring training, at step {meta['step']}: {scores.get('metric')} = {own:.4g}."


def _equality(checks: Sequence[Check]) -> str:
    rows = [f"| {one.name} | {one.difference:.2g} |" for one in checks]
    head = (
        "Compared with the model that was exported, after reading this folder back (embeddings: float32, unit length):"
    )
    return "\n".join(["## Equality", "", head, "", "| what | largest difference |", "|---|---:|", *rows])
