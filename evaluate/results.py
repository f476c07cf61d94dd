"""What `retrieval.json` holds, and the folder of a report."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..base.errors import UserError

if TYPE_CHECKING:
    from .counting.count import CountOptions
    from .embedding.embeddings import Embeddings
    from .measures.ranks import Ranks
    from .measures.rows import RowError
    from .protocols.scored import Scores


@dataclasses.dataclass(frozen=True, kw_only=True)
class Further:
    """What is measured on request, besides retrieval itself.

    Attributes:
      read_as: other projects' readings of the same scores, see `protocols.scored.readings`.
      rerank: methods of re-ranking, see `protocols.scored.reranked`.
      compare: files of other models' embeddings of the same split, see `protocols.comparison`.
      group_by: further fields by which recalls are grouped, see `protocols.groups`.
      share_duplicates: the rows of `protocols.repeated.shared_duplicates`.
    """

    read_as: Sequence[str] = ()
    rerank: Sequence[str] = ()
    compare: Sequence[Path] = ()
    group_by: Sequence[str] = ()
    share_duplicates: bool = False

    @classmethod
    def of(cls, given: Any) -> "Further":
        """Return what options or parsed flags ask for, by the same names."""
        return cls(**{field.name: getattr(given, field.name) for field in dataclasses.fields(cls)})

    def check(self) -> None:
        """Raise UserError for a name that is not known or a file that cannot be read: before a model embeds a split."""
        from .embedding.embeddings import Embeddings
        from .measures.published import READINGS
        from .protocols.options import parse_named
        from .protocols.scored import METHODS, joint_asked

        for given in self.read_as:
            parse_named(given, known=READINGS, flag="--as")
        for given in self.rerank:
            parse_named(given, known=METHODS, flag="--rerank")
        joint_asked(self.rerank)
        for path in self.compare:
            Embeddings.load(path)

    def of_embeddings(self, embeddings: "Embeddings", *, ranks: "Mapping[str, Ranks]") -> dict[str, Any]:
        """Return the blocks of `retrieval.json`; `ranks` is `rank(embeddings)`."""
        from .embedding.embeddings import Embeddings
        from .protocols.comparison import COMPARED, compare

        made = self.of_scores(_scores_of(embeddings)) if self.read_as or self.rerank else {}
        others = {
            str(path): compare(embeddings, other=Embeddings.load(path), ranks=ranks, name=str(path))
            for path in self.compare
        }
        return made | ({COMPARED: others} if others else {})

    def of_scores(self, scores: "Scores") -> dict[str, Any]:
        """Return the blocks of `retrieval.json` for which all scores are held."""
        from .protocols.scored import HUBNESS, READ_AS, RERANKED, hubness_of, readings, reranked

        made: dict[str, Any] = {HUBNESS: hubness_of(scores.scores)}
        made |= {READ_AS: readings(scores, names=self.read_as)} if self.read_as else {}
        return made | ({RERANKED: reranked(scores, methods=self.rerank)} if self.rerank else {})


NOTHING = Further()


def rank(embeddings: "Embeddings", *, options: "CountOptions | None" = None) -> "dict[str, Ranks]":
    """Return `directions.all_ranks` of embeddings.

    Args:
      embeddings: of the split.
      options: how pairs are counted; None = the defaults.

    Raises:
      UserError: arrays that do not fit together, or a row that is zero or not finite; its clip or text is named.
    """
    from .counting.count import DEFAULTS
    from .measures.rows import RowError, check_rows, row_numbers
    from .protocols.directions import all_ranks
    from .protocols.repeated import caption_numbers

    same = caption_numbers(embeddings)
    arrays: dict[str, Any] = {key: getattr(embeddings, key) for key in ("text", "video", "video_of_text")}
    try:
        arrays["same_text"] = row_numbers(check_rows(embeddings.text, name="text")) if same is None else same
        return all_ranks(**arrays, options=options or DEFAULTS)
    except RowError as error:
        item = _name_of_row(embeddings, error)
        raise UserError(f"{item}: {error}" if item else str(error)) from error


def measure(
    embeddings: "Embeddings",
    *,
    ranks: "Mapping[str, Ranks] | None" = None,
    further: Further = NOTHING,
    intervals: bool = True,
) -> dict[str, Any]:
    """Return the content of `retrieval.json` for embeddings.

    Args:
      embeddings: of the split; `order_twins` is measured where the clips have twins, `minimal_pairs` and
        `multiple_choice` where their captions have foils, `controls` and `pairs` where they were embedded.
      ranks: `rank(embeddings)`; None: they are counted here.
      further: what else is measured.
      intervals: add bootstrap intervals of the recalls, and `groups` where captions and clips are known.

    Raises:
      UserError: arrays that do not fit together, or a row that is zero or not finite; its clip or text is named.
    """
    from .measures.rows import RowError
    from .protocols import control_rows, pair_rows
    from .protocols.marks import marked
    from .protocols.minimal_pairs import minimal_pairs
    from .protocols.multiple_choice import foil_choices
    from .protocols.repeated import caption_numbers
    from .protocols.retrieval import retrieval_report
    from .protocols.twins import order_twins

    ranks = ranks or rank(embeddings)
    try:
        results = retrieval_report(
            text=embeddings.text,
            video=embeddings.video,
            video_of_text=embeddings.video_of_text,
            same_text=caption_numbers(embeddings),
            ranks=ranks,
            protocol=embeddings.protocol,
            coverage=embeddings.coverage,
            intervals=intervals,
        )
        if embeddings.controls or control_rows.BLOCK in embeddings.further:
            results[control_rows.BLOCK] = control_rows.control_rows(embeddings, ranks=ranks, intervals=intervals)
    except RowError as error:
        item = _name_of_row(embeddings, error)
        raise UserError(f"{item}: {error}" if item else str(error)) from error
    if embeddings.foils is not None:
        arrays = {"text": embeddings.text, "video": embeddings.video, "video_of_text": embeddings.video_of_text}
        results["minimal_pairs"] = minimal_pairs(**arrays, foils=embeddings.foils)
        results["multiple_choice"] = foil_choices(**arrays, foils=embeddings.foils)
    if pair_rows.BLOCK in embeddings.further:
        results[pair_rows.BLOCK] = pair_rows.pair_rows(embeddings, intervals=intervals)
    twins = order_twins(embeddings)
    results |= {"order_twins": twins} if twins["n"] else {}
    if further.share_duplicates:
        more = _shared(embeddings)
        results["protocol"] |= more.pop("protocol")
        results |= more
    results |= _groups(embeddings, ranks=ranks, group_by=further.group_by) if intervals or further.group_by else {}
    return marked(results | further.of_embeddings(embeddings, ranks=ranks))


def _shared(embeddings: "Embeddings") -> dict[str, Any]:
    from .measures.rows import row_numbers
    from .protocols.repeated import caption_numbers, shared_duplicates

    arrays = {key: getattr(embeddings, key) for key in ("text", "video", "video_of_text")}
    same = caption_numbers(embeddings)
    return shared_duplicates(**arrays, same_text=row_numbers(embeddings.text) if same is None else same)


def _groups(embeddings: "Embeddings", *, ranks: "Mapping[str, Ranks]", group_by: Sequence[str]) -> dict[str, Any]:
    from .protocols.groups import GROUPS, group_block
    from .protocols.retrieval import DIRECTIONS

    found = group_block(embeddings, ranks=(ranks[DIRECTIONS[0]], ranks[DIRECTIONS[1]]), group_by=group_by)
    return {GROUPS: found} if found else {}


def _scores_of(embeddings: "Embeddings") -> "Scores":
    """Return the cosines of all texts with all videos."""
    from .measures.rows import check_pair, cosine, unit_rows
    from .protocols.scored import Scores, check_size

    check_size(len(embeddings.text), len(embeddings.video))
    if embeddings.bank_text is not None:
        check_size(len(embeddings.bank_text), len(embeddings.video))
    text, video, index = check_pair(embeddings.text, video=embeddings.video, video_of_text=embeddings.video_of_text)
    ids = [row["clip_id"] for row in embeddings.rows] or None
    bank, windows = embeddings.bank_text, embeddings.video_windows
    return Scores(
        scores=cosine(text, gallery=video),
        video_of_text=index,
        texts=embeddings.captions or None,
        video_ids=ids,
        bank=None if bank is None else cosine(unit_rows(bank, name="bank_text"), gallery=video),
        of_windows=None if windows is None else _best_window(text, windows=windows),
        joint=embeddings.joint,
    )


def _best_window(text: np.ndarray, *, windows: np.ndarray) -> np.ndarray:
    """Return the score of each text with the best window of each video, float64 [n,m]."""
    from .measures.rows import cosine, unit_rows

    best = np.full((len(text), len(windows)), -np.inf)
    for number in range(windows.shape[1]):
        np.maximum(best, cosine(text, gallery=unit_rows(windows[:, number], name="video_windows")), out=best)
    return best


def _name_of_row(embeddings: "Embeddings", error: "RowError") -> str:
    """Return the clip id or the text of a row; "" where the embeddings came without them."""
    from .protocols.controls import CONTROLS

    control = CONTROLS.get(error.array.removeprefix("control_"))
    if error.array == "text" or (control and control.side == "text"):
        return f"text {embeddings.captions[error.row]!r}" if embeddings.captions else ""
    return f"clip {embeddings.rows[error.row]['clip_id']!r}" if embeddings.rows else ""


def write(
    embeddings: "Embeddings",
    *,
    out: Path,
    records: Any = None,
    history: Path | None = None,
    ranks: "Mapping[str, Ranks] | None" = None,
    further: Further = NOTHING,
    page: Mapping[str, Any] | None = None,
    kept: Path | None = None,
    saved: bool = False,
) -> dict[str, Any]:
    """Measure embeddings and write the whole report folder.

    Args:
      embeddings: of the split.
      out: the folder; made if absent.
      records: the opened `Records`, for the thumbnails; None for a page without them.
      history: a `metrics.jsonl`, for the curves; None for a page without them.
      ranks: `rank(embeddings)`; None: they are counted here, resumably in `out`.
      further: as in `measure`.
      page: further arguments of `write_report`: `thumbnails`, `earlier`.
      kept: folder of an earlier report of the same embeddings: blocks of its `retrieval.json` that these alone do not
        give, such as re-ranked scores, are taken over if it has the same figures.
      saved: `out` has the file of the embeddings already.

    Returns:
      The content of `retrieval.json`.
    """
    from .counting.count import CountOptions
    from .reports.leaderboard import write_mmeb
    from .reports.rank_file import write_ranks
    from .reports.report import write_report

    out.mkdir(parents=True, exist_ok=True)
    if not saved:
        embeddings.save(out / "embeddings.npz")  # first: what took longest is kept if the rest fails
    ranks = ranks or rank(embeddings, options=CountOptions(folder=out, progress=True))
    results = measure(embeddings, ranks=ranks, further=further)
    results |= _kept(kept, results=results)
    (out / "retrieval.json").write_text(to_json(results), encoding="utf-8")
    write_mmeb(out, results=results)
    write_ranks(out / "ranks.npz", embeddings=embeddings, ranks=ranks)
    shown: dict[str, Any] = {"records": records, "history": history, **(page or {})}
    write_report(out, results=results, embeddings=embeddings, ranks=ranks, **shown)
    return results


def _kept(earlier: Path | None, *, results: dict[str, Any]) -> dict[str, Any]:
    """Return the blocks of an earlier report of the same embeddings that these alone do not give."""
    try:
        before = json.loads((earlier / "retrieval.json").read_text(encoding="utf-8")) if earlier else {}
    except (OSError, ValueError):
        return {}
    same = all(before.get(key) == results[key] for key in ("text_to_video", "video_to_text"))
    return {key: block for key, block in before.items() if key not in results} if same else {}


def to_json(results: dict[str, Any]) -> str:
    """Return the text of `retrieval.json` and its like."""
    return json.dumps(results, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
