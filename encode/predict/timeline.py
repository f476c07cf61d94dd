"""A model with a head along time as a finder of moments in media files and arrays."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ...base.errors import UserError
from ...data.text.clean import text_cleaner
from ...data.text.tokenizer import tokenizer_from_meta
from ...losses.crf import Chain, marginals, viterbi
from ...models.heads.classifier import Classifier
from ...models.heads.moments import Labels, Moments
from ..devices.placed import PlacedModel
from ..devices.rows import Rows, padded, shares
from ..films.importance import moment_scores
from ..films.moments import at_moments, best_spans, label_runs
from ..films.summary import SummaryOptions, shot_starts, summarise_file
from ..media.files import clips_of_files, frames_graph, listed

TASKS = ("localise", "highlight", "summarise")
"""Heads in `spec.heads` that look along time."""


class TimelinePredictor(PlacedModel):
    """A video tower and a head along time, with a text tower if it is asked by texts, and the input of all.

    Attributes:
      task: a name of `TASKS`.
      labels: names of the classes of spans; () for a model that is asked by texts.
    """

    def _read_spec(self) -> None:
        [(self.task, self._head)] = self.spec.heads.items()
        self.labels: tuple[str, ...] = tuple(self._head["labels"])
        self._tokenizer = tokenizer_from_meta(dict(self.spec.tokenizer)) if self.asks else None
        self._clean = text_cleaner(self.spec.input.text)

    @property
    def asks(self) -> bool:
        """Whether a text says what to find."""
        return "text" in self.spec.towers

    def predict(
        self,
        paths: Iterable[str | Path],
        *,
        texts: Sequence[str] = (),
        batch_size: int = 8,
        workers: int = 0,
        progress: bool = False,
    ) -> list[dict[str, Any]]:
        """Find moments in media files, with the model's own sampling and preprocessing.

        Args:
          paths: n files of any format that PyAV decodes; each is looked at as a whole.
          texts: what to find in each of them; none for a model that is not asked by texts.
          batch_size: files at a time.
          workers: processes that decode; 0 = one per core.
          progress: draw a progress bar on standard error.

        Returns:
          For each file, and of it for each text: `path`, `duration_s`, `text` (if there is one) and, of a localiser,
          `spans`: `start_s`, `end_s`, `score` (0..1) and, of one with classes, `label`, best first; of a highlighter
          `moments`: `start_s`, `end_s`, `score` in order of time. Of a summariser see `summary.Summary.to_dict`; its
          files may be of any length.

        Raises:
          UserError: texts where the model takes none, or the reverse; a file that cannot be decoded.
        """
        files, texts = listed(paths, method="predict"), self._checked(texts)
        if self.task == "summarise":
            how: dict[str, Any] = {"options": self.summary_options, "workers": workers, "batch_size": batch_size}
            return [{"path": str(file), **summarise_file(self, file, **how).to_dict()} for file in files]
        size = self.global_batch(batch_size, total=len(files))
        found, begin = [], 0
        local = size // jax.process_count()
        for rows, durations in clips_of_files(
            self.spec.input, files, batch_size=size, workers=workers, progress=progress
        ):
            seconds = padded(np.array(durations, np.float64), size=local)
            got = self.tokens({"video": padded(rows["video"], size=local), "seconds": seconds.astype(np.float32)})
            part = files[begin : begin + size]
            place = np.repeat(np.arange(len(part)), max(len(texts), 1))
            outputs = self.head(got["tokens"][place], texts=list(texts) * len(part), batch_size=size)
            for row, output in zip(place.tolist(), outputs, strict=True):
                text = {"text": texts[len(found) % len(texts)]} if texts else {}
                duration = float(got["seconds"][row])
                found.append({"path": str(part[row]), "duration_s": round(duration, 3), **text})
                found[-1] |= self.named(output, duration_s=duration)
            begin += size
        return found

    def tokens(self, rows: Rows) -> Rows:
        """Return the time tokens of one global batch of clips; all processes must call it.

        Args:
          rows: this process's rows, equally many on each process: `video` uint8 [b,T,H,W,3], and anything else; or
            `tokens` that were computed before.

        Returns:
          `tokens` [B,T,D] and the other arrays, of all rows, on every process.
        """
        return self.apply_local(rows, function=video_tokens)

    @property
    def summary_options(self) -> SummaryOptions:
        """How a model of task "summarise" chooses shots."""
        kept = self._head["decode"]
        return SummaryOptions(**{key: kept[key] for key in ("share", "shortest_s", "penalty")})

    @property
    def piece_seconds(self) -> float:
        """Length of the pieces in which long films are looked at: that of the clips that the head was trained on."""
        return float(self._head["decode"]["piece_seconds"])

    def steps(self, video: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return what a model of task "summarise" says of the time steps of clips.

        Args:
          video: uint8 [b,T,H,W,3], preprocessed already.

        Returns:
          The video tower's time tokens, float32 [b,T',D], and the head's scores, float64 [b,T'], 0..1.
        """
        size = self.global_batch(len(video), total=len(video))
        rows = self.tokens({"video": padded(video, size=size // jax.process_count())})
        tokens = rows["tokens"][: len(video)]
        return tokens.astype(np.float32), np.stack([output[:, 0] for output in self.head(tokens, batch_size=size)])

    def head(self, tokens: np.ndarray, *, texts: Sequence[str] = (), batch_size: int = 32) -> list[np.ndarray]:
        """Apply the head to the tokens of clips.

        Args:
          tokens: [n,T,D]; all processes give all rows.
          texts: the query of each row, for a model that is asked by texts.
          batch_size: rows at a time.

        Returns:
          For each row, of a localiser float64 [k,4]: start and end as fractions of the clip, score and number of the
          class, best first; of a highlighter float64 [T], a score 0..1 for each time step; of a summariser float64
          [T,3]: a score for each time step; 1 where a shot begins; and the score of `importance.moment_scores`.
        """
        rows: Rows = {"tokens": tokens}
        if self._tokenizer is not None:
            cleaned = [self._clean(text) for text in texts]
            length = self.spec.input.context_length
            rows["query"], rows["query_mask"], _ = self._tokenizer.encode(cleaned, context_length=length)
        size = self.global_batch(batch_size, total=len(tokens))
        made: list[np.ndarray] = []
        for every, mine in shares(len(tokens), batch_size=size):
            part = {key: padded(value[mine], size=size // jax.process_count()) for key, value in rows.items()}
            got = self.apply_local(part, function=_outputs)
            for i in range(every.stop - every.start):
                made.append(self._decoded({k: v[i] for k, v in got.items()}, tokens=tokens[every.start + i]))
        return made

    def named(self, output: np.ndarray, *, duration_s: float) -> dict[str, Any]:
        """Return an output of `head` as JSON values in seconds; see `predict`."""
        if self.task == "highlight":
            count = moments_in(duration_s, seconds=self._head["decode"]["moment_seconds"])
            edges = np.linspace(0, duration_s, count + 1).round(3).tolist()
            scores = at_moments(output, moments=count)
            moments = zip(edges[:-1], edges[1:], scores.tolist(), strict=True)
            return {"moments": [{"start_s": a, "end_s": b, "score": score} for a, b, score in moments]}
        spans = []
        for start, end, score, label in output.tolist():
            span = {"start_s": round(start * duration_s, 3), "end_s": round(end * duration_s, 3), "score": score}
            spans.append(span | ({"label": self.labels[int(label)]} if self.labels else {}))
        return {"spans": spans}

    def _decoded(self, output: dict[str, np.ndarray], *, tokens: np.ndarray) -> np.ndarray:
        if self.task == "summarise":
            starts = shot_starts(tokens, duration_s=self.piece_seconds, options=self.summary_options)
            begins = np.isin(np.arange(len(tokens)), starts)
            return np.column_stack(
                [output["saliency"].astype(np.float64), begins, moment_scores(tokens, starts=starts)]
            )
        if "saliency" in output:
            return output["saliency"].astype(np.float64)
        if "path" in output:
            return label_runs(output["path"], probability=output["probability"])
        options = self._head["decode"]
        return best_spans(output["scores"], spans=output["spans"], threshold=options["nms"], keep=options["keep"])

    def _checked(self, texts: Sequence[str]) -> list[str]:
        if isinstance(texts, str):
            raise UserError(f"predict wants a list of texts, got one; write texts=[{texts!r}]")
        if self.asks != bool(texts):
            wanted = "needs a text that says what to find (--text); give one or more"
            if not self.asks:
                finds = ", ".join(self.labels) or ("shots" if self.task == "summarise" else "highlights")
                wanted = f"takes no text: it finds {finds}; leave --text out"
            raise UserError(f"the model of {self.source or 'this spec'} {wanted}")
        if empty := [text for text in texts if not text.strip()]:
            raise UserError(f"a text is empty ({empty[0]!r}); say what to find")
        if len(frames_graph(self.spec.input).shape) != 4:
            raise UserError(
                f"config.data.eval_video={self.spec.input.eval_video!r} makes several views of a clip; moments are "
                "found in one: use center_crop"
            )
        return list(texts)


def moments_in(duration_s: float, *, seconds: float) -> int:
    """Return into how many moments a clip is cut, as QVHighlights cuts it: `int(duration / seconds)`, at least 1."""
    return max(1, int(duration_s / seconds + 1e-6))


def video_tokens(model: Any, rows: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Return the tokens of clips as a frozen tower gives them to its head, and the rows' other arrays."""
    rest = dict(rows)
    if "tokens" in rest:
        return rest
    if isinstance(model, Classifier):
        return {"tokens": model.tokens(rest.pop("video"), frozen=True), **rest}
    return {"tokens": model.video.features(rest.pop("video"), drop_patches=False), **rest}


def _outputs(model: Any, rows: dict[str, jax.Array]) -> dict[str, jax.Array]:
    found = model.score(rows["tokens"], query=rows.get("query"), query_mask=rows.get("query_mask"), frozen=True)
    if isinstance(found, Moments):
        return {"scores": jax.nn.sigmoid(found.scores), "spans": found.spans}
    if isinstance(found, Labels):
        chain = Chain(*found[1:])
        path = viterbi(found.emissions, chain=chain)
        share = marginals(found.emissions, chain=chain)
        own = jax.numpy.take_along_axis(share, path[..., None], axis=2)[..., 0]
        return {"path": path, "probability": own}
    return {"saliency": jax.nn.sigmoid(found)}
