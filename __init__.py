"""twinreel: contrastive video-text pretraining in JAX/Flax.

Importing this package loads neither jax nor tensorflow; the public names below are imported on first use.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "load": "twinreel.encode.predict.load",
    "Encoder": "twinreel.encode.embed.encoder",
    "Predictor": "twinreel.encode.predict.predictor",
    "load_config": "twinreel.base.config",
}

_MODULES = {"mteb": "twinreel.evaluate.mteb"}  # not in __all__: it needs an extra

__all__ = ["Encoder", "Predictor", "__version__", "load", "load_config"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    raise AttributeError(f"module 'twinreel' has no attribute {name!r}; public names: {', '.join(__dir__())}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_MODULES])
