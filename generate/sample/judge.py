"""Do generated clips show what their captions say? Retrieval by a dual tower that had no part in the training."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32

from ...base.errors import UserError, unknown
from ...encode.embed.encoder import Encoder
from ...engine.step.state import split_model
from ...evaluate.measures.intervals import wilson_interval
from ...evaluate.measures.ranks import hits, ranks, summary
from ..flow.solve import SolverOptions
from .choice import paint_best
from .painter import Clips, Painter
from .towers import conditioning, embedded, load_tower, same_tower

if TYPE_CHECKING:
    from ...data.batches.records import Records

ROWS = {
    "real": "real clips",
    "autoencoder": "autoencoder alone",
    "generated": "generated clips",
    "best": "best of several generated clips",
}
"""What is judged: key of a figure -> its name on the page; the last one only where candidates were ranked."""


def load_judge(path: str | Path, *, painter: Painter, ranker: Encoder | None = None) -> Encoder:
    """Open the tower that judges.

    Args:
      path: as `twinreel.load` takes it.
      painter: the generator.
      ranker: the tower that chooses among the candidates of a clip, if there are several.

    Raises:
      UserError: no dual tower of video and text, the very tower that the generator is conditioned on, or `ranker`.
    """
    judge = load_tower(path, painter=painter, flag="--judge")
    if same_tower(judge, conditioning(painter)):
        raise UserError(
            f"--judge {path} is the tower that conditions the generator {painter.source}, and would judge its own "
            "work; name a tower of another run"
        )
    if ranker is not None and same_tower(judge, split_model(ranker.model)):
        raise UserError(
            f"--judge {path} is also --rank_by, and would judge its own choice; name a tower of another run"
        )
    return judge


def chosen_clips(records: "Records", *, split: str, count: int, seed: int) -> np.ndarray:
    """Draw the clips of a split whose captions are the candidates, int64 [count], rising.

    Raises:
      UserError: no such split, or fewer clips with a caption.
    """
    if split not in records.splits:
        raise unknown("split", split, records.splits)
    rows = records.rows(split)
    captioned = np.array([i for i in range(len(rows)) if rows[i]["captions"]], np.int64)
    if not 2 <= count <= len(captioned):
        raise UserError(
            f"--clips must be from 2 to the {len(captioned)} clips of split {split!r} that have a caption, got {count}"
        )
    return np.sort(np.random.default_rng(seed).choice(captioned, size=count, replace=False))


def real_clips(painter: Painter, *, records: "Records", split: str, only: np.ndarray) -> Clips:
    """Read clips as the generator's input has them, uint8 [n,T,H,W,3].

    Raises:
      UserError: a record that cannot be read.
    """
    from ...data.batches.pipeline import eval_batches
    from ...data.options import DataOptions, FeedOptions
    from ...data.text.tokenizer import tokenizer_from_meta

    data = DataOptions(input=painter.spec.input, feed=FeedOptions(batch_size=1, dir=str(records.folder)))
    tokenizer = tokenizer_from_meta(dict(painter.spec.tokenizer))
    given = {"tokenizer": tokenizer, "split": split, "batch_size": 25, "only": only, "records": records}
    found = []
    for batch in eval_batches(data, **given):
        inside = batch["clip_index"] >= 0
        if bad := batch["clip_index"][inside & ~batch["valid"]].tolist():  # a black clip would be judged
            clip = records.rows(split)[bad[0]]["clip_id"]
            raise UserError(f"clip {clip!r} of split {split!r} is damaged or has no caption; prepare the data again")
        found.append(batch["video"][inside])
    return np.concatenate(found)


def judged(judge: Encoder, video: Clips, *, texts: Float32[np.ndarray, "n E"]) -> dict[str, Any]:
    """Rank n captions for n clips, and n clips for n captions, by a tower's cosines.

    Args:
      judge: the tower.
      video: uint8 [n,T,H,W,3], clip i of caption i.
      texts: embeddings of the captions.

    Returns:
      `v2t` and `t2v`, each `evaluate.measures.ranks.summary` with `R@1_low` and `R@1_high`, the bounds of R@1 (95 %,
      Wilson); `ranks`, of each clip the rank of its caption; `nearest`, of each clip the best caption.
    """
    similarity = embedded(judge, video) @ texts.T  # [clips, captions]
    found: dict[str, Any] = {}
    for name, scores in (("v2t", similarity), ("t2v", similarity.T)):
        where = ranks(scores, positives=np.arange(len(scores)))
        low, high = wilson_interval(float(hits(where, k=1).mean()), n=len(scores))
        found[name] = summary(where) | {"R@1_low": 100 * low, "R@1_high": 100 * high}
        if name == "v2t":
            found["ranks"] = where.expected.tolist()
            found["nearest"] = scores.argmax(axis=1).tolist()
    return found


def changed_words(rows: Sequence[Mapping[str, Any]], *, names: Sequence[str]) -> list[tuple[int, str, str]]:
    """List the edits that the foils of clips suggest: place of the clip, what is changed, and the caption afterwards.

    Args:
      rows: lines of `clips.jsonl`; `foils` maps what is changed to the first caption with that change.
      names: which changes; () = all.
    """
    return [
        (place, name, text)
        for place, row in enumerate(rows)
        for name, text in (row.get("foils") or {}).items()
        if not names or name in names
    ]


def edit_figures(
    judge: Encoder,
    *,
    before: Clips,
    after: Clips,
    old: Float32[np.ndarray, "n E"],
    new: Float32[np.ndarray, "n E"],
    names: Sequence[str],
) -> dict[str, dict[str, float]]:
    """Measure edits: does the tower now prefer the new caption, and how much of the clip is as it was?

    Args:
      judge: the tower.
      before: n clips.
      after: the same, edited.
      old: embeddings of their captions.
      new: embeddings of the captions that they were edited to.
      names: of each what was changed.

    Returns:
      Name, and "all" -> `before` and `after`, in percent, how often the new caption scores above the old one; `kept`,
      in percent, the pixels that are exactly as they were; `n`.
    """
    wins = [_wins(embedded(judge, video), old=old, new=new) for video in (before, after)]
    kept = np.all(before == after, axis=-1).reshape(len(before), -1).mean(axis=1)
    found = {}
    for name in [*sorted(set(names)), "all"]:
        here = np.array([name in (one, "all") for one in names])
        figures = {"before": 100 * wins[0][here].mean(), "after": 100 * wins[1][here].mean()}
        figures["kept"] = 100 * kept[here].mean()
        found[name] = {key: round(float(value), 2) for key, value in figures.items()} | {"n": int(here.sum())}
    return found


def _wins(video: np.ndarray, *, old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Return of each clip 1 where the new caption scores above the old one, 0.5 where both score alike."""
    first, second = (video * new).sum(axis=1), (video * old).sum(axis=1)
    return (first > second) + 0.5 * (first == second)


