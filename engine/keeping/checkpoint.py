"""Reading checkpoints: a folder with the items `state` (arrays) and `meta` (JSON), by orbax.

A run writes them as `workdir/checkpoints/<step>/` (see `checkpoints`); wherever such a folder is copied and whatever it
is then called, it is a checkpoint.
"""

import contextlib
import logging
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx

from ...base.errors import UserError
from ..remote.copies import local_copy
from ..remote.session import bring
from ..step.state import join, leaf, split_model
from .fit import misfits, table
from .preservation import is_set_aside
from .quiet import report_once

log = logging.getLogger(__name__)

FOLDER = "checkpoints"


class UnreadableError(UserError):
    """A checkpoint that is damaged or not whole."""


def resolve(path: str | Path) -> Path:
    """Return the checkpoint folder that `path` means.

    Args:
      path: a checkpoint, which is taken as it is; or a folder of them or a workdir, of which the newest readable
        checkpoint is taken: its parameters are read for that, so that a damaged one is passed over. A folder without
        numbered checkpoints may hold a single one of any name.

    Raises:
      UserError: nothing there, nothing readable, or several checkpoints without a number.
    """
    path = local_copy(path).absolute()
    bring(path)
    if is_checkpoint(path):
        return path
    inner = path / FOLDER
    folder = inner if inner.is_dir() and not is_checkpoint(inner) else path
    if not folder.is_dir():
        raise UserError(f"no checkpoint at {path}: there is no such folder; give a workdir or a checkpoint of one")
    names = named_in(folder)
    if not steps_in(folder) and names:
        if len(names) == 1:
            return folder / names[0]
        raise UserError(f"{folder} holds several checkpoints ({', '.join(names)}); give the one that you mean")
    for step in reversed(steps_in(folder)):
        try:
            meta_of(folder / str(step))
            _params(folder / str(step))  # reads all: a damaged file shows nowhere else
        except UnreadableError as error:
            log.warning("%s; using the one before it", error)
            continue
        return folder / str(step)
    raise UserError(
        f"no readable checkpoint in {folder}; give a workdir (holds `{FOLDER}/`), a `{FOLDER}` folder, or a checkpoint "
        "(a folder that holds meta/ and state/)"
    )


def read_meta(path: str | Path) -> dict[str, Any]:
    """Return the JSON `meta` of a checkpoint (anything that `resolve` takes).

    Raises:
      UserError: it cannot be read.
    """
    return meta_of(resolve(path))


def meta_of(path: Path) -> dict[str, Any]:
    """Return the JSON `meta` of the checkpoint at `path`.

    Raises:
      UnreadableError: it cannot be read.
    """
    return _restore(path, meta=ocp.args.JsonRestore())["meta"]


def newest_meta(folder: Path) -> dict[str, Any]:
    """Return the meta of the newest numbered checkpoint in a folder whose meta is readable; {} if there is none."""
    for step in reversed(steps_in(folder)):
        with contextlib.suppress(UnreadableError):
            return meta_of(folder / str(step))
    return {}


def read_params(path: str | Path) -> dict[str, np.ndarray]:
    """Return {"/"-joined path: array} of all parameters and other variables of a checkpoint's model.

    Where the run kept moving averages of its parameters, these.

    Raises:
      UserError: it cannot be read.
    """
    return _params(resolve(path))


def restore_model(path: str | Path, *, model: nnx.Module) -> None:
    """Fill all parameters and other variables of `model` from a checkpoint, in place.

    Arrays take the dtype of the checkpoint, which is that of the model, and the placement that the model's have.

    Raises:
      UserError: it cannot be read, or it does not fit: a table with parameter, in checkpoint, in model.
    """
    path = resolve(path)
    flat = dict(nnx.to_flat_state(nnx.state(model)))
    variables = {join(key): v for key, v in flat.items() if not isinstance(v, nnx.RngState)}
    saved = _shapes(path)
    check_fit(path, saved=saved["params"] | saved["others"], wanted=split_model(model))
    got = _params(path)
    for name, variable in variables.items():
        sharding = getattr(leaf(variable), "sharding", None)
        variable.set_value(jax.device_put(got[name], sharding))
    nnx.update(model, nnx.from_flat_state({key: flat[key] for key in flat if join(key) in variables}))


