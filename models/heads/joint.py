"""The heads of a dual tower that see a text and a clip together, by name.

A dual tower scores a pair by the cosine of two vectors that do not know of each other. These heads see both sides of a
pair, so their scores cannot be looked up in an index: they are terms of the loss, and re-rank what the cosines find.
One of them writes texts.
"""

from .captioning import CaptionDecoder
from .matching import CrossEncoder
from .text_pooling import XPool

JointHead = XPool | CrossEncoder | CaptionDecoder
"""The interface: `sees_words`, and `head(texts, clips=clips, keys=keys)` scores pair p of text p and clip p; a decoder
gives the logits of text p's tokens."""

JOINT_HEADS: dict[str, dict[str, type[JointHead]]] = {
    "text_pooling": {"x_pool": XPool},
    "matching": {"cross_encoder": CrossEncoder},
    "captioning": {"decoder": CaptionDecoder},
}
"""Name in `config.model.heads`, and of its term in `config.loss.terms` -> kind -> class."""
