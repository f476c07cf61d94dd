"""A model of several tasks on one tower, for media files."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ...base.errors import UserError
from ...zoo.build import task_spec
from ..devices.placed import PlacedModel
from ..devices.rows import padded
from ..media.files import clips_of_files, listed
from .answers import AnswerPredictor
from .predictor import Predictor
from .timeline import TimelinePredictor, video_tokens
from .verifier import Verifier

PARTS: dict[str, Any] = {
    "classify": Predictor,
    "localise": TimelinePredictor,
    "highlight": TimelinePredictor,
    "summarise": TimelinePredictor,
    "identify": Verifier,
    "answer": AnswerPredictor,
}
"""Name of a task that may be one of several -> what applies its model to files."""
Found = dict[str, Any]


class MultiTaskPredictor(PlacedModel):
    """Towers with the heads of several tasks: each file is decoded, and goes through the video tower, once.

    Attributes:
      parts: name of a task -> its predictor.
    """

    def _read_spec(self) -> None:
        whole, self.parts = self.model, {}
        for name, head in self.spec.heads["multitask"]["tasks"].items():
            given = {"spec": task_spec(self.spec, name), "model": whole.view(name), "mesh": self.mesh}
            self.parts[name] = PARTS[head["task"]](**given, source=self.source, meta=self.meta)

    def predict(
        self,
        paths: Iterable[str | Path],
        *,
        texts: Sequence[str] = (),
        questions: Sequence[str] = (),
        options: Sequence[str] = (),
        batch_size: int = 8,
        workers: int = 0,
        progress: bool = False,
    ) -> list[Found]:
        """Apply all tasks to media files, with the model's own sampling and preprocessing.

        Args:
          paths: n files of any format that PyAV decodes; each is looked at as a whole.
          texts: what to find, for tasks that are asked by texts.
          questions: what is asked, for tasks that answer.
          options: answers to choose among, for answers of kind "choice".
          batch_size: files at a time.
          workers: processes that decode; 0 = one per core.
          progress: draw a progress bar on standard error.

        Returns:
          The values that each task's predictor gives, with the name of the `task`: of each file those of all tasks;
          then pairs of files of tasks that verify identities.

        Raises:
          UserError: texts or questions that a task lacks, or that none takes; a file that cannot be decoded.
        """
        files = listed(paths, method="predict")
        asked = {"texts": list(texts), "questions": list(questions), "options": list(options)}
        self._check(asked)
        decoding = {"workers": workers, "progress": progress}
        found = self._of_files(files, asked=asked, batch_size=batch_size, decoding=decoding)
        lines = [line for of_file in found for line in of_file]
        for name, part in self._apart().items():
            rest = part.predict(files, batch_size=batch_size, workers=workers)
            lines += [{"task": name, **line} for line in rest]
        return lines

    def _apart(self) -> dict[str, Any]:
        """Return the tasks that look at files in a way of their own: at long ones, or at pairs."""
        parts = self.parts.items()
        return {name: part for name, part in parts if isinstance(part, Verifier) or _task_of(part) == "summarise"}

    def _of_files(
        self, files: list[Path], *, asked: Mapping[str, list[str]], batch_size: int, decoding: Mapping[str, Any]
    ) -> list[list[Found]]:
        """Return for each file the values of the tasks that share the tokens of its clip."""
        size = self.global_batch(batch_size, total=len(files))
        local, found = size // jax.process_count(), []
        apart = self._apart()
        if len(apart) == len(self.parts):
            return []
        for rows, durations in clips_of_files(self.spec.input, files, batch_size=size, **decoding):
            seconds = padded(np.array(durations, np.float64), size=local).astype(np.float32)
            given = {"video": padded(rows["video"], size=local), "seconds": seconds}
            seen = self.apply_local(given, function=video_tokens)
            part = files[len(found) : len(found) + size]
            made: list[list[Found]] = [[] for _ in part]
            for name, predictor in self.parts.items():
                if name in apart:
                    continue
                for row, line in _lines(predictor, seen, count=len(part), asked=asked, size=size):
                    made[row].append({"task": name, "path": str(part[row]), **line})
            found += made
        return found

    def _check(self, asked: Mapping[str, list[str]]) -> None:
        model = self.source or "this model"
        asking = [name for name, part in self.parts.items() if isinstance(part, TimelinePredictor) and part.asks]
        answering = [name for name, part in self.parts.items() if isinstance(part, AnswerPredictor)]
        for names, key, flag in ((asking, "texts", "--text"), (answering, "questions", "--question")):
            if names and not asked[key]:
                raise UserError(f"the task {names[0]!r} of {model} needs {flag}; give one or more")
            if asked[key] and not names:
                raise UserError(f"no task of {model} takes {flag}; leave it out")
            if empty := [text for text in asked[key] if not text.strip()]:
                raise UserError(f"{flag} is empty ({empty[0]!r}); write what is meant")


def _task_of(part: Any) -> str:
    return next(iter(part.spec.heads))


def _lines(
    part: Any, seen: dict[str, np.ndarray], *, count: int, asked: Mapping[str, list[str]], size: int
) -> list[tuple[int, Found]]:
    """Return (row, value) of a task for the first `count` rows of a batch of clips whose tokens are known."""
    tokens, share = seen["tokens"], size // jax.process_count()
    if isinstance(part, Predictor):
        own = tokens[jax.process_index() * share : (jax.process_index() + 1) * share]
        probability = part.predict_local({"tokens": own})["probability"]
        return [(row, part.named(probability[row])) for row in range(count)]
    if isinstance(part, TimelinePredictor):
        texts = asked["texts"] if part.asks else []
        place = np.repeat(np.arange(count), max(len(texts), 1))
        outputs = part.head(tokens[place], texts=texts * count, batch_size=size)
        found = []
        for number, (row, output) in enumerate(zip(place.tolist(), outputs, strict=True)):
            duration = float(seen["seconds"][row])
            text = {"text": texts[number % len(texts)]} if texts else {}
            named = part.named(output, duration_s=duration)
            found.append((row, {"duration_s": round(duration, 3), **text, **named}))
        return found
    questions, options = asked["questions"], asked["options"]
    wanted = part.texts_of(questions, options=options)
    place = np.repeat(np.arange(count), len(questions))
    counts = [max(len(options), 1)] * len(place)
    joint, _ = part.scores({"tokens": tokens[place]}, texts=wanted * count, counts=counts, batch_size=size)
    return [
        (row, {"question": questions[number % len(questions)], **part.named(scores, options=options)})
        for number, (row, scores) in enumerate(zip(place.tolist(), joint, strict=True))
    ]
