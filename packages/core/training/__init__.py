"""The reference's import paths. The code lives in `whirl`; each module here is an alias of one there."""

from typing import Any

import lazy_loader

# Two modules document a name each, with different signatures.
_AMBIGUOUS = {
    "Callback": ("callbacks", "cnn_callbacks"),
    "FocalLoss": ("losses", "cnn_losses"),
    "LabelSmoothingCrossEntropy": ("losses", "cnn_losses"),
    "create_optimizer": ("cnn_optimizer", "optimizers"),
    "get_scheduler": ("cnn_schedulers", "transformer_schedulers"),
}

_get, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    if name in _AMBIGUOUS:
        first, second = (f"{__name__}.{module}" for module in _AMBIGUOUS[name])
        raise ImportError(f"{name} is defined in both {first} and {second}; import it from one of them")
    return _get(name)