def check_fit(path: Path, *, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raise UserError with a table unless two trees of shapes agree."""
    rows = misfits(saved=saved, wanted=wanted)
    if rows:
        raise UserError(
            f"checkpoint {path} does not fit the model of this config:\n{table(rows)}\n"
            "Use the config that it was made with (config.json in its workdir), or another checkpoint"
        )


def steps_in(folder: Path) -> list[int]:
    """Return the step numbers of the checkpoints in a folder, ascending, readable or not."""
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(int(path.name) for path in found if path.name.isdigit() and path.is_dir())


def named_in(folder: Path) -> list[str]:
    """Return the names of the checkpoints in a folder that have been given another name than their step, sorted."""
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(p.name for p in found if is_checkpoint(p) and not p.name.isdigit() and not is_set_aside(p))


def is_checkpoint(path: Path) -> bool:
    """Tell whether `path` is one checkpoint, whatever its name, rather than a folder of them."""
    parts = [(path / item).is_dir() for item in ("meta", "state")]
    return all(parts) or (path.name.isdigit() and any(parts))  # one that is damaged is read, and the damage reported


def read_state(path: Path, *, like: Any) -> dict[str, Any]:
    """Return item `state` of a checkpoint, as `like` (arrays or ShapeDtypeStructs) in structure and placement.

    Raises:
      UserError: it cannot be read (UnreadableError), or it does not fit, with a table.
    """
    check_fit(path, saved=_shapes(path), wanted=like)
    args = ocp.checkpoint_utils.construct_restore_args(like)
    return _restore(path, state=ocp.args.PyTreeRestore(item=like, restore_args=args))["state"]


def short_reason(error: BaseException) -> str:
    """Return the kind and first line of an error; of a long one the end, where tensorstore quotes the system."""
    line = (str(error).strip() or "no message").splitlines()[0].split(" [tensorstore_spec=")[0]
    return f"{type(error).__name__}: {line if len(line) <= 300 else '... ' + line[-300:]}"


def _params(path: Path) -> dict[str, np.ndarray]:
    saved = _shapes(path)
    like = {part: saved[part] for part in ("params", "others", "ema") if part in saved}
    args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), like)
    got = _restore(path, state=ocp.args.PyTreeRestore(item=like, restore_args=args, partial_restore=True))
    return got["state"]["params"] | got["state"]["others"] | got["state"].get("ema", {})


def _reader(handler: ocp.CompositeCheckpointHandler) -> ocp.Checkpointer:
    """A checkpointer that waits for no other process: each reads what it needs, and one may read alone."""
    me = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"reader-{me}"
    )
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def _restore(path: Path, **items: Any) -> Any:
    with _unreadable(path), _reader(ocp.CompositeCheckpointHandler()) as checkpointer:
        return checkpointer.restore(path, args=ocp.args.Composite(**items))


def _shapes(path: Path) -> dict[str, Any]:
    """Return the tree of shapes and dtypes of item `state`."""
    handler = ocp.CompositeCheckpointHandler(state=ocp.PyTreeCheckpointHandler(), meta=ocp.JsonCheckpointHandler())
    with _unreadable(path), _reader(handler) as checkpointer:
        items = checkpointer.metadata(path).item_metadata
        if items is None or items["state"] is None:
            raise FileNotFoundError(f"{path / 'state'} is missing or empty")
        return items["state"].tree


@contextlib.contextmanager
def _unreadable(path: Path):
    report_once()
    try:
        yield
    except Exception as error:  # orbax and tensorstore raise many types for a damaged file
        raise UnreadableError(f"checkpoint {path} is unreadable: {short_reason(error)}") from error
