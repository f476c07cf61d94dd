"""What a run of `pretrain` begins with: records, tokenizer, the model section, and the parameters of other models.

A run that has begun keeps in its workdir what it needs of places that may change or vanish: the tokenizer, and what
the sources of `config.model.source` say.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.config import Config, with_overrides
from ..base.errors import UserError
from ..data.hub import is_hub
from ..engine.keeping.init_from import InitFrom
from ..zoo.spec import features_of
from .check_records import check_stored_features
from .evaluations import contents_of, open_evaluations

if TYPE_CHECKING:
    import numpy as np

    from ..data.batches.records import Records
    from ..data.options import DataOptions
    from ..data.text.tokenizer import Tokenizer
    from ..evaluate.training.opened import Opened
    from ..zoo.sources import Sources

TOKENIZER = "tokenizer.meta.json"
SOURCES = "sources.json"
CURRICULUM = "config.curriculum"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Begun:
    """What a run begins with.

    Attributes:
      config: the experiment, with what its sources say in its sections model and data.
      data: its section data, with the options of the records.
      records: of the data set, of a mixture the first.
      evaluations: what is measured during training, opened.
      tokenizer: of the run.
      identity: content of the places that `config.data` names, for `engine.loop.train`.
      start: the parameters of a new run; None = all are new.
      sources: of the towers, if any.
      origin: where its parameters come from: `sources` by modality, or `init`, each an origin with its name; {} = new.
    """

    config: Config
    data: "DataOptions"
    records: "Records"
    evaluations: "tuple[Opened, ...]"
    tokenizer: "Tokenizer"
    identity: dict[str, Any]
    start: InitFrom | None
    sources: "Sources | None"
    origin: dict[str, Any]

    def keep(self, workdir: Path) -> None:
        """Keep in `workdir` what a resumed run would otherwise have to find or train again."""
        from ..engine.keeping.files import write_atomically

        workdir.mkdir(parents=True, exist_ok=True)
        write_atomically(workdir / TOKENIZER, text=json.dumps(self.tokenizer.to_meta()))
        if self.sources is not None:
            write_atomically(workdir / SOURCES, text=json.dumps(self.sources.to_meta()))

    def to_json(self) -> str:
        """Return what must be the same on all processes of the run."""
        model = None if self.sources is None else self.sources.to_dict()
        return json.dumps([self.tokenizer.to_meta(), self.identity, model], sort_keys=True)


def begin(config: Config, *, workdir: Path, start: InitFrom | None) -> Begun:
    """Open the data, and find tokenizer and sources: those in `workdir` if a run has begun there.

    Args:
      config: the experiment.
      workdir: folder of the run.
      start: `--init`, whose parameters stand above those of the sources; None = begin with those of the sources.

    Raises:
      UserError: data, a tokenizer or a source that cannot be read, or that do not fit each other.
    """
    from ..data.batches.identity import contents
    from ..data.options import DataOptions

    whole, sources = with_sources(config, workdir=workdir)
    data = DataOptions.of(whole.data)
    records = open_records(data)
    tokenizer = find_tokenizer(data, workdir=workdir, start=start, sources=sources)
    origin = find_origin(workdir, start=start, sources=sources)
    if sources is not None and start is None:
        start = InitFrom(
            checkpoint=Path(sources.name), read=lambda _: sources.params(), flag="config.model.source", parts_flag=""
        )
    elif sources is not None and sources.language_model is not None and start is not None:
        start = with_language_model(start, sources=sources)
    if (name := features_of(whole.model.to_dict()).get("video")) and start and not has_parameters(workdir):
        check_stored_features(records, name=name, params=(start.read or read_params)(start.checkpoint))
    data = dataclasses.replace(data, input=data.input.as_prepared(records.options))
    evaluations = open_evaluations(whole, data=data, records=records)
    return Begun(
        config=whole,
        data=data,
        records=records,
        evaluations=evaluations,
        tokenizer=tokenizer,
        identity=contents(data.feed) | tokenizer_content(data.feed.tokenizer) | contents_of(evaluations, data=data),
        start=start,
        sources=sources,
        origin=origin,
    )


def find_origin(workdir: Path, *, start: InitFrom | None, sources: "Sources | None") -> dict[str, Any]:
    """Return where the parameters of a run come from, licences included; a run that has checkpoints knows it."""
    from ..zoo.load import locate

    if has_parameters(workdir):
        known = locate(workdir).spec.origin
        return {key: known[key] for key in ("sources", "init") if key in known}
    if start is not None:
        found = locate(start.checkpoint)
        return {"init": {"name": str(found.path), **found.spec.origin}}
    return {} if sources is None else {"sources": dict(sources.origins)}


def with_sources(config: Config, *, workdir: Path | None = None) -> "tuple[Config, Sources | None]":
    """Return the config with what the sources of its model say, and the sources; None = the model names none.

    Args:
      config: the experiment.
      workdir: of a run; one that has begun knows its sources, which are asked again for parameters alone.

    Raises:
      UserError: see `zoo.sources.find_sources`.
    """
    model = config.model.to_dict()
    parts = [part for part in (*model.values(), *(model.get("heads") or {}).values()) if isinstance(part, Mapping)]
    if not any(section.get("source") for section in (config.model, *parts)):
        return config, None
    from ..zoo.sources import find_sources, places_from_meta

    kept, known = None if workdir is None or not has_begun(workdir) else workdir / SOURCES, {}
    if kept is not None and kept.is_file():
        known = places_from_meta(json.loads(kept.read_text(encoding="utf-8")), name=str(kept))
    found = find_sources(model, data=config.data.to_dict(), known=known)
    if found is None:
        return config, None
    whole = config.copy_and_resolve_references()
    with whole.unlocked():
        whole.model = dict(found.model)
        for name, value in found.input.items():
            whole.data[name] = value
    whole.lock()
    return whole, found


def with_language_model(start: InitFrom, *, sources: "Sources") -> InitFrom:
    """Return `--init` with the parameters of the language model that writes captions, which come from its own source.

    Those of the checkpoint stand above them, if it has them and they are wanted.
    """
    from ..zoo.language_models import PLACE

    read = start.read or read_params
    own = () if start.parts is None else (f"{PLACE}/.*",)

    def both(checkpoint: Path) -> "dict[str, np.ndarray]":
        found = {path: value for path, value in read(checkpoint).items() if not own or start.takes(path)}
        return sources.of_language_model() | found

    return dataclasses.replace(start, read=both, parts=None if start.parts is None else (*start.parts, *own))


def curriculum(config: Config) -> list[Config]:
    """Return the configs of the stages that precede a run: `config.curriculum`, a list of lists of overrides.

    Raises:
      UserError: a stage that is no list of overrides, or an override that does not fit, with the number of the stage.
    """
    found = []
    for number, overrides in enumerate(config.get("curriculum", ()), start=1):
        if isinstance(overrides, str) or not all(isinstance(item, str) for item in overrides):
            raise UserError(
                f"{CURRICULUM}: stage {number} is {overrides!r}; wanted a list of overrides, such as "
                "('data.num_frames=1', 'train.steps=2000')"
            )
        try:
            stage = with_overrides(config, overrides)
        except UserError as error:
            raise UserError(f"{CURRICULUM}, stage {number}: {error}") from error
        with stage.unlocked():
            del stage["curriculum"]
        found.append(stage)
    return found


def fed(data: "DataOptions", *, towers: Mapping[str, Any]) -> "DataOptions":
    """Return what training batches hold: features that towers take, and frames unless the video tower takes those.

    Args:
      data: `config.data`.
      towers: of a spec, or `config.model`.
    """
    named = features_of(towers)
    if not named:
        return data
    rows = dict.fromkeys(named.values(), data.input.num_frames)
    frames = {"num_frames": 0} if "video" in named else {}
    return data.replace(**frames, features=rows | dict(data.feed.features))


def has_begun(workdir: Path) -> bool:
    """Tell whether a run has begun there; a start that failed may have left other files alone."""
    return (workdir / "config.json").is_file()


def has_parameters(workdir: Path) -> bool:
    """Tell whether a run there has parameters of its own: a run that has begun has none before its first checkpoint."""
    from ..engine.keeping.checkpoint import FOLDER, steps_in

    return bool(steps_in(workdir / FOLDER))


def open_records(data: "DataOptions") -> "Records":
    """Open the prepared folder of the run: `config.data.dir`, or else the mixture's first.

    Raises:
      UserError: it cannot be opened.
    """
    from ..data.batches.records import Records

    folder = data.feed.dir if data.feed.dir or not data.feed.mixture else next(iter(data.feed.mixture.values()))["dir"]
    return Records(folder, cache_dir=data.feed.cache_dir, cache_gb=data.feed.cache_gb)


def tokenizer_content(name: str) -> dict[str, Any]:
    """Return the content of the tokenizer's files, if `config.data.tokenizer` names a place: None if it is not there.

    A resumed run has its tokenizer in its workdir, so the files may be gone.
    """
    from ..data.text.tokenizer import load_tokenizer

    if name == "train" or is_hub(name):
        return {}
    try:
        made = load_tokenizer(name).to_meta()
    except UserError:
        return {"data.tokenizer": None}
    digest = hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()
    return {"data.tokenizer": {"kind": "tokenizer", "sha256": digest[:12]}}


def find_tokenizer(
    data: "DataOptions", *, workdir: Path, start: InitFrom | None = None, sources: "Sources | None" = None
) -> "Tokenizer":
    """Return the run's tokenizer: the one in `workdir` if a run has begun there, else made as `config.data` says.

    A run that begins with the token embeddings of another model takes the tokenizer to which they belong.

    Raises:
      UserError: the model with the token embeddings has no tokenizer and `config.data.tokenizer` names none, or that
        has ids beyond the embeddings.
    """
    from ..data.batches.pipeline import make_tokenizer
    from ..data.text.tokenizer import tokenizer_from_meta
    from ..zoo.load import locate

    kept = workdir / TOKENIZER
    if kept.is_file() and has_begun(workdir):
        return tokenizer_from_meta(json.loads(kept.read_text(encoding="utf-8")))
    if start is not None and start.takes("text/embedding"):
        return tokenizer_from_meta(dict(locate(start.checkpoint).spec.tokenizer))
    if sources is not None and "text" in sources.origins:
        given = sources.tokenizer
        return tokenizer_from_meta(dict(given)) if given else _tokenizer_for(sources, data=data)
    return make_tokenizer(data)


def _tokenizer_for(sources: "Sources", *, data: "DataOptions") -> "Tokenizer":
    """Return the tokenizer that the config names for a text tower whose source has none."""
    from ..data.text.tokenizer import load_tokenizer

    name, most = sources.origins["text"]["name"], sources.model["text"]["vocab_size"]
    if data.feed.tokenizer == "train":
        raise UserError(
            f"{name} has a text tower but no tokenizer; set config.data.tokenizer to the files with which it was "
            "trained (a SentencePiece .model, a folder of Hugging Face tokenizer files, or hf:ORGANISATION/NAME)"
        )
    found = load_tokenizer(data.feed.tokenizer)
    if found.vocab_size > most:
        raise UserError(
            f"config.data.tokenizer={data.feed.tokenizer!r} has {found.vocab_size} ids, but the text tower of {name} "
            f"has embeddings for {most}; name the tokenizer that belongs to it"
        )
    return found


def read_params(source: Path) -> "Mapping[str, np.ndarray]":
    """Read the parameters of `--init`: of a run or a bundle, or of public weights; low-rank updates are merged."""
    from ..zoo.load import locate
    from ..zoo.merge import merged

    return merged(locate(source)).params()
