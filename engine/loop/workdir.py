"""The folder of a run: the config and the data that belong to it."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import ml_collections

from ...base.config import difference, flatten, to_json
from ...base.errors import UserError
from ..keeping.checkpoint import FOLDER, newest_meta, read_meta, resolve
from ..keeping.files import write_atomically
from ..remote.copies import local_copy
from .options import may_change
from .position import Position

Identity = Mapping[str, Mapping[str, Any] | None]
"""Config field that names a place ("data.dir") -> what is there, as JSON values, with its "kind" ("data set").

A place may change between two starts, its content may not. None = the content is not known now, and not compared.
"""

CONFIG, IDENTITY = "config.json", "identity.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunStart:
    """One start of a run in its workdir.

    Attributes:
      workdir: the folder of the run; need not exist.
      config: the config of this start.
      identity: what lies at the places that the config names.
      resume_step: the step to go back to, or None.
    """

    workdir: Path
    config: ml_collections.ConfigDict
    identity: Identity
    resume_step: int | None = None

    def check(self, *, overwrite: bool) -> list[str]:
        """Return what differs from the start before this one; see `check_workdir`."""
        return check_workdir(self.workdir, config=self.config, identity=self.identity, overwrite=overwrite)

    def claim(self) -> None:
        """Write config and identity into the workdir; see `claim_workdir`."""
        claim_workdir(self.workdir, config=self.config, identity=self.identity)

    def step_to_go_back_to(self, newest: Mapping[str, Any]) -> int | None:
        """Return `resume_step`; None if a start with this config went back to it before and was then interrupted.

        So the same command can be run again, as after any interruption, without losing what was done since.

        Args:
          newest: the meta of the newest checkpoint.
        """
        return None if newest.get("went_back") == self._went_back() else self.resume_step

    def position(self, saved: Mapping[str, Any], *, step: int) -> Position:
        """Return where in its data the run is; `saved` is the meta of the checkpoint that it resumes from."""
        return Position.of(saved, step=step, batch_size=flatten(self.config).get("data.batch_size"))

    def to_meta(self, saved: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the checkpoints remember of this start and of those before it."""
        went_back = saved.get("went_back") if self.resume_step is None else self._went_back()
        return {"identity": _json_of(self.identity), "went_back": went_back}

    def _went_back(self) -> dict[str, Any]:
        digest = hashlib.sha256(json.dumps(to_json(self.config), sort_keys=True).encode()).hexdigest()
        return {"step": self.resume_step, "config": digest[:12]}


def check_workdir(
    workdir: Path,
    *,
    config: ml_collections.ConfigDict,
    identity: Identity | None = None,
    overwrite: bool = False,
) -> list[str]:
    """Refuse a `workdir` that belongs to another config or to other data.

    Args:
      workdir: the folder of the run; need not exist.
      config: the config of this start.
      identity: what lies at the places that the config names.
      overwrite: take the folder over; the checkpoints in it stay and the run resumes from them.

    Returns:
      What differs from the start before this one, one line each, for printing.

    Raises:
      UserError: fields differ that may not (see engine.loop.options.may_change; places with the same content may),
        or contents differ, and `overwrite` is False.
    """
    old_config, old_identity = _kept(workdir)
    if old_config is None:
        return []
    now = identity or {}
    fields = difference(old_config, to_json(config))
    places = now.keys() & old_identity.keys()
    named = {"old": old_config.get("evaluations", {}), "new": config.get("evaluations", {})}
    changed = [line for line in fields if line.split(":")[0] not in places]
    refused = [line for line in changed if not may_change(line.split(":")[0], **named)]
    contents = [text for place in sorted(places) if (text := _changed(place, old_identity[place], now[place]))]
    if overwrite or not (refused or contents):
        return [*fields, *contents]
    raise UserError(_refusal(workdir, fields=refused, contents=contents))


def claim_workdir(workdir: Path, *, config: ml_collections.ConfigDict, identity: Identity | None = None) -> None:
    """Make `workdir` and write `config.json` and `identity.json`, by the first process.

    To be called when the first step is compiled: a start that fails before that leaves the folder to a corrected
    config.
    """
    if jax.process_index() == 0:
        workdir.mkdir(parents=True, exist_ok=True)
        _, before = _kept(workdir)
        known = {place: content or before.get(place) for place, content in (identity or {}).items()}
        for name, values in ((IDENTITY, known), (CONFIG, to_json(config))):
            write_atomically(workdir / name, text=json.dumps(values, indent=2) + "\n")


def checkpoint_content(path: str | Path) -> dict[str, Any] | None:
    """Return the content of a place that holds a checkpoint, for `Identity`: of which run it is.

    The same for all steps of a run, wherever they lie and however long it was trained; another seed, config or data
    make another run.

    Returns:
      {"kind": "checkpoint", "run": ...}, or None if there is no readable checkpoint.
    """
    try:
        meta = read_meta(path)
    except UserError:
        return None
    identity = {place: content for place, content in (meta.get("identity") or {}).items() if content}
    config = {
        key: value
        for key, value in flatten(meta["config"]).items()
        if not may_change(key) and key not in (meta.get("identity") or {})
    }
    digest = hashlib.sha256(json.dumps([config, identity], sort_keys=True).encode()).hexdigest()
    return {"kind": "checkpoint", "run": digest[:12]}


def _changed(place: str, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> str:
    """Describe how the content of a place has changed, in one line; "" if it has not, or is not known."""
    if old is None or new is None:
        return ""
    a, b = flatten(_json_of(old)), flatten(_json_of(new))
    absent = "(none)"
    parts = [
        f"{key} {a.get(key, absent)} -> {b.get(key, absent)}"
        for key in sorted(a.keys() | b.keys())
        if a.get(key, absent) != b.get(key, absent)
    ]
    if not parts:
        return ""
    return f"the {b.get('kind', 'content')} of config.{place} has changed since this run began ({', '.join(parts)})"


def _refusal(workdir: Path, *, fields: list[str], contents: list[str]) -> str:
    lines = []
    if fields:
        lines = [f"workdir {workdir} belongs to another config; nothing was changed. In it -> now:"]
        lines += [f"  {line}" for line in fields]
    lines += contents
    remedy = "Choose another --workdir, or give --overwrite_config to continue here with "
    remedy += "the new config" if fields else "the new data"
    return "\n".join([*lines, remedy])


def _kept(workdir: Path) -> tuple[dict[str, Any] | None, Identity]:
    """Return config and identity of the start before this one, from the files or else from the newest checkpoint."""
    config, identity = _json(workdir / CONFIG), _json(workdir / IDENTITY)
    if config is None or identity is None:
        meta = newest_meta(workdir / FOLDER)
        config, identity = config or meta.get("config"), identity or meta.get("identity")
    return config, identity or {}


def load_config_of(path: str | Path) -> ml_collections.ConfigDict:
    """Return the config of a workdir, or of a checkpoint; tuples have become lists.

    Raises:
      UserError: neither is at `path`.
    """
    path = local_copy(path)
    config = _json(path / CONFIG)
    if config is None:
        config = read_meta(resolve(path))["config"]
    loaded = ml_collections.ConfigDict(config)
    loaded.lock()
    return loaded


def _json_of(values: Any) -> Any:
    """Return values as they are once they have been written to a file and read."""
    return json.loads(json.dumps(values))


def _json(file: Path) -> dict[str, Any] | None:
    try:
        return json.loads(file.read_text()) if file.is_file() else None
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}); look at the rights of the folder") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{file} is not JSON ({error}); repair it or delete it") from error
