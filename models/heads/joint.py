"""The heads of a dual tower that are terms of the pretraining loss, by name.

A dual tower scores a pair by the cosine of two vectors that do not know of each other. Two of these heads score a text
together with a clip, so their scores cannot be looked up in an index: they re-rank what the cosines find. One writes
texts. The others only train the towers.
"""

from .captioning import CaptionDecoder
from .distillation import TeacherProjection, TokenProjections
from .language_model import LanguageModelDecoder
from .masked_frames import MaskedFramesDecoder
from .masked_language import MaskedLanguageHead
from .matching import CrossEncoder
from .text_pooling import XPool

Captions = CaptionDecoder | LanguageModelDecoder
"""A head that writes captions: it has `start_id`, `decoder` and `context(clips)`."""

JointHead = (
    XPool | CrossEncoder | Captions | MaskedLanguageHead | MaskedFramesDecoder | TeacherProjection | TokenProjections
)
"""A head. Those that score have `sees_words`, and `head(texts, clips=clips, keys=keys)` scores pair p of text p and
clip p."""

JOINT_HEADS: dict[str, dict[str, type[JointHead]]] = {
    "text_pooling": {"x_pool": XPool},
    "matching": {"cross_encoder": CrossEncoder},
    "captioning": {"decoder": CaptionDecoder, "language_model": LanguageModelDecoder},
    "masked_language": {"cross_encoder": MaskedLanguageHead},
    "masked_frames": {"decoder": MaskedFramesDecoder},
    "distillation": {"linear": TeacherProjection, "tokens": TokenProjections},
}
"""Name in `config.model.heads`, and of its term in `config.loss.terms` -> kind -> class."""
