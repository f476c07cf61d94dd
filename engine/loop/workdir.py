"""The folder of a run: whose config it belongs to."""

import json
from pathlib import Path
from typing import Any

import jax
import ml_collections

from ...base.config import difference, to_json
from ...base.errors import UserError
from ..keeping.checkpoint import read_meta, resolve
from ..keeping.files import write_atomically
from .options import MAY_CHANGE


def check_workdir(workdir: Path, *, config: ml_collections.ConfigDict, overwrite: bool = False) -> list[str]:
    """Refuse a `workdir` that belongs to another config.

    Args:
      workdir: the folder of the run; need not exist.
      config: the config of this start.
      overwrite: take the folder over; the checkpoints in it stay and the run goes on from them.

    Returns:
      The differences to the config that the folder had, one line each, for printing.

    Raises:
      UserError: fields differ that may not (all but engine.loop.options.MAY_CHANGE), and `overwrite` is False.
    """
    old = _config_of(workdir)
    lines = [] if old is None else difference(old, to_json(config))
    refused = [line for line in lines if line.split(":")[0] not in MAY_CHANGE]
    if refused and not overwrite:
        raise UserError(
            f"workdir {workdir} belongs to another config; nothing was changed. In it -> now:\n  "
            + "\n  ".join(refused)
            + "\nChoose another --workdir, or give --overwrite_config to go on here with the new config"
        )
    return lines


def claim_workdir(workdir: Path, *, config: ml_collections.ConfigDict) -> None:
    """Make `workdir` and write `config.json`, by the first process.

    To be called when the first step is compiled: a start that fails before that leaves the folder to a mended config.
    """
    if jax.process_index() == 0:
        workdir.mkdir(parents=True, exist_ok=True)
        write_atomically(workdir / "config.json", text=json.dumps(to_json(config), indent=2) + "\n")


def load_config_of(path: str | Path) -> ml_collections.ConfigDict:
    """Return the config of a workdir, or of a checkpoint; tuples have become lists.

    Raises:
      UserError: neither is at `path`.
    """
    config = _config_of(Path(path))
    if config is None:
        config = read_meta(resolve(path))["config"]
    loaded = ml_collections.ConfigDict(config)
    loaded.lock()
    return loaded


def _config_of(workdir: Path) -> dict[str, Any] | None:
    file = workdir / "config.json"
    try:
        return json.loads(file.read_text()) if file.is_file() else None
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}); look at the rights of the folder") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{file} is not JSON ({error}); mend it or delete it") from error
