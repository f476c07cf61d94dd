"""Caption decoders from public language models: `config.model.heads.captioning.source`.

The head of the kind `LANGUAGE_MODEL` takes sizes, tokenizer and parameters from a language model, which stays frozen
unless the config says otherwise; `adapt` adds low-rank updates or bottlenecks to it, which are trained.
"""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from flax import nnx

from ..base.errors import UserError, unknown
from ..base.section import section
from ..data.text.tokenizer import Tokenizer, tokenizer_from_meta
from ..models.adapters import ADDED, KINDS, places
from ..models.decoder import TextDecoder
from .adapt import regex_of
from .spec import ADAPTERS, ModelSpec

if TYPE_CHECKING:
    from .load import Located

CAPTIONING, LANGUAGE_MODEL = "captioning", "language_model"
"""Name of the head, and its kind."""
FIELD = f"config.model.heads.{CAPTIONING}"
PLACE = f"heads/{CAPTIONING}/decoder/language_model"
"""Where the language model's parameters lie."""
_ADAPTS = ("lora", "dora", "adapters")


def is_language_model(head: Mapping[str, Any] | None) -> bool:
    """Tell whether a head of a spec, or of `config.model.heads`, is a language model that writes captions."""
    return bool(head) and head.get("kind") == LANGUAGE_MODEL


def caption_head(head: Mapping[str, Any], *, located: "Located", name: str) -> dict[str, Any]:
    """Return the head as a spec holds it: with the sizes, the tokenizer and the added parameters of its language model.

    Args:
      head: `config.model.heads.captioning`, without `source`.
      located: the language model.
      name: what the config calls it, for messages.

    Raises:
      UserError: no language model, a tokenizer that is missing or does not fit, or an adaptation that does not.
    """
    source = f"{FIELD}.source={name!r}"
    if "decoder" not in located.spec.towers:
        raise UserError(
            f"{source} is no language model (it has: {', '.join(located.spec.towers)}); name the weights of GPT-2, "
            "Llama, SmolLM2 or Gemma"
        )
    for field in ("decoder", "start_id", "begins", "tokenizer"):
        if field in head:
            raise UserError(f"{FIELD}.{field} is what its source says; leave it out")
    given = {key: value for key, value in located.spec.towers["decoder"].items() if key != "family"}
    decoder = {**given, "context_length": located.spec.input.context_length}
    tokenizer = _fitting_tokenizer(located.spec, vocab_size=decoder["vocab_size"], source=source)
    begins = tokenizer.bos_id >= 0
    if adapt := dict(head.get("adapt") or {}):
        decoder[ADAPTERS] = _adapters(adapt, decoder=decoder)
    made = {key: value for key, value in head.items() if key != "adapt"} | ({"adapt": adapt} if adapt else {})
    made |= {"decoder": decoder, "tokenizer": tokenizer.to_meta(), "begins": begins}
    return made | {"start_id": tokenizer.bos_id if begins else tokenizer.eos_id}


def caption_tokenizer(spec: ModelSpec) -> Tokenizer:
    """Return the tokenizer of a model's captions: the language model's, or else that of the text tower."""
    head = spec.joint_heads.get(CAPTIONING)
    if head is not None and is_language_model(head):
        return tokenizer_from_meta(dict(head["tokenizer"]))
    return tokenizer_from_meta(dict(spec.tokenizer))


def caption_params(located: "Located") -> dict[str, np.ndarray]:
    """Return the parameters of a language model by their paths in the model whose captions it writes."""
    start = "decoder/"
    return {f"{PLACE}/{path.removeprefix(start)}": value for path, value in located.params().items()
            if path.startswith(start)}  # fmt: skip


def frozen_part(spec: ModelSpec) -> str:
    """Return a regex for the beginning of the paths that are not trained, of a frozen language model; "" of others."""
    head = spec.joint_heads.get(CAPTIONING)
    if not is_language_model(head) or not (head or {}).get("frozen", True):
        return ""
    return f"{PLACE}/(?!.*(?:{ADDED.pattern}))"


def hears(spec: ModelSpec) -> bool:
    """Tell whether a model's captions are of what is heard, too.

    Raises:
      UserError: they are to be, and the model has no sound.
    """
    head = spec.joint_heads.get(CAPTIONING)
    wanted = is_language_model(head) and bool((head or {}).get("sound"))
    if wanted and not ("audio" in spec.towers and spec.input.audio_samples):
        raise UserError(f"{FIELD}.sound=True needs sound; add config.model.audio and set config.data.audio_seconds")
    return wanted


def _fitting_tokenizer(spec: ModelSpec, *, vocab_size: int, source: str) -> Tokenizer:
    if not spec.tokenizer:
        raise UserError(
            f"{source} has no tokenizer, and captions are written in the language model's own tokens; put its "
            "tokenizer.json and tokenizer_config.json next to the weights"
        )
    tokenizer = tokenizer_from_meta(dict(spec.tokenizer))
    if tokenizer.vocab_size > vocab_size:
        raise UserError(
            f"{source}: the tokenizer has {tokenizer.vocab_size} tokens and the language model {vocab_size}; they do "
            "not belong together: fetch both from the same place"
        )
    if tokenizer.eos_id < 0:
        raise UserError(
            f"{source}: its tokenizer puts no end token after a text, so a caption would not end; name eos_token in "
            "tokenizer_config.json"
        )
    return tokenizer


def _adapters(adapt: Mapping[str, Any], *, decoder: Mapping[str, Any]) -> dict[str, Any]:
    """Return the added parameters as a spec holds them, from `config.model.heads.captioning.adapt`."""
    model, found = nnx.eval_shape(lambda: TextDecoder(**decoder, rngs=nnx.Rngs(0))), {}
    for name, fields in adapt.items():
        if name not in _ADAPTS:
            raise unknown(f"kind in {FIELD}.adapt:", name, _ADAPTS)
        given, known = dict(fields), places(model, kind=name)
        regex = regex_of(given.pop("layers", KINDS[name].everywhere), field=f"{FIELD}.adapt.{name}.layers")
        chosen = [path for path in known if regex.search(path)]
        if not chosen:
            listed = "\n  ".join(known) or "(none)"
            raise UserError(
                f"{FIELD}.adapt.{name}.layers={regex.pattern!r} is found in no path of the {KINDS[name].places} of the "
                f"language model. They are:\n  {listed}"
            )
        made = section(KINDS[name].options, given, name=f"model.heads.{CAPTIONING}.adapt.{name}", layers=tuple(chosen))
        found[name] = dataclasses.asdict(made) | {"layers": chosen}
    return found
