"""What a model uses: recalls under each control, and how far they lie below the plain ones."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..embedding.embeddings import Embeddings
from ..measures.ranks import RECALL_AT, Ranks, hits, summary
from ..measures.rows import unit_rows
from .comparison import recall_differences
from .controls import CONTROLS, about_controls
from .directions import DIRECTIONS, all_ranks

BLOCK = "controls"
DROP = "drop"
INTERVALS = "drop: plain less control, in percentage points; 95 %, paired bootstrap over clips with 1,000 samples"


def control_rows(
    embeddings: Embeddings, *, ranks: Mapping[str, Ranks] | None = None, intervals: bool = True
) -> dict[str, Any]:
    """Measure retrieval under each control; clips and texts are the same, so each query is compared with itself.

    Args:
      embeddings: with `controls`.
      ranks: `directions.all_ranks` of the plain embeddings; None: they are counted here.
      intervals: add bootstrap intervals of the drops; there are none of a single clip.

    Returns:
      `protocol` (the rules, the seed, what does not apply and why) and `rows`: control -> `text_to_video` and
      `video_to_text` as in `ranks.summary`; `drop`: for both directions `R@K` -> `difference` (plain less control, in
      percentage points) with `low`, `high` and `p` as in `comparison.compare`; `changed`, the clips or texts whose
      input it changes, where known, and `n`, how many there are.

    Raises:
      UserError: a row that is zero or not finite.
    """
    index = np.asarray(embeddings.video_of_text)
    plain = ranks or all_ranks(text=embeddings.text, video=embeddings.video, video_of_text=index)
    about = embeddings.further.get(BLOCK) or about_controls(list(embeddings.controls), seed=None, unfit={})
    rows: dict[str, Any] = {}
    for name, changed in embeddings.controls.items():
        side = CONTROLS[name].side
        arrays: dict[str, Any] = {"text": embeddings.text, "video": embeddings.video} | {
            side: unit_rows(changed, name=f"control_{name}")
        }
        found = all_ranks(**arrays, video_of_text=index)
        if intervals and len(np.unique(index)) > 1:
            drop = recall_differences(plain, others=found, video_of_text=index)
        else:
            drop = {
                one: {f"R@{k}": {"difference": _difference(plain[one], found[one], k=k)} for k in RECALL_AT}
                for one in DIRECTIONS
            }
        rows[name] = {direction: summary(found[direction]) for direction in DIRECTIONS}
        rows[name] |= {DROP: drop, "changed": about.get("changed", {}).get(name), "n": len(changed)}
    protocol = {key: value for key, value in about.items() if key != "changed"}
    return {"protocol": protocol | {"intervals": INTERVALS}, "rows": rows}


def _difference(plain: Ranks, changed: Ranks, *, k: int) -> float:
    return 100 * float((hits(plain, k=k) - hits(changed, k=k)).mean())