def score_generator(
    painter: Painter,
    *,
    judge: Encoder,
    records: "Records",
    split: str = "test",
    clips: int = 100,
    solver: SolverOptions | None = None,
    seed: int = 0,
    ranker: Encoder | None = None,
    candidates: int = 1,
    batch_size: int = 16,
) -> tuple[dict[str, Any], dict[str, Clips]]:
    """Generate a clip for each of some captions, and let a tower retrieve the captions.

    Args:
      painter: the generator.
      judge: of `load_judge`.
      records: the data set.
      split: whose captions are taken, of each clip the first.
      clips: how many captions; chance is one in so many.
      solver: how clips are drawn.
      seed: of the choice of captions, and of the noise.
      ranker: a tower, neither the judge nor like it, that chooses the best of several clips; None = no such row.
      candidates: how many clips it chooses from for each caption, the generated one among them.
      batch_size: clips at a time.

    Returns:
      JSON values: of each key of `ROWS` what `judged` returns, `chance` in percent, `clips` (`clip_id`, `caption`),
      `record`, the places in the split, and `texts_truncated`, captions that the generator does not read to their end;
      and the clips of each row.
    """
    only = chosen_clips(records, split=split, count=clips, seed=seed)
    rows = records.rows(split)
    captions = [rows[int(i)]["captions"][0] for i in only]
    texts = judge.encode_text(captions)
    cut = int((painter.lengths(captions) > painter.spec.input.context_length).sum())
    made = {"real": real_clips(painter, records=records, split=split, only=only)}
    made["autoencoder"] = painter.repaint(made["real"], batch_size=batch_size)
    how: dict[str, Any] = {"solver": solver, "seed": seed, "batch_size": batch_size}
    made["generated"] = painter.paint(captions, **how)
    if ranker is not None:
        best = paint_best(painter, captions, ranker=ranker, candidates=candidates, first=made["generated"], **how)
        made["best"] = best.video
    found: dict[str, Any] = {name: judged(judge, video, texts=texts) for name, video in made.items()}
    found |= {"chance": 100 / clips, "record": only.tolist(), "texts_truncated": cut}
    found["clips"] = [
        {"clip_id": rows[int(i)]["clip_id"], "caption": text} for i, text in zip(only, captions, strict=True)
    ]
    return found, made
