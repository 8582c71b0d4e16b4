"""From what a user says about the device to the device that is there."""

from __future__ import annotations

import warnings

import torch


def resolve_device(device: str | torch.device) -> torch.device:
    """The device to train on.

    Args:
        device: `'auto'` (the fastest there is), `'cuda'`, `'cuda:1'`, `'mps'`, `'cpu'` or a `torch.device`.

    Returns:
        The device asked for; the CPU, with one warning, where that device is absent.

    Raises:
        ValueError: the name is no device's.

    Example:
        >>> resolve_device("cpu")
        device(type='cpu')
    """
    if device == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        wanted = torch.device(device)
    except RuntimeError:
        raise ValueError(f"device {device!r} is unknown: expected 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'") from None
    if not _is_present(wanted):
        warnings.warn(f"device '{wanted}' is not available on this machine; training on the CPU", stacklevel=3)
        return torch.device("cpu")
    return wanted


def _is_present(device: torch.device) -> bool:
    if device.type == "cpu":
        return True
    backend = getattr(torch, device.type, None)
    if backend is None or not hasattr(backend, "is_available") or not backend.is_available():
        return False
    return device.index is None or device.index < backend.device_count()
