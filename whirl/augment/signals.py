"""Augmentation of raw signals: operations on batches of tensors, with independent random draws for every sample.

Signals are floats `[B, C, T]` with T >= 1. All channels of a sample share its draws, since the sensors of a machine
share a time axis. `[B, T]` has no channel axis (a single sample of several channels is `[1, C, T]`), `[T]` is a single
signal, and further axes before the last one are channels. Inputs are never modified, gradients are propagated, and
dtype and device are preserved. A generator must be on the device of the signals; equal states give equal outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whirl._precision import at_least_float32
from whirl.augment.signal_inputs import Labels, as_label_batch, as_signal_batch, check_signal
from whirl.augment.span_operations import replace_spans, roll_rows
from whirl.dsp.masks import draw_spans
from whirl.engine.modes import eval_mode
from whirl.validation import check_count, check_number


def adversarial_augmentation(
    model: nn.Module,
    signal: Tensor,
    label: Labels,
    epsilon: float = 0.01,
    criterion: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Tensor:
    """Perturb every sample in the direction that increases the loss: `x + epsilon sign(d loss / d x)`.

    This is the fast gradient sign method, Goodfellow et al. 2015, ICLR. The model is evaluated in evaluation mode, and
    its modes, gradients and buffers are preserved. The perturbation is broadband and correlated with the signal, unlike
    the noise of machines.

    Args:
        model: network that maps `[B, C, T]` to logits `[B, K]`.
        signal: float `[B, C, T]`, or another input of the model.
        label: class indices `[B]` or class weights `[B, K]`.
        epsilon: maximum change in the unit of the signal, >= 0.
        criterion: loss of logits and labels, with any reduction. None means cross entropy.

    Returns:
        Tensor of the shape of `signal`, within `epsilon` of it.

    Raises:
        TypeError: the signal is not a floating-point tensor.
        ValueError: `epsilon` is negative, or the number of labels is not that of the signals.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
        >>> model[1].weight = nn.Parameter(torch.eye(2, 4))
        >>> adversarial_augmentation(model, torch.zeros(1, 1, 4), torch.tensor([0]), epsilon=0.5)
        tensor([[[-0.5000,  0.5000,  0.0000,  0.0000]]])
    """
    epsilon = check_number("epsilon", epsilon, 0)
    check_signal(signal)
    gradient = _input_gradient(model, signal, as_label_batch(label, signal), criterion or _cross_entropy)
    return signal + epsilon * gradient.sign()


def _input_gradient(
    model: nn.Module, signal: Tensor, labels: Tensor, criterion: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Return the gradient of the loss with respect to the input, scaled to the range of float16."""
    scale = min(256.0 * len(signal), 2.0**15)
    with eval_mode(model), torch.inference_mode(False), torch.enable_grad():
        labels = labels.clone()  # autograd cannot save tensors that were created in inference mode
        leaf = signal.detach().clone().requires_grad_()
        loss = criterion(model(leaf.clone()), labels)  # cloned, since the first layer may operate in place
        return torch.autograd.grad(at_least_float32(loss).sum() * scale, leaf)[0]


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    logits = at_least_float32(logits)
    return F.cross_entropy(logits, labels.to(logits.dtype) if labels.is_floating_point() else labels.long())


