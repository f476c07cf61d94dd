"""The terms of the pretraining loss by name, and the checks of a config's."""

from collections.abc import Mapping

from ...base.errors import UserError, unknown
from ...base.section import section
from ...zoo.spec import ModelSpec
from ..loss_options import ALONE, LossOptions
from .captioning import CaptioningOptions, captioning
from .distillation import NAME as DISTILLATION
from .distillation import DistillationOptions, check_distillation, distillation
from .interface import Term, TermOptions
from .masked_frames import MaskedFramesOptions, check_masked_frames, masked_frames
from .masked_language import MaskedLanguageOptions, check_masked_language, masked_language
from .matching import MatchingOptions, matching
from .text_pooling import TextPoolingOptions, text_pooling

TERMS: dict[str, Term] = {
    "text_pooling": Term(options=TextPoolingOptions, loss=text_pooling, head="text_pooling"),
    "matching": Term(options=MatchingOptions, loss=matching, head="matching"),
    "captioning": Term(options=CaptioningOptions, loss=captioning, head="captioning"),
    "masked_language": Term(
        options=MaskedLanguageOptions, loss=masked_language, head="masked_language", check=check_masked_language
    ),
    "masked_frames": Term(
        options=MaskedFramesOptions, loss=masked_frames, head="masked_frames", check=check_masked_frames
    ),
    DISTILLATION: Term(
        options=DistillationOptions, loss=distillation, head=DISTILLATION, check=check_distillation, optional=True
    ),
}
"""Name in `config.loss.terms` -> its options, its loss, and the head that it trains."""

PAIR = "video_text"
"""The pair of `config.loss.pairs` whose rows terms see."""


def term_options(loss: LossOptions, *, spec: ModelSpec) -> dict[str, TermOptions]:
    """Return the options of the terms whose weight is above 0, by name.

    Args:
      loss: `config.loss`.
      spec: of the model.

    Raises:
      UserError: an unknown term or field; a term without its head, or a head without a term; or a loss, a form or a
        fusion that terms do not go with.
    """
    found: dict[str, TermOptions] = {}
    for name, fields in loss.terms.items():
        if name not in TERMS:
            raise unknown("term in config.loss.terms", name, TERMS)
        if not isinstance(fields, Mapping):
            raise UserError(f"config.loss.terms.{name} must be a section such as {{'weight': 1.0}}, got {fields!r}")
        options = section(TERMS[name].options, fields, name=f"loss.terms.{name}")
        found |= {name: options} if options.weight else {}
    heads = {TERMS[name].head: name for name in found}
    for head, name in heads.items():
        if head not in spec.joint_heads and not TERMS[name].optional:
            raise UserError(
                f"config.loss.terms.{name} trains a head that the model lacks; add config.model.heads={{{head!r}: "
                "{'kind': ...}}, or leave the term out"
            )
    for head in spec.joint_heads:
        if head not in heads:
            raise UserError(
                f"config.model.heads.{head} has no term in config.loss.terms, so it would not learn; add "
                f"config.loss.terms={{{head!r}: {{'weight': 1.0}}}}, or leave the head out"
            )
    if found:
        _check(loss, names=list(found), spec=spec)
    for name, options in found.items():
        TERMS[name].check(options, spec)
    return found


def _check(loss: LossOptions, *, names: list[str], spec: ModelSpec) -> None:
    """Raise UserError for a loss or a model that terms do not go with."""
    if loss.name != "infonce" or loss.form != "dense":
        raise UserError(
            f"config.loss.terms={names} need all scores of the batch: set config.loss.name='infonce' and "
            f"config.loss.form='dense' (got {loss.name!r} and {loss.form!r})"
        )
    if not loss.weights():
        paired = [name for name in names if name not in ALONE]
        if paired:
            raise UserError(
                f"config.loss.terms={paired} cannot be the whole loss, which only {' and '.join(ALONE)} can; add a "
                f"pair: config.loss.pairs={{{PAIR!r}: 1.0}}"
            )
    elif PAIR not in loss.weights():
        raise UserError(
            f"config.loss.terms={names} need the pair {PAIR!r}, which config.loss.pairs={loss.weights()} lacks; add it "
            f"with a weight above 0"
        )
    if spec.fusion:
        raise UserError(
            f"config.loss.terms={names} see the video tower alone and do not go with config.model.fusion; leave one "
            "of them out"
        )
