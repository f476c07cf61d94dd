"""The generated data sets besides that of the demo itself: `twinreel demo --data NAME` makes one."""

import dataclasses
import importlib
from pathlib import Path
from typing import Any

from ..base.config import Config
from ..base.section import section


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSet:
    """Where one data set goes, and who uses it. A module of this folder of the same name writes it.

    Attributes:
      what: half a sentence for `--help`.
      config: the config that trains on it.
      written: what the module writes, relative to the workdir: a folder with a manifest, or a file.
      records: folder of the prepared clips, relative to the workdir; empty where there is nothing to prepare.
      from_clips: whether it is made from the clips of the demo.
      verb: the verb that takes `config`.
    """

    what: str
    config: str
    written: str
    records: str = ""
    from_clips: bool = False
    verb: str = "finetune"


DATA_SETS = {
    "films": DataSet(
        what="the demo's clips joined to films of about 20 s, with importance from annotators",
        config="demo_summarise",
        written="films",
        records="shape_films",
        from_clips=True,
    ),
    "odd_films": DataSet(
        what="films in which something odd may happen",
        config="demo_anomaly",
        written="odd",
        records="odd_films",
    ),
    "identities": DataSet(
        what="clips of one shape each, whose shape, texture and colour are its identity",
        config="demo_identify",
        written="identities",
        records="shape_identities",
    ),
    "sessions": DataSet(
        what="which of the demo's clips imagined users with a hidden taste watch, one after another",
        config="demo_recommend",
        written="sessions.jsonl",
        from_clips=True,
    ),
    "new_words": DataSet(
        what="the demo's clips with other words for colours and shapes",
        config="demo_retrieve",
        verb="pretrain",
        written="renamed",
        records="renamed_shapes",
        from_clips=True,
    ),
}
"""By the name of their module, which is also that of their config section (the arguments of its `write`)."""


def make(name: str, *, config: Config, workdir: Path) -> Path:
    """Write and prepare a data set; what is there already stays.

    Args:
      name: of `DATA_SETS`.
      config: as for `demo`, with the section of that name.
      workdir: folder for all that is written, the demo's clips among it where the data set is made from them.

    Returns:
      The folder of the records, or the file where there is nothing to prepare.
    """
    data_set = DATA_SETS[name]
    given: dict[str, Any] = {"out": workdir / data_set.written, "seed": config.seed}
    if data_set.from_clips:
        given["manifest"] = write_clips(config, workdir=workdir)
    module = importlib.import_module(f".{name}", __package__)
    written = section(module.write, getattr(config, name), name=name, **given)
    return prepare_clips(config, manifest=written, out=workdir / data_set.records) if data_set.records else written


def write_clips(config: Config, *, workdir: Path) -> Path:
    """Write what is missing of the demo's clips below `workdir/videos`, and return their manifest."""
    from . import moving_shapes

    return section(moving_shapes.write, config.shapes, name="shapes", out=workdir / "videos", seed=config.seed)


def prepare_clips(config: Config, *, manifest: Path, out: Path) -> Path:
    """Decode the clips of a manifest into the records of `out`, as `config.prepare` says, and return `out`."""
    from rich.console import Console

    from ..data.prepare.prepare import prepare

    section(prepare, config.prepare, name="prepare", source=manifest, out=out, console=Console())
    return out
