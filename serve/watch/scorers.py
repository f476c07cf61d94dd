"""Models of streams: a dual tower that is asked by texts, a classifier, and a model of anomalies."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ...base.errors import UserError, unknown
from ...encode.embed.encoder import Encoder
from ...encode.media.files import frames_graph, frames_of
from ...encode.media.film_windows import FilmWindow
from ...encode.predict.load import load
from ...encode.predict.predictor import Predictor
from ...encode.predict.steps import StepPredictor
from ...zoo.spec import ModelSpec
from .rolling import Window

ANOMALY = "anomaly"
_BLOCK = 4  # steps of a stream of anomaly scores that are scored together


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scored:
    """Scores of a stretch of a stream.

    Attributes:
      start_s: seconds since the stream was first opened.
      end_s: likewise.
      arrived_s: when the last frame came that they needed, by `time.monotonic`.
      scores: name -> score.
    """

    start_s: float
    end_s: float
    arrived_s: float
    scores: Mapping[str, float]


class Scorer(Protocol):
    """A model of streams.

    Attributes:
      spec: what the model is.
      names: of its scores.
      thresholds: where alerts begin and end unless the user says so; None = there is no natural value.
      window_s: length of windows that it needs; None = any.
    """

    spec: ModelSpec
    names: tuple[str, ...]
    thresholds: tuple[float, float] | None
    window_s: float | None

    def warm_up(self) -> None:
        """Compile, so that the first windows of the stream do not wait."""
        ...

    def scores(self, windows: Iterator[Window]) -> Iterator[Scored]:
        """Yield scores in the order of time as soon as they are known."""
        ...


class TextScorer:
    """Scores of texts: their cosines with a window, or their probabilities against texts of what is usual."""

    window_s: float | None = None

    def __init__(self, encoder: Encoder, *, texts: Sequence[str], background: Sequence[str] = ()):
        """Embed the texts.

        Args:
          encoder: the model.
          texts: of the alerts.
          background: what is to be seen otherwise; with some, a text's score is its probability among it and these.

        Raises:
          UserError: no text, or a model without a tower of text or of video.
        """
        if not texts:
            raise UserError("this model is asked by texts: give --alert 'a person falls' once or several times")
        if missing := {"video", "text"} - set(encoder.spec.towers):
            raise UserError(
                f"{encoder.source} has no {' and no '.join(sorted(missing))} tower, so texts cannot be found"
            )
        if encoder.spec.towers["video"].get("family") == "features":
            raise UserError(f"{encoder.source} takes precomputed features and no frames, so it cannot watch a stream")
        self.names: tuple[str, ...] = tuple(texts)
        self.spec, self._encoder = encoder.spec, encoder
        self.thresholds: tuple[float, float] | None = (0.5, 0.4) if background else None
        self._texts = encoder.encode_text(list(texts)).astype(np.float64)
        self._background = encoder.encode_text(list(background)).astype(np.float64) if background else None
        self._scale = float(np.asarray(encoder.model.scale)) if background else 1.0

    def warm_up(self) -> None:
        """See `Scorer`."""
        self._encoder.encode_video_arrays(_blank(self.spec), batch_size=1)

    def scores(self, windows: Iterator[Window]) -> Iterator[Scored]:
        """See `Scorer`."""
        for window in windows:
            video = frames_of(self.spec.input, clip=window.clip)[None]
            found = self.of_embedding(self._encoder.encode_video_arrays(video, batch_size=1)[0])
            yield _scored(window, dict(zip(self.names, found.tolist(), strict=True)))

    def of_embedding(self, embedding: np.ndarray) -> np.ndarray:
        """Return the scores of the texts for an embedding [E], float64 [n]."""
        cosines = self._texts @ embedding.astype(np.float64)
        if self._background is None:
            return cosines
        usual = self._scale * (self._background @ embedding.astype(np.float64))
        logits = np.concatenate([self._scale * cosines[:, None], np.tile(usual, (len(cosines), 1))], axis=1)
        share = np.exp(logits - logits.max(axis=1, keepdims=True))
        return share[:, 0] / share.sum(axis=1)


class LabelScorer:
    """Probabilities of the labels of a classifier."""

    window_s: float | None = None
    thresholds: tuple[float, float] | None = (0.5, 0.4)

    def __init__(self, predictor: Predictor, *, labels: Sequence[str] = ()):
        """Choose the labels; () = all.

        Raises:
          UserError: an unknown label, or a model that predicts a number.
        """
        if predictor.kind == "regression":
            raise UserError(f"{predictor.source} predicts a number and no labels, so it raises no alerts")
        for label in labels:
            if label not in predictor.labels:
                raise unknown("label (--alert)", label, predictor.labels)
        self.names: tuple[str, ...] = tuple(labels) or predictor.labels
        self.spec, self._predictor = predictor.spec, predictor
        self._columns = [predictor.labels.index(name) for name in self.names]

    def warm_up(self) -> None:
        """See `Scorer`."""
        self._predictor.predict_arrays(_blank(self.spec), batch_size=1)

    def scores(self, windows: Iterator[Window]) -> Iterator[Scored]:
        """See `Scorer`."""
        for window in windows:
            video = frames_of(self.spec.input, clip=window.clip)[None]
            found = self._predictor.predict_arrays(video, batch_size=1)[0, self._columns]
            yield _scored(window, dict(zip(self.names, found.tolist(), strict=True)))


class AnomalyScorer:
    """Anomaly scores of time steps: those of the whole stream, as far as it comes without gaps."""

    names: tuple[str, ...] = (ANOMALY,)

    def __init__(self, predictor: StepPredictor):
        """Set up."""
        self.spec, self._predictor = predictor.spec, predictor
        self.window_s: float | None = predictor.seconds
        self.thresholds: tuple[float, float] | None = (predictor.threshold, 0.8 * predictor.threshold)

    def warm_up(self) -> None:
        """See `Scorer`."""
        self._predictor.warm_up(batch_size=1, block=_BLOCK, blocks_at_once=1)

    def scores(self, windows: Iterator[Window]) -> Iterator[Scored]:
        """See `Scorer`."""
        stretch = _Stretch(windows, first=next(windows, None))
        while stretch.first is not None:
            origin, tokens = stretch.first.start_s, self._predictor.tokens(stretch.windows(), batch_size=1)
            for part, _ in self._predictor.scores(tokens, block=_BLOCK, blocks_at_once=1):
                edges = part.edges + origin
                for start, end, score in zip(edges[:-1], edges[1:], part.scores.tolist(), strict=True):
                    yield Scored(
                        start_s=float(start), end_s=float(end), arrived_s=stretch.arrived_s, scores={ANOMALY: score}
                    )
            stretch = _Stretch(windows, first=stretch.following)


class _Stretch:
    """Windows without a gap between them.

    Attributes:
      first: the first window; None = the stream has ended.
      following: the first window after the gap, once `windows` has ended.
      arrived_s: of the newest window.
    """

    def __init__(self, windows: Iterator[Window], *, first: Window | None):
        self._windows, self.first, self.following, self.arrived_s = windows, first, None, 0.0

    def windows(self) -> Iterator[FilmWindow]:
        """Yield the windows as those of a film that begins with the first one."""
        window = self.first
        assert window is not None
        origin = window.start_s
        while window is not None:
            self.arrived_s = window.arrived_s
            times = {"start_s": window.start_s - origin, "end_s": window.end_s - origin}
            yield FilmWindow(film=0, **times, fresh_s=window.fresh_s - origin, clip=window.clip, last=False)
            window = next(self._windows, None)
            if window is not None and not window.joined:
                self.following = window
                return


def open_scorer(model: str, *, alerts: Sequence[str], background: Sequence[str]) -> Scorer:
    """Load a model that can watch a stream.

    Args:
      model: a dual tower, a classifier, or a model of anomalies.
      alerts: texts; labels of a classifier; nothing for a model of anomalies.
      background: texts of what is usual, for a dual tower.

    Raises:
      UserError: another kind of model, or texts that it does not take.
    """
    opened: Any = load(model)
    if isinstance(opened, Encoder):
        return TextScorer(opened, texts=alerts, background=background)
    if background:
        raise UserError(f"--background is for models that are asked by texts; {model} is not")
    if isinstance(opened, Predictor):
        return LabelScorer(opened, labels=alerts)
    if isinstance(opened, StepPredictor):
        if alerts:
            raise UserError(f"{model} scores anomalies and takes no text; leave --alert out")
        return AnomalyScorer(opened)
    raise UserError(
        f"{model} ({type(opened).__name__}) does not look at streams; give a dual tower with --alert, a classifier, or "
        "a model of anomalies"
    )


def _blank(spec: ModelSpec) -> np.ndarray:
    return np.zeros((1, *frames_graph(spec.input).shape), np.uint8)


def _scored(window: Window, scores: dict[str, float]) -> Scored:
    return Scored(start_s=window.start_s, end_s=window.end_s, arrived_s=window.arrived_s, scores=scores)
