"""From the files of a public model to a spec and parameters of ours."""

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from flax import nnx
from rich.console import Console
from rich.progress import track

from ...base.errors import UserError, unknown
from ...engine.keeping.transfer import shapes
from ..build import build
from ..spec import ModelSpec
from . import (
    ast,
    bert,
    clip,
    dinov2,
    internvideo2,
    open_clip,
    pe_core,
    siglip,
    t5,
    timesformer,
    viclip,
    videomae,
    videoprism,
    vit,
    vivit,
    word_vectors,
)
from .family import Family
from .files import SourceFiles, find
from .rules import check_shapes, to_params

_MODULES = (
    clip,
    siglip,
    open_clip,
    pe_core,
    videoprism,
    viclip,
    internvideo2,
    videomae,
    vivit,
    timesformer,
    bert,
    t5,
    vit,
    dinov2,
    ast,
    word_vectors,
)
FAMILIES: dict[str, Family] = {module.FAMILY.name: module.FAMILY for module in _MODULES}
"""Name -> family; the first that matches a folder is taken."""

_NO_TOKENIZER = (
    "the folder has no tokenizer, so the model encodes token ids but no strings; put tokenizer.json (or the family's "
    "own files) beside the weights and convert again"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Converted:
    """A public model as one of ours.

    Attributes:
      spec: what it is.
      params: "/"-joined path -> array.
      family: name of the family.
      notes: what the user should know.
    """

    spec: ModelSpec
    params: dict[str, np.ndarray]
    family: str
    notes: tuple[str, ...] = ()


def convert(
    source: str | Path,
    *,
    family: str = "",
    revision: str = "",
    options: Mapping[str, str] | None = None,
    progress: bool = False,
) -> Converted:
    """Read a public model.

    Args:
      source: a local folder, or `hf:ORGANISATION/NAME[@REVISION]`.
      family: one of `FAMILIES`; "" = recognised by its files.
      revision: of the Hub.
      options: choices of the family, such as `{"text_positions": "stored"}` of VideoPrism; see `Family.options`.
      progress: draw a progress bar on standard error.

    Raises:
      UserError: no such source, a family that is unknown or does not fit, an option that the family does not have, or
        weights that contradict the config.
    """
    files = find(source, revision=revision)
    chosen = recognised(files, family=family)
    made = chosen.conversion(files, **chosen.choices(options or {}))
    notes = list(made.notes)
    if "text" in made.spec.towers and not made.spec.tokenizer:
        notes.append(_NO_TOKENIZER)
    shown = track(made.rules, "convert", console=Console(stderr=True), disable=not progress, transient=True)
    params = to_params(files.tensors, rules=made.rules, ignored=made.ignored, name=files.name, order=shown)
    check_shapes(params, target=shapes(nnx.eval_shape(lambda: build(made.spec, rngs=nnx.Rngs(0)))), name=files.name)
    origin = {
        "made_by": "convert",
        "family": chosen.name,
        "source": files.name,
        "revision": files.revision,
        "licence": chosen.licence,
        "sha256": _digest(params),
    }
    return Converted(spec=made.spec.replace(origin=origin), params=params, family=chosen.name, notes=tuple(notes))


def recognised(files: SourceFiles, *, family: str = "") -> Family:
    """Return the family of a public model.

    Raises:
      UserError: no family matches, or not the one that is asked for.
    """
    if family and family not in FAMILIES:
        raise unknown("--family", family, FAMILIES)
    for one in FAMILIES.values():
        if (not family or one.name == family) and one.matches(files):
            return one
    kind = files.config.get("model_type") or files.config.get("architecture") or "no model_type in its config.json"
    wanted = f"is not of the family {family!r}" if family else "is of no family that twinreel reads"
    raise UserError(f"{files.name} {wanted} ({kind}); `twinreel convert --list` shows them all")


def _digest(params: dict[str, np.ndarray]) -> str:
    """Return the SHA-256 (hex) of all parameters in the order of their paths."""
    digest = hashlib.sha256()
    for path in sorted(params):
        digest.update(path.encode())
        digest.update(np.ascontiguousarray(params[path]).tobytes())
    return digest.hexdigest()
