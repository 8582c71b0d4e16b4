"""Resolve the name of a device to one that is available."""

from __future__ import annotations

import warnings

import torch


def resolve_device(device: str | torch.device) -> torch.device:
    """Return the device to train on.

    Args:
        device: `'auto'` (an accelerator if there is one), `'cuda'`, `'cuda:1'`, `'mps'`, `'cpu'` or a `torch.device`.

    Returns:
        The requested device, or the CPU, with one warning, if that device is absent.

    Raises:
        ValueError: the name is not the name of a device.

    Example:
        >>> resolve_device("cpu")
        device(type='cpu')
    """
    if device == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    wanted = parse_device(device)
    if not _is_present(wanted):
        warnings.warn(f"device '{wanted}' is not available on this machine; training on the CPU", stacklevel=3)
        return torch.device("cpu")
    return wanted


def parse_device(device: str | torch.device) -> torch.device:
    """Return a device by name, whether it is available or not.

    Raises:
        ValueError: the name is not the name of a device.

    Example:
        >>> parse_device("gpu")
        Traceback (most recent call last):
        ValueError: unknown device 'gpu'; expected 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'
    """
    try:
        return torch.device(device)
    except RuntimeError:
        raise ValueError(f"unknown device {device!r}; expected 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'") from None


def _is_present(device: torch.device) -> bool:
    if device.type == "cpu":
        return True
    backend = getattr(torch, device.type, None)
    if backend is None or not hasattr(backend, "is_available") or not backend.is_available():
        return False
    return device.index is None or device.index < backend.device_count()
