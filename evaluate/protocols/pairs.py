"""The pairs of modalities between which retrieval is measured: names on the command line, and what they need."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...base.errors import UserError, unknown
from ...zoo.pairs import PAIRS, sides_of
from ...zoo.spec import MODALITIES

if TYPE_CHECKING:
    from ...zoo.spec import ModelSpec

ALL = "all"
RULE = (
    "all pairs are measured on the same clips; where one of them has sound, these are the clips with sound, and the "
    "others are left out"
)


def check_pairs(names: Collection[str]) -> None:
    """Raise UserError for a pair that no model has; a pair is written "audio_text" or, either way round, "text:audio".

    >>> check_pairs(["all", "audio_text", "text:audio", "text:video+audio"])
    """
    for name in names:
        if name == ALL or name in PAIRS:
            continue
        sides = [set(side.split("+")) for side in re.split("[:_]", name)]
        modalities = [modality for side in sides for modality in side]
        if len(sides) != 2 or len(set(modalities)) < len(modalities):
            raise unknown("pair in --pairs", name, [*PAIRS, "video+audio_text", ALL])
        for modality in modalities:
            if modality not in MODALITIES:
                raise unknown(f"modality in --pairs {name}:", modality, MODALITIES)


def pairs_of(spec: "ModelSpec") -> tuple[str, ...]:
    """Return the names of all pairs of sides that a model has."""
    found = [name for name, sides in PAIRS.items() if all(side in spec.towers for side in sides)]
    if fused := spec.fused_side:
        others = [side for side in MODALITIES if side in spec.towers and side not in fused.split("+")]
        found += [f"{fused}_{side}" for side in others]
    return tuple(found)


def choose_pairs(
    names: Collection[str], *, spec: "ModelSpec", with_sound: int
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Choose the pairs to measure.

    Args:
      names: as given, see `check_pairs`; "all" stands for those that the model and the clips have.
      spec: of the model.
      with_sound: clips of the split that have sound.

    Returns:
      Their names as in `config.loss.pairs`, and with "all" those that cannot be measured, with the reason.

    Raises:
      UserError: a pair that was named is unknown, or the model or the clips do not have it.
    """
    check_pairs(names)
    if not names:
        return (), {}
    known = {_key(name): name for name in pairs_of(spec)}
    wanted = {_key(name): name for name in names if name != ALL}
    for key, name in wanted.items():
        if key not in known:
            raise UserError(f"--pairs {name}: this model has no such pair; it has: {', '.join(known.values())}")
    chosen, unfit = [], {}
    for key, name in known.items():
        if key not in wanted and ALL not in names:
            continue
        lacking = with_sound < 2 and any("audio" in side for side in key)
        if lacking and key in wanted:
            raise UserError(
                f"--pairs {wanted[key]} needs two clips with sound, and the split has {with_sound}; leave it out"
            )
        if lacking:
            unfit[name] = f"it needs two clips with sound, and the split has {with_sound}"
        else:
            chosen.append(name)
    return tuple(chosen), unfit


def _key(name: str) -> frozenset[frozenset[str]]:
    return frozenset(frozenset(side.split("+")) for side in re.split("[:_]", name))


def same_pair(one: str, other: str) -> bool:
    """Return whether two names are of one pair.

    >>> same_pair("audio_text", "text:audio")
    True
    """
    return _key(one) == _key(other)


def sides_to_embed(pairs: Sequence[str], *, clip_side: str) -> tuple[str, ...]:
    """Return the sides of pairs that retrieval between texts and clips does not embed already.

    >>> sides_to_embed(["video_text", "audio_text"], clip_side="video+audio")
    ('video', 'audio')
    """
    sides = dict.fromkeys(side for pair in pairs for side in sides_of(pair))
    return tuple(side for side in sides if side not in ("text", clip_side))


def about_pairs(pairs: Sequence[str], *, unfit: Mapping[str, str]) -> dict[str, Any]:
    """Return what the report's block says before anything is measured."""
    return {"pairs": list(pairs), "rule": RULE, "not_applicable": dict(unfit)}