def time_masking(
    signal: Tensor, mask_param: int = 1000, num_masks: int = 1, *, generator: torch.Generator | None = None
) -> Tensor:
    """Set random spans of the signal to zero.

    The width of each span is uniform in 0..`mask_param`, limited to a quarter of the signal, and its position is
    uniform. The waveform outside the spans is preserved. It is discontinuous at their edges, and impacts that are less
    frequent than a span is long may be hidden.

    Args:
        signal: float `[B, C, T]`.
        mask_param: maximum width of a span in samples, >= 0; limited to T // 4.
        num_masks: number of spans per sample, >= 0; they may overlap.
        generator: random generator on the device of the signals. None means torch's global generator.

    Returns:
        Tensor of the shape of `signal`.

    Raises:
        TypeError: the signal is not a floating-point tensor.
        ValueError: `mask_param` or `num_masks` is not an integer >= 0.

    Example:
        >>> masked = time_masking(torch.ones(8, 1, 64), mask_param=100)
        >>> bool((masked == 0).sum(-1).max() <= 16)
        True
    """
    mask_param = check_count("mask_param", mask_param, 0)
    num_masks = check_count("num_masks", num_masks, 0)
    batch = as_signal_batch(signal)
    n, _, length = batch.shape
    max_width = min(mask_param, length // 4)
    starts, widths = draw_spans(n, length, max_width, num_masks, generator=generator, device=batch.device)
    return replace_spans(batch, starts, widths).view(signal.shape)


def gaussian_noise_augmentation(
    signal: Tensor, noise_std: float = 0.01, *, generator: torch.Generator | None = None
) -> Tensor:
    """Add white Gaussian noise.

    The noise is independent in every channel, like that of sensors and amplifiers. It raises the noise floor at all
    frequencies, which first masks weak lines and the high-frequency evidence of incipient faults.

    Args:
        signal: float `[B, C, T]`.
        noise_std: standard deviation in the unit of the signal, >= 0.
        generator: random generator on the device of the signals. None means torch's global generator.

    Returns:
        Tensor of the shape of `signal`.

    Raises:
        TypeError: the signal is not a floating-point tensor.
        ValueError: `noise_std` is negative or not finite.

    Example:
        >>> noisy = gaussian_noise_augmentation(torch.zeros(4, 1, 4096), noise_std=2.0)
        >>> bool(1.9 < noisy.std() < 2.1)
        True
    """
    noise_std = check_number("noise_std", noise_std, 0)
    check_signal(signal)
    noise = torch.randn(signal.shape, generator=generator, dtype=signal.dtype, device=signal.device)
    return torch.add(signal, noise, alpha=noise_std)


def amplitude_scaling(
    signal: Tensor, scale_range: tuple[float, float] = (0.8, 1.2), *, generator: torch.Generator | None = None
) -> Tensor:
    """Multiply each sample by a random factor, drawn uniformly.

    Everything but the level is preserved. The level is evidence itself if the severity of a fault shows in the
    amplitude.

    Args:
        signal: float `[B, C, T]`.
        scale_range: lowest and highest factor.
        generator: random generator on the device of the signals. None means torch's global generator.

    Returns:
        Tensor of the shape of `signal`.

    Raises:
        TypeError: the signal is not a floating-point tensor.
        ValueError: the range is reversed or not finite.

    Example:
        >>> scaled = amplitude_scaling(torch.ones(8, 2, 16), (0.5, 2.0))
        >>> bool((scaled == scaled[:, :1, :1]).all()), bool(scaled.min() >= 0.5)
        (True, True)
    """
    low, high = map(float, scale_range)
    if not -math.inf < low <= high < math.inf:
        raise ValueError(f"scale_range is {scale_range!r}, expected two finite numbers, the lower first")
    check_signal(signal)
    shape = (len(signal), *(1,) * (signal.ndim - 1)) if signal.ndim > 1 else ()
    return signal * signal.new_empty(shape).uniform_(low, high, generator=generator)


def time_shift(signal: Tensor, shift_max: int = 1000, *, generator: torch.Generator | None = None) -> Tensor:
    """Shift each sample circularly by a number of samples drawn uniformly from -`shift_max`..`shift_max`.

    The amplitude spectrum is preserved exactly. The discontinuity between the end and the start of the signal moves
    into its interior.

    Args:
        signal: float `[B, C, T]`.
        shift_max: maximum shift in samples, >= 0; it may exceed T, as shifts are taken modulo T.
        generator: random generator on the device of the signals. None means torch's global generator.

    Returns:
        Tensor of the shape of `signal`.

    Raises:
        TypeError: the signal is not a floating-point tensor.
        ValueError: `shift_max` is not an integer >= 0.

    Example:
        >>> shifted = time_shift(torch.arange(4.0), shift_max=2)
        >>> shifted.sort().values
        tensor([0., 1., 2., 3.])
    """
    shift_max = check_count("shift_max", shift_max, 0)
    batch = as_signal_batch(signal)
    steps = torch.randint(-shift_max, shift_max + 1, (len(batch), 1), generator=generator, device=batch.device)
    return roll_rows(batch, steps % batch.shape[-1]).view(signal.shape)
