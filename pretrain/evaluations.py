"""What a run measures while it trains: the section `config.evaluations`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..base.config import Config

if TYPE_CHECKING:
    from ..data.batches.records import Records
    from ..data.options import DataOptions
    from ..data.text.tokenizer import Tokenizer
    from ..engine.loop.evaluation import Evaluation
    from ..evaluate.training.opened import Opened
    from ..zoo.spec import ModelSpec


def open_evaluations(config: Config, *, data: "DataOptions", records: "Records") -> "tuple[Opened, ...]":
    """Check the section and read the data of each evaluation.

    Args:
      config: the experiment; without the section nothing is measured.
      data: `config.data`, with the options of the records.
      records: of the run, for evaluations without data of their own.

    Raises:
      UserError: see `evaluate.training.options.read_options` and `evaluate.training.opened.open_evaluation`.
    """
    if not config.get("evaluations"):
        return ()
    from ..evaluate.training.opened import open_evaluation
    from ..evaluate.training.options import read_options

    entries = read_options(config.evaluations.to_dict())
    return tuple(open_evaluation(name, one, data=data, records=records) for name, one in entries.items())


def contents_of(opened: "Sequence[Opened]", *, data: "DataOptions") -> dict[str, dict[str, Any]]:
    """Return the content of the folders that evaluations name, by config field, for `engine.loop.train`."""
    from ..data.batches.identity import content_of

    cache: dict[str, Any] = {"cache_dir": data.feed.cache_dir, "cache_gb": data.feed.cache_gb}
    own = {one.name: one.options.data for one in opened if one.options.data}
    return {f"evaluations.{name}.data": content_of(folder, **cache) for name, folder in own.items()}


def to_run(opened: "Sequence[Opened]", *, spec: "ModelSpec", tokenizer: "Tokenizer") -> "list[Evaluation]":
    """Return the evaluations for the loop.

    Args:
      opened: from `open_evaluations`.
      spec: of the model that trains.
      tokenizer: of the run.

    Raises:
      UserError: a `clip_side`, or a head for `rerank`, that the model does not have.
    """
    from ..encode.devices.rows import mesh_of
    from ..encode.embed.encoder import Encoder
    from ..engine.loop.evaluation import Evaluation

    def run_of(one: "Opened") -> "Evaluation":
        def run(model: Any, step: int) -> dict[str, float]:
            del step
            return one.measure(Encoder(spec=spec, model=model, tokenizer=tokenizer, mesh=mesh_of(model)))

        return Evaluation(name=one.name, run=run, every=one.options.every, results=one.measure.results)

    for one in opened:
        one.check_model(spec)
    return [run_of(one) for one in opened]
