"""From a model of ours to a folder that other programs read."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...base.errors import UserError, unknown
from ..load import locate
from ..merge import merged
from .card import find_results, write_card
from .compare import Check
from .folder import check_out, whole_folder
from .onnx_programs import libraries, write_onnx
from .public import WRITERS, write_public
from .push import listing
from .stablehlo import PLATFORMS, write_programs
from .tokenizer_files import MODES

FORMATS = (*WRITERS, "stablehlo", "onnx")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """How a model is exported.

    Attributes:
      format: one of `FORMATS`.
      tokenizer: one of `tokenizer_files.MODES`.
      platforms: of a StableHLO program.
      results: a `retrieval.json` (or its folder) for the model card; "" = the one in the workdir, if it is there.
      name: of the repository on the Hub that the export is meant for; "" = none.
      overwrite: replace an export that is there.
    """

    format: str
    tokenizer: str = "public"
    platforms: Sequence[str] = PLATFORMS
    results: str = ""
    name: str = ""
    overwrite: bool = False

    def __post_init__(self):
        """Raise UserError for a name that is not known."""
        if self.format not in FORMATS:
            raise unknown("--format", self.format, FORMATS)
        if self.tokenizer not in MODES:
            raise unknown("--tokenizer", self.tokenizer, MODES)
        for platform in self.platforms:
            if platform == "gpu":
                raise UserError("--platforms: 'gpu' is cuda (NVIDIA) or rocm (AMD) here; name one of them, or both")
            if platform not in PLATFORMS:
                raise unknown("--platforms", platform, PLATFORMS)
        if not self.platforms:
            raise UserError(f"--platforms is empty; give some of {', '.join(PLATFORMS)}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exported:
    """A finished export.

    Attributes:
      folder: where it lies.
      title: of the format, "CLIP of transformers".
      checks: what was compared after writing.
      notes: what the user should know.
      files: name and bytes of each file.
    """

    folder: Path
    title: str
    checks: Sequence[Check]
    notes: Sequence[str]
    files: Sequence[tuple[str, int]]


def export(checkpoint: str | Path, *, out: str | Path, options: ExportOptions) -> Exported:
    """Write a model for another program, read it back and compare; the folder is whole or absent.

    Args:
      checkpoint: what `zoo.load.locate` takes: a run, one of its checkpoints, a bundle, or public weights.
      out: the folder.
      options: format and choices.

    Raises:
      UserError: nothing readable, a folder that holds something, or a model that the format cannot hold: the fields
        that do not fit are named.
    """
    out = Path(out).absolute()
    if options.format == "onnx":
        libraries()  # the quick refusals come before the model is read
    check_out(out, overwrite=options.overwrite)
    located = merged(locate(checkpoint))
    results = find_results(options.results, located=located, source=str(checkpoint))
    params = {path: np.asarray(value) for path, value in located.params().items()}
    name = options.name or out.name
    with whole_folder(out, overwrite=options.overwrite) as partial:
        if options.format == "stablehlo":
            given = {"tokenizer": options.tokenizer, "platforms": options.platforms}
            written = write_programs(located.spec, params=params, folder=partial, **given)
        elif options.format == "onnx":
            written = write_onnx(located.spec, params=params, folder=partial, tokenizer=options.tokenizer)
        else:
            given = {"format": options.format, "tokenizer": options.tokenizer, "name": options.name}
            written = write_public(located.spec, params=params, folder=partial, **given)
        write_card(
            partial,
            located=located,
            source=str(checkpoint),
            format=options.format,
            written=written,
            results=results,
            name=name,
        )
    return Exported(folder=out, title=written.title, checks=written.checks, notes=written.notes, files=listing(out))
