"""The table of fusions by name."""

from .cross import CrossFusion, HierarchicalFusion, MixedFusion, MutualFusion
from .early import BottleneckFusion, EarlyFusion
from .experts import ExpertsFusion
from .gated import GatedFusion
from .graph import GraphFusion
from .interface import Fusion
from .memory import MemoryFusion
from .vectors import AddFusion, AttentionFusion, ConcatFusion, LateFusion

FUSIONS: dict[str, type[Fusion]] = {
    "late": LateFusion,
    "concat": ConcatFusion,
    "add": AddFusion,
    "attention": AttentionFusion,
    "graph": GraphFusion,
    "memory": MemoryFusion,
    "poe": ExpertsFusion,
    "early": EarlyFusion,
    "bottleneck": BottleneckFusion,
    "cross": CrossFusion,
    "mutual": MutualFusion,
    "mixed": MixedFusion,
    "hierarchical": HierarchicalFusion,
    "gated": GatedFusion,
}
"""Name in `config.model.fusion.kind` -> class."""
