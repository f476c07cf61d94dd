"""From the files of a public model to a spec and parameters of ours."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from ...base.errors import UserError, unknown
from ...data.text.tokenizer import tokenizer_from_meta
from ...engine.keeping.transfer import shapes
from ..build import abstract
from ..spec import ModelSpec
from . import (
    ast,
    bert,
    big_vision,
    clap,
    clip,
    dinov2,
    distilbert,
    frozen,
    gpt2,
    internvideo2,
    llama,
    open_clip,
    pe_core,
    r2plus1d,
    resnet,
    s3d,
    siglip,
    t5,
    timesformer,
    viclip,
    videomae,
    videoprism,
    vit,
    vivit,
    wav2vec2,
    word_vectors,
)
from .family import Conversion, Family
from .files import SourceFiles, find
from .rules import check_shapes, to_params

_MODULES = (
    clip,
    siglip,
    big_vision,
    open_clip,
    pe_core,
    videoprism,
    viclip,
    internvideo2,
    videomae,
    vivit,
    timesformer,
    frozen,
    s3d,
    r2plus1d,
    resnet,
    bert,
    distilbert,
    t5,
    vit,
    dinov2,
    ast,
    wav2vec2,
    clap,
    gpt2,
    llama,
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublicModel:
    """A public model whose family and config are known; its tensors are not read yet.

    Attributes:
      files: where it lies.
      family: what it is.
      conversion: how it becomes one of ours.
    """

    files: SourceFiles
    family: Family
    conversion: Conversion

    @functools.cached_property
    def spec(self) -> ModelSpec:
        """What it is as one of ours."""
        origin = {
            "made_by": "convert",
            "family": self.family.name,
            "source": self.files.name,
            "revision": self.files.revision,
            "licence": self.family.licence,
            "sha256": self.files.tensors.sha256,
        }
        made = self.conversion.spec
        # Public code decodes straight to pixels: the best JPEG comes within half a grey level of that.
        decode = {"jpeg_quality": 100} if "video" in made.towers else {}
        return made.replace(origin=origin, input=dataclasses.replace(made.input, decode=decode))

    def params(self, *, progress: bool = False) -> dict[str, np.ndarray]:
        """Convert the tensors; returns "/"-joined path -> array.

        Raises:
          UserError: tensors that are missing, unexpected or of another shape than the config says.
        """
        made, name = self.conversion, self.files.name
        shown = track(made.rules, "convert", console=Console(stderr=True), disable=not progress, transient=True)
        params = to_params(self.files.tensors, rules=made.rules, ignored=made.ignored, name=name, order=shown)
        check_shapes(params, target=shapes(abstract(made.spec)), name=name)
        return params


def convert(
    source: str | Path,
    *,
    family: str = "",
    revision: str = "",
    options: Mapping[str, str] | None = None,
    progress: bool = False,
) -> Converted:
    """Read a public model whole; for the arguments see `public_model`.

    Args:
      progress: draw a progress bar on standard error.

    Raises:
      UserError: as `public_model`, or weights that contradict the config.
    """
    found = public_model(source, family=family, revision=revision, options=options)
    spec, params, notes = found.spec, found.params(progress=progress), list(found.conversion.notes)
    if "text" in spec.towers and not spec.tokenizer:
        notes.append(_NO_TOKENIZER)
    return Converted(spec=spec, params=params, family=found.family.name, notes=tuple(notes))


def public_model(
    source: str | Path, *, family: str = "", revision: str = "", options: Mapping[str, str] | None = None
) -> PublicModel:
    """Find a public model, recognise its family and read its config.

    Args:
      source: a local folder, or `hf:ORGANISATION/NAME[@REVISION]`.
      family: one of `FAMILIES`; "" = recognised by its files.
      revision: of the Hub.
      options: choices of the family, such as `{"text_positions": "stored"}` of VideoPrism; see `Family.options`.

    Raises:
      UserError: no such source, a family that is unknown or does not fit, or an option that the family does not have.
    """
    files = find(source, revision=revision)
    chosen = recognised(files, family=family)
    made = chosen.conversion(files, **chosen.choices(options or {}))
    _check_tokenizer(made.spec, name=files.name)
    return PublicModel(files=files, family=chosen, conversion=made)


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


def _check_tokenizer(spec: ModelSpec, *, name: str) -> None:
    """Raise UserError if the tokenizer has ids for which the text tower has no embedding."""
    if not spec.tokenizer or "text" not in spec.towers:
        return
    ids, rows = tokenizer_from_meta(dict(spec.tokenizer)).vocab_size, spec.towers["text"]["vocab_size"]
    if ids > rows:
        raise UserError(
            f"the tokenizer in {name} has {ids:,} ids, its text tower embeddings for {rows:,}: the tokenizer belongs "
            "to another model; put this model's own tokenizer files beside the weights, or none"
        )
