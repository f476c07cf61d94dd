"""Writing the part of a checkpoint that one of several processes holds, into a folder that the others do not see."""

import shutil
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import type_handlers
from orbax.checkpoint._src.handlers.base_pytree_checkpoint_handler import BasePyTreeCheckpointHandler


def write_part(folder: Path, *, state: Any, meta: dict[str, Any]) -> None:
    """Write the shards of `state` that this process is the first to hold, by orbax, as if it were alone.

    The parts of all processes together are a checkpoint (`remote.parcels.merge`).

    Args:
      folder: made anew.
      state: global arrays.
      meta: JSON values.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    me = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"part-{me}"
    )
    # No array store and no validation: they compare with what the other processes wrote, in a folder they share.
    arrays = type_handlers.ArrayHandler(primary_host=me, replica_id=0, array_metadata_store=None)
    registry = type_handlers.create_type_handler_registry((jax.Array, arrays))
    kind: dict[str, Any] = {"type_handler_registry": registry, "multiprocessing_options": alone}
    handler = ocp.PyTreeCheckpointHandler(
        **kind,
        handler_impl=BasePyTreeCheckpointHandler(**kind, enable_post_merge_validation=False),
    )
    # Folders made in the background are announced through keys that all processes of the run would share.
    options = ocp.CompositeOptions(
        multiprocessing_options=alone, async_options=ocp.AsyncOptions(create_directories_asynchronously=False)
    )
    items = ocp.CompositeCheckpointHandler(
        state=handler, meta=ocp.JsonCheckpointHandler(multiprocessing_options=alone), composite_options=options
    )
    with ocp.Checkpointer(items, multiprocessing_options=alone) as checkpointer:
        args = ocp.args.Composite(state=ocp.args.PyTreeSave(state), meta=ocp.args.JsonSave(meta))
        checkpointer.save(folder, args=args, force=True)
