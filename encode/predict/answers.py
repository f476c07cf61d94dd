"""A model with a head that answers questions, for media files and arrays."""

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import softmax

from ...base.errors import UserError
from ...data.text.clean import text_cleaner
from ...data.text.tokenizer import tokenizer_from_meta
from ...models.generate import GenerateOptions, generate
from ...models.heads.answers import Answers, Seen, Writings
from ...zoo.spec import ModelSpec
from ..devices.placed import PlacedModel
from ..devices.rows import Rows, padded, shares
from ..media.files import clips_of_files, frames_graph, listed, sound_of_files

SEEN = ("tokens", "sound", "sound_mask")
"""Keys of rows that hold the tokens of clips."""


class Written(NamedTuple):
    """An answer that was written token by token.

    Attributes:
      answer: its text.
      score: its probability, 0..1, of all texts.
    """

    answer: str
    score: float


class AnswerPredictor(PlacedModel):
    """A video, a text and perhaps a sound tower with a head that joins their tokens, and the input of all.

    Attributes:
      kind: "closed": answers of a vocabulary; "choice": options that come with each question; "generated": answers
        that are written token by token.
      labels: the vocabulary; () of the other kinds.
    """

    def _read_spec(self) -> None:
        self._head = self.spec.heads["answer"]
        self.kind, self.labels = self._head["kind"], tuple(self._head["labels"])
        self._tokenizer = tokenizer_from_meta(dict(self.spec.tokenizer))
        self._clean = text_cleaner(self.spec.input.text)

    @property
    def hears(self) -> bool:
        """Whether the model takes sound."""
        return "audio" in self.spec.towers

    def predict(
        self,
        paths: Iterable[str | Path],
        *,
        questions: Sequence[str],
        options: Sequence[str] = (),
        batch_size: int = 8,
        workers: int = 0,
        progress: bool = False,
    ) -> list[dict[str, Any]]:
        """Answer questions about media files, with the model's own sampling and preprocessing.

        Args:
          paths: n files of any format that PyAV decodes; each is looked at as a whole. One without sound is no error.
          questions: what is asked about each of them.
          options: answers to choose among, two or more, for a model of kind "choice".
          batch_size: files at a time.
          workers: processes that decode; 0 = one per core.
          progress: draw a progress bar on standard error.

        Returns:
          For each file, and of it for each question: `path`, `question`, `answer`, its `score` (0..1) and `scores`, of
          all answers, the best first; a written answer has no `scores`.

        Raises:
          UserError: no question, one that is empty or longer than the context, options where the model takes none or
            the reverse, or a file that cannot be decoded.
        """
        files = listed(paths, method="predict")
        asked = self.texts_of(questions, options=options)
        size = self.global_batch(batch_size, total=len(files))
        local, begin, found = size // jax.process_count(), 0, []
        given: dict[str, Any] = {"batch_size": size, "workers": workers}
        frames = clips_of_files(self.spec.input, files, **given, progress=progress)
        sounds = sound_of_files(self.spec.input, files, **given, silent=True) if self.hears else None
        for rows, _ in frames:
            heard = {}
            if sounds is not None:
                heard = dict(zip(("audio", "audio_samples"), next(sounds), strict=True))
            seen = self.see({key: padded(value, size=local) for key, value in {**rows, **heard}.items()})
            part = files[begin : begin + size]
            place = np.repeat(np.arange(len(part)), len(questions))
            rows_of = {key: seen[key][place] for key in SEEN if key in seen}
            texts = asked * len(part)
            counts = [max(len(options), 1)] * len(place)
            if self.kind == "generated":
                joint, _ = self.write(rows_of, texts=texts, batch_size=size, baseline=False)
            else:
                joint, _ = self.scores(rows_of, texts=texts, counts=counts, batch_size=size)
            for number, (row, one) in enumerate(zip(place.tolist(), joint, strict=True)):
                named = one._asdict() if isinstance(one, Written) else self.named(one, options=options)
                found.append({"path": str(part[row]), "question": questions[number % len(questions)], **named})
            begin += size
        return found

    def see(self, rows: Rows) -> Rows:
        """Return the tokens of one global batch of clips; all processes must call it.

        Args:
          rows: this process's rows, equally many on each process: `video` uint8 [b,T,H,W,3], or `tokens` of a frozen
            tower computed before; for a model that hears `audio` and `audio_samples`; and anything else.

        Returns:
          `tokens` [B,T,D], `sound` [B,N,S] and `sound_mask` [B,N] of a model that hears, and the other arrays, of all
          rows, on every process.
        """
        return self.apply_local(rows, function=_seen)

    def scores(
        self, seen: Rows, *, texts: Sequence[str], counts: Sequence[int], batch_size: int = 32, baseline: bool = True
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Score the answers to questions; all processes give all rows.

        Args:
          seen: the tokens of the clips, keys of `SEEN`, one row for each question.
          texts: the questions; of a choice the question with each of its options, one question's after another's.
          counts: of each question, how many texts it has; 1 of an open one.
          batch_size: texts at a time.
          baseline: also score by the question alone.

        Returns:
          For each question the probabilities of the answers, float32 [K]; of a choice those of its options. First by
          question and clip, then by the question alone ([] without `baseline`).
        """
        place = np.repeat(np.arange(len(counts)), counts)
        rows = {key: value[place] for key, value in seen.items()}
        function = _answers if baseline else _joint_answers
        got = self._asked(rows, texts=texts, batch_size=batch_size, function=function)
        found = self._probabilities(got["joint"], counts=counts)
        return found, self._probabilities(got["question_only"], counts=counts) if baseline else []

    def write(
        self, seen: Rows, *, texts: Sequence[str], batch_size: int = 32, baseline: bool = True
    ) -> tuple[list[Written], list[Written]]:
        """Write the answers to questions, the likeliest token first (greedy); all processes give all rows.

        Args:
          seen: the tokens of the clips, keys of `SEEN`, one row for each question.
          texts: the questions.
          batch_size: texts at a time.
          baseline: also write by the question alone.

        Returns:
          The answers by question and clip, and those by the question alone ([] without `baseline`).
        """
        tokenizer, names = self._tokenizer, Writings._fields[: 1 + baseline]
        options = GenerateOptions(max_tokens=self._head["decode"]["max_tokens"])
        function = _writer(options, tokenizer.eos_id, tokenizer.pad_id, names)
        got, found = self._asked(seen, texts=texts, batch_size=batch_size, function=function), []
        for name in names:
            both = zip(got[name], got[f"{name}_lengths"], np.exp(got[f"{name}_scores"]).tolist(), strict=True)
            found.append([Written(tokenizer.decode(ids[:length]).strip(), score) for ids, length, score in both])
        return found[0], found[1] if baseline else []

    def _asked(self, rows: Rows, *, texts: Sequence[str], batch_size: int, function: Any) -> Rows:
        """Return what `function` makes of clips and questions, one row for each text, in parts of `batch_size`."""
        length = self.spec.input.context_length
        ids, mask, _ = self._tokenizer.encode([self._clean(text) for text in texts], context_length=length)
        length = padded_length(self.spec, longest=int(mask.sum(axis=1).max(initial=1)))
        rows = rows | {"question": ids[:, :length], "question_mask": mask[:, :length]}
        size, parts = self.global_batch(batch_size, total=len(texts)), []
        for every, mine in shares(len(texts), batch_size=size):
            part = {key: padded(value[mine], size=size // jax.process_count()) for key, value in rows.items()}
            got = self.apply_local(part, function=function)
            parts.append({key: value[: every.stop - every.start] for key, value in got.items()})
        return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}

    def cut(self, texts: Iterable[str]) -> np.ndarray:
        """Return bool [n]: whether a text is longer than the context, so that its end is not read."""
        lengths = self._tokenizer.lengths([self._clean(text) for text in texts])
        return np.asarray(lengths) > self.spec.input.context_length

    def named(self, scores: np.ndarray, *, options: Sequence[str] = ()) -> dict[str, Any]:
        """Return `answer`, `score` and `scores` of one question; see `predict`."""
        names, order = options or self.labels, np.argsort(-scores, kind="stable")
        shown = {names[i]: float(scores[i]) for i in order.tolist()}
        best = names[int(order[0])]
        return {"answer": best, "score": shown[best], "scores": shown}

    def _probabilities(self, logits: np.ndarray, *, counts: Sequence[int]) -> list[np.ndarray]:
        """Return the probabilities of each question's answers, of scores before the softmax or the sigmoid."""
        if self.kind == "choice":
            return [softmax(one[:, 0].astype(np.float64)) for one in np.split(logits, np.cumsum(counts)[:-1])]
        if self._head["decode"]["loss"] == "soft":
            return list(1 / (1 + np.exp(-np.clip(logits, -80, 80))))
        return [softmax(one.astype(np.float64)) for one in logits]

    def texts_of(self, questions: Sequence[str], *, options: Sequence[str]) -> list[str]:
        """Return the texts that the model reads for one clip: the questions, or each with each option.

        Raises:
          UserError: see `predict`.
        """
        name = self.source or "this spec"
        for value, argument in ((questions, "questions"), (options, "options")):
            if isinstance(value, str):
                raise UserError(f"predict wants a list of {argument}, got one; write {argument}=[{value!r}]")
        if not questions:
            raise UserError(f"the model of {name} answers questions (--question); give one or more")
        if empty := [text for text in [*questions, *options] if not text.strip()]:
            raise UserError(f"a question or an option is empty ({empty[0]!r}); write what is asked")
        if self.kind == "choice" and len(set(options)) < 2:
            raise UserError(
                f"the model of {name} chooses among options (--option), got {len(set(options))} different ones; give "
                "two or more"
            )
        if self.kind != "choice" and options:
            own = f"has a vocabulary of {len(self.labels)} answers of its own" if self.labels else "writes its answers"
            raise UserError(f"the model of {name} {own}; leave --option out")
        texts = [f"{text} {option}" for text in questions for option in options] or list(questions)
        if (cut := self.cut(texts)).any():
            raise UserError(
                f"the question {texts[int(cut.argmax())]!r} has more than the {self.spec.input.context_length} tokens "
                "that the text tower reads; shorten it"
            )
        if len(frames_graph(self.spec.input).shape) != 4:
            raise UserError(
                f"config.data.eval_video={self.spec.input.eval_video!r} makes several views of a clip; questions are "
                "answered from one: use center_crop"
            )
        return texts


def padded_length(spec: ModelSpec, *, longest: int) -> int:
    """Return to how many tokens texts are padded whose longest has `longest`: a multiple of 4, at most the context.

    A text tower that sees padding gets the whole context, as it was trained.
    """
    whole = spec.input.context_length
    return whole if spec.towers["text"].get("padding_seen") else min(whole, -(-longest // 4) * 4)


def _seen(model: Any, rows: dict[str, jax.Array]) -> dict[str, jax.Array]:
    rest = dict(rows)
    given = {key: rest.pop(key) for key in ("video", "tokens", "audio", "audio_samples") if key in rest}
    seen = model.see(**given)
    sound = {} if seen.sound is None else {"sound": seen.sound, "sound_mask": seen.sound_mask}
    return {"tokens": seen.video, **sound, **rest}


def _answers(model: Any, rows: dict[str, jax.Array]) -> dict[str, jax.Array]:
    seen = Seen(rows["tokens"], rows.get("sound"), rows.get("sound_mask"))
    found: Answers = model.answer(seen, text=rows["question"], mask=rows["question_mask"])
    return found._asdict()


def _joint_answers(model: Any, rows: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return {"joint": _answers(model, rows)["joint"]}  # the compiler leaves the other out


@functools.cache
def _writer(options: GenerateOptions, eos_id: int, pad_id: int, names: tuple[str, ...]) -> Any:
    """Return the function that writes answers to rows of questions; one for each way, so that each compiles once."""

    def function(model: Any, rows: dict[str, jax.Array]) -> dict[str, jax.Array]:
        seen = Seen(rows["tokens"], rows.get("sound"), rows.get("sound_mask"))
        read: Writings = model.read(seen, text=rows["question"], mask=rows["question_mask"])
        prompt = jnp.full((rows["question"].shape[0], 1), model.head.start_id, jnp.int32)
        found = {}
        for name in names:
            given = {"eos_id": eos_id, "pad_id": pad_id, "options": options, "context": getattr(read, name)}
            made = generate(model.head.writers[name], prompt=prompt, **given)
            found[name], found[f"{name}_lengths"] = made.tokens[:, 0], made.lengths[:, 0]
            found[f"{name}_scores"] = made.scores[:, 0]
        return found

    return function
