"""Runs whose reports are made again or compared: their embeddings, their names, and which are seeds of one model."""

import dataclasses
import itertools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..base.errors import UserError
from .embedding.embeddings import Embeddings

_DEPTH = 3  # folders below a run in which its report is looked for
_EMBEDDINGS, _CONFIG = "embeddings.npz", "config.json"


@dataclasses.dataclass(kw_only=True)
class Run:
    """A run with its embeddings of a split.

    Attributes:
      name: what pages call it; unique among the runs.
      model: name of the model of which it is a seed, which several runs may share.
      path: of the embeddings.
      embeddings: of the split.
    """

    name: str
    model: str
    path: Path
    embeddings: Embeddings

    @property
    def report(self) -> Path | None:
        """The folder of the report that holds the embeddings, None if there is none around them."""
        folder = self.path.parent
        return folder if self.path.name == _EMBEDDINGS and (folder / "retrieval.json").is_file() else None

    @property
    def history(self) -> Path | None:
        """The metrics of the training run, None if they do not lie around the report."""
        return around(self.path.parent, name="metrics.jsonl")


def open_runs(given: Sequence[str]) -> list[Run]:
    """Open the embeddings of runs and name them.

    Args:
      given: report folders, run folders with one report below them, or files of embeddings; each as PATH or NAME=PATH.
        Runs of one NAME are seeds of one model, and so are, without names, runs of one config with different seeds.

    Raises:
      UserError: no embeddings at a path, several reports below it, or one given twice.
    """
    parts = [_named(one) for one in given]
    paths = [find_embeddings(Path(path)) for _, path in parts]
    for number, path in enumerate(paths):
        if path.resolve() in [other.resolve() for other in paths[:number]]:
            raise UserError(f"{given[number]} was given twice ({path}); give each run once")
    names = _names(paths)
    models = _models(paths, names=names)
    return [
        Run(name=name, model=asked or model, path=path, embeddings=Embeddings.load(path))
        for (asked, _), name, model, path in zip(parts, names, models, paths, strict=True)
    ]


def find_embeddings(path: Path) -> Path:
    """Return the `embeddings.npz` of a report folder, of the one report below a run, or the file itself.

    Raises:
      UserError: there is none, or several.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise UserError(f"{path} does not exist; wanted a report folder, a run with a report, or an embeddings.npz")
    if (path / _EMBEDDINGS).is_file():
        return path / _EMBEDDINGS
    if (path / "retrieval.json").is_file():
        raise UserError(
            f"{path} has retrieval.json but no {_EMBEDDINGS}: figures without the queries behind them; evaluate the "
            "model again with `twinreel evaluate MODEL --data DIR --out OUT`"
        )
    found = [one for depth in range(1, _DEPTH + 1) for one in sorted(path.glob("*/" * depth + _EMBEDDINGS))]
    if len(found) > 1:
        raise UserError(f"{path} has {len(found)} reports below it, {', '.join(map(str, found[:5]))}; name one of them")
    if not found:
        raise UserError(
            f"{path} has no {_EMBEDDINGS} in it or below; write a report with `twinreel evaluate {path} --data DIR "
            f"--out {path / 'report'}`"
        )
    return found[0]


def around(path: Path, *, name: str) -> Path | None:
    """Return the file of a run to which a checkpoint or a report belongs, from one of the folders around it."""
    places = [path / name, *(parent / name for parent in path.absolute().parents[:2])]
    return next((place for place in places if place.is_file()), None)


def _named(given: str) -> tuple[str, str]:
    name, equals, path = given.partition("=")
    if equals and name and "/" not in name and not Path(given).exists():
        return name, path
    return "", given


def _names(paths: Sequence[Path]) -> list[str]:
    """Name runs after their folders, with as much of the path as tells them apart; "report" says nothing."""
    folders = [path.parent if path.name == _EMBEDDINGS else path.with_suffix("") for path in paths]
    parts = [folder.absolute().parts for folder in folders]
    parts = [one[:-1] if one[-1] == "report" and len(one) > 2 else one for one in parts]
    names: list[str] = []
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(one[-length:]).lstrip("/") for one in parts]
        if len(set(names)) == len(names):
            break
    return names


def _models(paths: Sequence[Path], *, names: Sequence[str]) -> list[str]:
    """Give the runs of one config with different seeds one name."""
    recipes = [_recipe(path) for path in paths]
    models = list(names)
    for recipe in {config for config, _ in recipes if config}:
        members = [number for number, (config, _) in enumerate(recipes) if config == recipe]
        seeds = [recipes[number][1] for number in members]
        if len(members) > 1 and len(set(seeds)) == len(seeds):
            common = _common([names[number] for number in members])
            for number in members:
                models[number] = common
    return models


def _common(names: Sequence[str]) -> str:
    """Return what names begin with, without what announces the seed: "few" of "few_seed1" and "few_seed2"."""
    alike = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    prefix = "".join(letters[0] for letters in alike)
    return re.sub(r"[\W_]+(seed|s)?[\W_]*\d*$", "", prefix) or names[0]


def _recipe(path: Path) -> tuple[str, Any]:
    """Return the config of the run around a report, without its seed, as text ("" if there is none), and the seed."""
    config = around(path.parent, name=_CONFIG)
    try:
        values = json.loads(config.read_text(encoding="utf-8")) if config else {}
    except ValueError:
        return "", None
    if not isinstance(values, dict) or "seed" not in values:
        return "", None
    seed = values.pop("seed")
    return json.dumps(values, sort_keys=True), seed
