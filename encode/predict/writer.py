"""A language model as a writer of texts: prompts are continued, freely or among given texts."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from ...base.errors import UserError
from ...base.section import section
from ...data.text.tokenizer import tokenizer_from_meta
from ...models.generate import Generated, GenerateOptions, generate
from ...models.layers.draws import numbered_keys
from ...models.prefixes import Prefixes
from ...zoo.load import Located, load_model
from ...zoo.spec import ModelSpec
from ..devices.placed import PlacedModel
from ..devices.rows import padded, shares

_BEFORE = "."
"""A text behind which another one is made into tokens."""
_LEAST_PLACES = 8
"""Prompts are padded to this many tokens, or twice, four times … as many: few programs serve all lengths."""


class Writer(PlacedModel):
    """A text decoder and its tokenizer."""

    def __init__(self, *, spec: ModelSpec, model: nnx.Module, mesh: Mesh | None = None, source: str = ""):
        """Put a model on the devices.

        Args:
          spec: what it is; has a tower "decoder".
          model: holds the decoder.
          mesh: None = all devices, each with all parameters.
          source: where it comes from.

        Raises:
          UserError: a model without a tokenizer, or one whose tokenizer has more tokens than the decoder.
        """
        if not spec.tokenizer:
            raise UserError(
                f"{source or 'the model'} has no tokenizer, so it cannot read a prompt; put tokenizer.json and "
                "tokenizer_config.json next to its weights"
            )
        super().__init__(spec=spec, model=model, mesh=mesh, source=source)
        self._tokenizer = tokenizer_from_meta(dict(spec.tokenizer))
        known = spec.towers["decoder"]["vocab_size"]
        if self._tokenizer.vocab_size > known:
            raise UserError(
                f"the tokenizer of {source or 'the model'} has {self._tokenizer.vocab_size} tokens and the decoder "
                f"{known}: the two do not belong together; fetch both from the same place"
            )

    def write(
        self,
        prompts: Sequence[str],
        *,
        among: Sequence[str] = (),
        batch_size: int = 8,
        seed: int = 0,
        **options: Any,
    ) -> list[list[dict[str, Any]]]:
        """Continue prompts.

        Args:
          prompts: n texts.
          among: the continuations that may be written; () = any. A blank before the first word belongs to them.
          batch_size: prompts at a time.
          seed: of sampling; prompt i draws the same whatever the batch size.
          **options: fields of `models.generate.GenerateOptions`: `method`, `max_tokens`, `beams`, `length_penalty`,
            `temperature`, `top_p`, `top_k`.

        Returns:
          For each prompt the texts after it, the best first (one, or as many as there are `beams`): `text` and `score`,
          the log-probability in nats; of a beam search divided by tokens ** length_penalty.

        Raises:
          UserError: one string instead of a list, an unknown option, a prompt that does not fit into the context.
        """
        if isinstance(prompts, str):
            raise UserError(f"write wants a list of prompts, got one; write [{prompts!r}]")
        how = section(GenerateOptions, options, name="generate")
        known = self._tokens_of(among, room=how.max_tokens) if among else {}
        ids = [self._prompt(text, room=how.max_tokens) for text in prompts]
        if not ids:
            return []
        places = _LEAST_PLACES
        while places < max(map(len, ids)):
            places *= 2
        places = min(places, self.spec.input.context_length - how.max_tokens)
        rows = {"prompt": np.full((len(ids), places), self._tokenizer.pad_id, np.int32)}
        rows |= {"mask": np.zeros((len(ids), places), bool), "number": np.arange(len(ids), dtype=np.int32)}
        for i, one in enumerate(ids):
            rows["prompt"][i, places - len(one) :], rows["mask"][i, places - len(one) :] = one, True
        made = self._written(rows, how=how, known=list(known), batch_size=batch_size, seed=seed)
        return [self._named(one, prompt=own, known=known) for one, own in zip(made, ids, strict=True)]

    def _written(
        self,
        rows: dict[str, np.ndarray],
        *,
        how: GenerateOptions,
        known: Sequence[tuple[int, ...]],
        batch_size: int,
        seed: int,
    ) -> list[Generated]:
        """Return what follows each prompt, as token ids."""
        total = len(rows["prompt"])
        size = self.global_batch(batch_size, total=total)
        function = _continuation(how, self._tokenizer.eos_id, self._tokenizer.pad_id)
        shared: dict[str, np.ndarray] = {"seed": np.asarray(seed, np.uint32)}
        if known:
            prefixes = Prefixes.of(known, eos_id=self._tokenizer.eos_id)
            shared |= {"tree_tokens": np.asarray(prefixes.tokens), "tree_children": np.asarray(prefixes.children)}
        found: list[Generated] = []
        for every, mine in shares(total, batch_size=size):
            part = {key: padded(value[mine], size=size // jax.process_count()) for key, value in rows.items()}
            made = self.apply_local(part, function=function, shared=shared)
            found += [Generated(**{k: v[i] for k, v in made.items()}) for i in range(every.stop - every.start)]
        return found

    def _named(self, one: Generated, *, prompt: list[int], known: dict[tuple[int, ...], str]) -> list[dict[str, Any]]:
        """Return the texts of one row; a beam search among few texts may have fewer than beams."""
        found = []
        for tokens, length, score in zip(one.tokens, one.lengths, one.scores, strict=True):
            if score > -1e8:
                own = tuple(tokens[:length].tolist())
                found.append({"text": known.get(own) or self._after(prompt, tokens=own), "score": float(score)})
        return found

    def _after(self, prompt: list[int], *, tokens: tuple[int, ...]) -> str:
        """Return the text of tokens behind a prompt: alone, some tokenizers drop the blank before the first word."""
        before, whole = (self._tokenizer.decode(ids) for ids in (prompt, [*prompt, *tokens]))
        return whole[len(before) :] if whole.startswith(before) else self._tokenizer.decode(tokens)

    def _prompt(self, text: str, *, room: int) -> list[int]:
        """Return the ids of a prompt, without the end token; an empty one begins with the end token, as GPT-2 does."""
        longest, length = self.spec.input.context_length, max(2, int(self._tokenizer.lengths([text])[0]))
        if length - 1 + room > longest:
            raise UserError(
                f"the prompt {text[:40]!r} has {length - 1} tokens, and with max_tokens={room} more it does not fit "
                f"into the context of {longest}; shorten it, or lower max_tokens"
            )
        ids, mask, _ = self._tokenizer.encode([text], context_length=length)
        return ids[0, mask[0]].tolist()[:-1] or [self._tokenizer.eos_id]

    def _tokens_of(self, texts: Sequence[str], *, room: int) -> dict[tuple[int, ...], str]:
        """Return the token ids of texts that may follow a prompt, each with its text."""
        if isinstance(texts, str):
            raise UserError(f"among wants a list of texts, got one; write [{texts!r}]")
        begun = len(self._ids(_BEFORE))  # a blank at the beginning is a token's own only behind other text
        found = {
            tuple(self._ids(_BEFORE + text)[begun:] if text[:1].isspace() else self._ids(text)): text for text in texts
        }
        longest = max(map(len, found))
        if longest + 1 > room:
            raise UserError(
                f"the longest of the given texts has {longest} tokens, and with the end token it does not fit into "
                f"max_tokens={room}; raise that"
            )
        return found

    def _ids(self, text: str) -> list[int]:
        """Return the tokens of a text without those around it."""
        ids, mask, _ = self._tokenizer.encode([text], context_length=max(2, int(self._tokenizer.lengths([text])[0])))
        return ids[0, mask[0]].tolist()[self._tokenizer.bos_id >= 0 : -1]


@functools.cache
def _continuation(how: GenerateOptions, eos_id: int, pad_id: int) -> Any:
    """Return the function that continues rows of prompts; one for each way to write, so that each compiles once."""

    def function(model: Any, rows: dict[str, jax.Array]) -> dict[str, jax.Array]:
        prefixes = Prefixes(rows["tree_tokens"], rows["tree_children"]) if "tree_tokens" in rows else None
        keys = numbered_keys(jax.random.key(rows["seed"]), numbers=rows["number"])
        given = {"prompt": rows["prompt"], "mask": rows["mask"], "prefixes": prefixes, "keys": keys}
        return generate(model.decoder, eos_id=eos_id, pad_id=pad_id, options=how, **given)._asdict()

    return function


def writer_of(located: Located, *, mesh: Mesh | None = None) -> Writer:
    """Build and fill the `Writer` of a language model that was located.

    Raises:
      UserError: no tokenizer, or parameters that do not fit.
    """
    return Writer(spec=located.spec, model=load_model(located), mesh=mesh, source=str(located.path))
