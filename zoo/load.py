"""From a name to a model: bundles, checkpoints and public weights give the same thing, a spec and parameters."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from ..base.errors import UserError
from ..data.hub import is_hub
from ..engine.keeping import checkpoint
from ..engine.keeping.transfer import fill, plan_transfer, position_resizers, shapes
from ..engine.remote.copies import local_copy
from ..engine.remote.place import url_in
from .build import abstract
from .bundle import is_bundle, read_params, read_spec
from .convert.convert import PublicModel, public_model
from .convert.files import looks_public
from .spec import TASKS, ModelSpec


@dataclasses.dataclass(frozen=True, kw_only=True)
class Located:
    """A model that lies on disk; its parameters are not read yet.

    Attributes:
      spec: what it is.
      path: the bundle, the step folder of a checkpoint, or the name of public weights.
      meta: of the checkpoint (config, step, seed, versions ...); {} of a bundle.
      public: public weights, which are converted when the parameters are asked for; None = they are ours.
    """

    spec: ModelSpec
    path: Path
    meta: dict[str, Any] = dataclasses.field(default_factory=dict)
    public: PublicModel | None = None

    def params(self) -> dict[str, np.ndarray]:
        """Read the parameters, "/"-joined path -> array; of a run that averages them, the averages."""
        if self.public is not None:
            return self.public.params()
        return checkpoint.read_params(self.path) if self.meta else read_params(self.path)


def locate(path: str | Path) -> Located:
    """Find out what a path holds.

    Args:
      path: a bundle, a workdir (its newest checkpoint; of a fine-tuned run the best one, which its report measures), a
        checkpoints folder (the same), one checkpoint, or public weights: a folder of them or
        `hf:ORGANISATION/NAME[@REVISION]`, see `zoo.convert`. All but the last may be an s3:// or gs:// URL.

    Raises:
      UserError: nothing that can be read, or a checkpoint written before models had specs.
    """
    given, path = path, path if is_hub(path) else local_copy(path)
    if is_bundle(path):
        return Located(spec=read_spec(path), path=Path(path))
    is_run = not is_hub(path) and (Path(path) / checkpoint.FOLDER).is_dir()  # whatever else was saved next to it
    if is_hub(path) or (looks_public(Path(path)) and not is_run):
        found = public_model(path)
        return Located(spec=found.spec, path=Path(path), public=found)
    step_folder = _step_folder(Path(path))
    meta = checkpoint.read_meta(step_folder)
    best = _best_of(given, newest=step_folder, meta=meta)
    if best is not None:
        step_folder, meta = best, checkpoint.read_meta(best)
    if "spec" not in meta and "generator" in meta:
        raise UserError(
            f"{step_folder} is a video generator, which has no joint space and no head; use `twinreel generate sample "
            f"{given} ...`"
        )
    if "spec" not in meta:
        raise UserError(
            f"checkpoint {step_folder} has no model spec: an older version of twinreel wrote it; load it with that "
            "version, or train it again"
        )
    spec = ModelSpec.from_dict(meta["spec"], name=f"the spec of {step_folder}")
    return Located(spec=spec, path=step_folder, meta=meta)


def _step_folder(path: Path) -> Path:
    """Return the folder of a checkpoint; say what is there instead where it is no model of any kind."""
    try:
        return checkpoint.resolve(path)
    except UserError as error:
        if not path.is_dir():
            raise
        found = ", ".join(sorted(one.name for one in path.iterdir())[:5]) or "nothing"
        raise UserError(
            f"{error}; or a bundle (spec.json), or a folder of public weights (*.safetensors or *.npz, see `twinreel "
            f"convert --list`). It holds {found}"
        ) from error


def _best_of(given: str | Path, *, newest: Path, meta: dict[str, Any]) -> Path | None:
    """Return the best checkpoint of a fine-tuned run, as its newest one remembers it; None where that one is wanted.

    Args:
      given: what the user named: a run, or one of its checkpoints.
      newest: the folder of the checkpoint that was found there.
      meta: of that checkpoint.
    """
    best = (meta.get("evaluations") or {}).get("best")
    if best is None or not set((meta.get("spec") or {}).get("heads") or ()) & set(TASKS):
        return None
    url = url_in(given)
    if url is None:
        folder = newest.parent / str(best["step"])
        return folder if Path(given).absolute() != newest and checkpoint.is_checkpoint(folder) else None
    if f"/{checkpoint.FOLDER}/" in url:
        return None
    run = url.removesuffix(f"/{checkpoint.FOLDER}")
    try:
        return checkpoint.resolve(local_copy(f"{run}/{checkpoint.FOLDER}/{best['step']}"))
    except UserError:  # it was not kept
        return None


def load_model(located: Located, *, spec: ModelSpec | None = None) -> Any:
    """Build a model and fill in its parameters, which must all be there.

    Args:
      located: where it lies.
      spec: what to build instead of its own spec, such as another number of frames; positions are interpolated.

    Returns:
      What `zoo.build.build` returns.

    Raises:
      UserError: parameters that do not fit, with a table.
    """
    spec = spec or located.spec
    model = abstract(spec)  # no initial values: all are filled in
    params, kinds = located.params(), position_resizers(model)
    plan = plan_transfer(params, target=shapes(model), parts=(".*",), name=str(located.path), resizers=kinds)
    fill(model, values=plan.values)
    return model
