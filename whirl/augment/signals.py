"""Augmentation of raw signals: whole batches as tensor operations, every sample with draws of its own.

Signals are floats `[B, C, T]`, T >= 1; the channels of a sample share its draws, as sensors on one machine share its
time. `[B, T]` lacks the channel axis (so one sample of several channels is `[1, C, T]`), `[T]` is a single signal, and
further axes before the last count as channels. Nothing changes its input, gradients flow, dtype and device stay. A
generator must be of the signals' device; the same state gives the same output.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whirl.augment.base import Augmentation
from whirl.augment.label_mixing import as_distributions, beta_weights, invalidate_mixed_metadata, mix_labels
from whirl.dsp.masks import draw_spans, draw_starts, mask_of_spans, zero_spans
from whirl.engine.batch import Batch
from whirl.validation import check_count, check_floating, check_number

Labels = Tensor | int

_LONG = 8192
"""From this many samples on, a CPU joins slices of rows faster than it copies whole rows more than once."""


def cutmix(
    signal1: Tensor,
    signal2: Tensor,
    label1: Labels,
    label2: Labels,
    alpha: float = 1.0,
    *,
    num_classes: int | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Put a span of the second signal into the first; labels weigh by length.

    Of T samples `round((1 - w) T)` come from the second signal, w drawn from Beta(alpha, alpha), at the same place.
    Yun et al. 2019, ICCV, in one dimension. Keeps short-time spectra but for two steps in the waveform; a fault whose
    impacts are rarer than the span is long may be cut away.

    Args:
        signal1: float `[B, C, T]`.
        signal2: of the same shape.
        label1: class indices `[B]` or class weights `[B, K]`; a single index for a single signal.
        label2: the same for the second signals.
        alpha: > 0; 1 draws the share uniformly.
        num_classes: number of classes K where labels are indices; None takes the largest index + 1.
        generator: source of the draws.

    Returns:
        Mixed signals, as `signal1`, and class weights float32 `[B, K]`: `kept / T` for the first label, the rest for
        the second.

    Raises:
        TypeError: signals are not floating-point tensors, or labels are of a wrong type.
        ValueError: shapes do not match, a label is outside 0..K-1, or `alpha` is not positive.

    Example:
        >>> mixed, weights = cutmix(torch.zeros(1, 1, 4), torch.ones(1, 1, 4), 0, 1)
        >>> bool(mixed.mean() == weights[0, 1])
        True
    """
    if isinstance(signal1, Tensor) and isinstance(signal2, Tensor) and signal1.shape != signal2.shape:
        raise ValueError(f"signals differ in shape: {list(signal1.shape)} and {list(signal2.shape)}")
    first, second = _as_batch(signal1), _as_batch(signal2)
    labels1, labels2 = _labels_of(first, label1), _labels_of(first, label2)
    partners = torch.arange(len(first), device=first.device)
    mixed, kept = _cut_and_paste(first, second, partners, _widths(first, alpha, generator), generator)
    return mixed.view(signal1.shape), mix_labels(labels1, labels2, kept, num_classes)


def cutmix_batch(
    signals: Tensor,
    labels: Tensor,
    alpha: float = 1.0,
    prob: float = 0.5,
    *,
    num_classes: int | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """CutMix between the samples of a batch: each is mixed with probability `prob`, partners are a permutation.

    See `cutmix`.

    Args:
        signals: float `[B, C, T]`.
        labels: class indices `[B]` or class weights `[B, K]`.
        alpha: > 0.
        prob: share of the samples that are mixed, in [0, 1].
        num_classes: number of classes K where labels are indices; None takes the largest index + 1.
        generator: source of the draws.

    Returns:
        Mixed signals, as `signals`, and class weights float32 `[B, K]`.

    Raises:
        TypeError: as `cutmix`.
        ValueError: as `cutmix`, or `prob` is outside [0, 1].

    Example:
        >>> signals, labels = torch.randn(4, 1, 16), torch.tensor([0, 1, 2, 0])
        >>> mixed, weights = cutmix_batch(signals, labels, prob=1.0, num_classes=3)
        >>> mixed.shape, weights.shape
        (torch.Size([4, 1, 16]), torch.Size([4, 3]))
    """
    check_number("prob", prob, 0, 1)
    batch = _as_batch(signals)
    distributions = as_distributions(_labels_of(batch, labels), num_classes)
    partners = torch.randperm(len(batch), generator=generator, device=batch.device)
    widths = _widths(batch, alpha, generator)
    if prob < 1:
        widths = widths * (torch.rand(len(batch), generator=generator, device=batch.device) < prob)
    mixed, kept = _cut_and_paste(batch, batch, partners, widths, generator)
    return mixed.view(signals.shape), mix_labels(distributions, distributions.index_select(0, partners), kept)


class MixupAugmentation(Augmentation):
    """Weighted sums of pairs: `w x_i + (1 - w) x_j`, labels likewise, w drawn from Beta(alpha, alpha) per sample.

    Zhang et al. 2018, ICLR. Partners are a permutation of the batch. The sum of two machines is no machine: lines of
    both spectra stand in it, scaled.

    Args:
        alpha: > 0; small values keep one of the two nearly whole.
        num_classes: number of classes K where labels are indices; None takes the largest index + 1.

    Raises:
        ValueError: `alpha` is not positive.

    Example:
        >>> mixup = MixupAugmentation(0.2, num_classes=3)
        >>> signals, weights = mixup(torch.randn(4, 1, 16), torch.tensor([0, 1, 2, 0]))
        >>> weights.shape, weights.sum(1)
        (torch.Size([4, 3]), tensor([1., 1., 1., 1.]))
    """

    def __init__(self, alpha: float = 1.0, *, num_classes: int | None = None) -> None:
        check_number("alpha", alpha, 0, open_ends=True)
        self.alpha, self.num_classes = alpha, num_classes

    def augment(self, batch: Batch, generator: torch.Generator | None = None) -> Batch:
        signals = _as_batch(batch.signals)
        distributions = as_distributions(_labels_of(signals, batch.targets), self.num_classes)
        partners = torch.randperm(len(signals), generator=generator, device=signals.device)
        # Labels take the share as rounded to the signals' precision: what is really kept.
        share = beta_weights(len(signals), self.alpha, generator=generator, device=signals.device).to(signals.dtype)
        mixed = signals.index_select(0, partners).lerp_(signals, share[:, None, None])
        targets = distributions.index_select(0, partners).lerp_(distributions, share[:, None].to(distributions.dtype))
        metadata = invalidate_mixed_metadata(batch.metadata, len(signals))
        return Batch(mixed.view(batch.signals.shape), targets, metadata)

    def __repr__(self) -> str:
        return f"MixupAugmentation({self.alpha})"


def adversarial_augmentation(
    model: nn.Module,
    signal: Tensor,
    label: Labels,
    epsilon: float = 0.01,
    criterion: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Tensor:
    """Step of `epsilon` up the loss in every sample: `x + epsilon sign(d loss / d x)`, the fast gradient sign method.

    Goodfellow et al. 2015, ICLR. The model is asked in evaluation mode and left as it was: mode, gradients, buffers.
    The perturbation is broadband and correlated with the signal, unlike any noise a machine makes.

    Args:
        model: network `[B, C, T]` to logits `[B, K]`.
        signal: float `[B, C, T]`, or whatever else the model takes.
        label: class indices `[B]` or class weights `[B, K]`.
        epsilon: largest change, in the unit of the signal, >= 0.
        criterion: loss of logits and labels, of any reduction; None is the cross-entropy.

    Returns:
        As `signal`, each sample within `epsilon` of it.

    Raises:
        TypeError: the signal is not a floating-point tensor.
        ValueError: `epsilon` is negative, or signals and labels differ in number.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
        >>> model[1].weight = nn.Parameter(torch.eye(2, 4))
        >>> adversarial_augmentation(model, torch.zeros(1, 1, 4), torch.tensor([0]), epsilon=0.5)
        tensor([[[-0.5000,  0.5000,  0.0000,  0.0000]]])
    """
    check_number("epsilon", epsilon, 0)
    _require_signal(signal)
    gradient = _input_gradient(model, signal, _labels_of(signal, label), criterion or _cross_entropy)
    return signal + epsilon * gradient.sign()


def _input_gradient(
    model: nn.Module, signal: Tensor, labels: Tensor, criterion: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Gradient of the loss by the input, up to a positive factor that keeps it within the range of float16."""
    scale = min(256.0 * len(signal), 2.0**15)
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        with torch.enable_grad():
            probe = signal.detach().requires_grad_()
            loss = criterion(model(probe.clone()), labels)  # a copy, as the first layer may work in place
            return torch.autograd.grad(loss.float().sum() * scale, probe)[0]
    finally:
        for module, training in modes:
            module.training = training


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits.float(), labels.float() if labels.is_floating_point() else labels.long())


def time_masking(
    signal: Tensor, mask_param: int = 1000, num_masks: int = 1, *, generator: torch.Generator | None = None
) -> Tensor:
    """Set random spans to zero.

    The width of each is uniform among 0..`mask_param`, at most a quarter of the signal; its place is uniform. Keeps
    the waveform elsewhere; breaks it at the edges, and hides impacts rarer than the span is long.

    Args:
        signal: float `[B, C, T]`.
        mask_param: longest mask in samples, >= 0; capped at T // 4.
        num_masks: masks of each sample, >= 0; they may overlap.
        generator: source of the draws.

    Returns:
        As `signal`.

    Raises:
        TypeError: the signal is not a floating-point tensor.
        ValueError: a number is negative or not whole.

    Example:
        >>> masked = time_masking(torch.ones(8, 1, 64), mask_param=100)
        >>> bool((masked == 0).sum(-1).max() <= 16)
        True
    """
    check_count("mask_param", mask_param, 0)
    check_count("num_masks", num_masks, 0)
    batch = _as_batch(signal)
    n, _, length = batch.shape
    starts, widths = draw_spans(n, length, min(mask_param, length // 4), num_masks, generator=generator,
                                device=batch.device)  # fmt: skip
    return _replace_spans(batch, starts, widths).view(signal.shape)


def gaussian_noise_augmentation(
    signal: Tensor, noise_std: float = 0.01, *, generator: torch.Generator | None = None
) -> Tensor:
    """Add white Gaussian noise.

    Every channel gets noise of its own, as sensors and amplifiers have. Raises the floor of the spectrum evenly; weak
    lines and the high-frequency evidence of incipient faults drown first.

    Args:
        signal: float `[B, C, T]`.
        noise_std: standard deviation in the unit of the signal, >= 0.
        generator: source of the draws.

    Returns:
        As `signal`.

    Raises:
        TypeError: the signal is not a floating-point tensor.
        ValueError: `noise_std` is negative or not finite.

    Example:
        >>> noisy = gaussian_noise_augmentation(torch.zeros(4, 1, 4096), noise_std=2.0)
        >>> bool(1.9 < noisy.std() < 2.1)
        True
    """
    check_number("noise_std", noise_std, 0)
    _require_signal(signal)
    noise = torch.randn(signal.shape, generator=generator, dtype=signal.dtype, device=signal.device)
    return torch.add(signal, noise, alpha=noise_std)


def amplitude_scaling(
    signal: Tensor, scale_range: tuple[float, float] = (0.8, 1.2), *, generator: torch.Generator | None = None
) -> Tensor:
    """Multiply each sample by a factor drawn uniformly.

    Keeps everything but the level, which is evidence itself where severity shows by amplitude.

    Args:
        signal: float `[B, C, T]`.
        scale_range: lowest and highest factor.
        generator: source of the draws.

    Returns:
        As `signal`.

    Raises:
        TypeError: the signal is not a floating-point tensor.
        ValueError: the range is reversed or not finite.

    Example:
        >>> scaled = amplitude_scaling(torch.ones(8, 2, 16), (0.5, 2.0))
        >>> bool((scaled == scaled[:, :1, :1]).all()), bool(scaled.min() >= 0.5)
        (True, True)
    """
    low, high = scale_range
    if not -math.inf < low <= high < math.inf:
        raise ValueError(f"scale_range is {scale_range!r}, expected lowest and highest factor")
    _require_signal(signal)
    shape = (len(signal), *(1,) * (signal.ndim - 1)) if signal.ndim > 1 else ()
    return signal * signal.new_empty(shape).uniform_(low, high, generator=generator)


def time_shift(signal: Tensor, shift_max: int = 1000, *, generator: torch.Generator | None = None) -> Tensor:
    """Turn each sample round by a number of time steps drawn uniformly from -`shift_max`..`shift_max`.

    What leaves at one end comes in at the other. Keeps the amplitude spectrum exactly, but for the seam, which now
    lies within the signal.

    Args:
        signal: float `[B, C, T]`.
        shift_max: longest shift in samples, >= 0; whole turns count as nothing, so it may exceed T.
        generator: source of the draws.

    Returns:
        As `signal`.

    Raises:
        TypeError: the signal is not a floating-point tensor.
        ValueError: `shift_max` is negative or not whole.

    Example:
        >>> shifted = time_shift(torch.arange(4.0), shift_max=2)
        >>> shifted.sort().values
        tensor([0., 1., 2., 3.])
    """
    check_count("shift_max", shift_max, 0)
    batch = _as_batch(signal)
    steps = torch.randint(-shift_max, shift_max + 1, (len(batch), 1), generator=generator, device=batch.device)
    return _roll(batch, steps % batch.shape[-1]).view(signal.shape)


# ---- the forms: which one is fastest depends on the length (benchmarks/augmentation.py), so they are chosen here only


def _roll(batch: Tensor, starts: Tensor) -> Tensor:
    """Rows `[B * C, T]` that begin at `starts` `[B, 1]`, in 0..T-1, and go round."""
    n, n_channels, length = batch.shape
    if not batch.is_cpu:
        sources = (torch.arange(length, device=batch.device) + starts) % length
        return batch.gather(2, sources[:, None].expand_as(batch))
    if length >= _LONG or batch.requires_grad:
        sizes = torch.cat((starts, length - starts), 1)[:, None].expand(-1, n_channels, -1)
        pieces = list(batch.reshape(-1).split(sizes.flatten().tolist()))
        pieces[0::2], pieces[1::2] = pieces[1::2], pieces[0::2]
        return _join(pieces)
    windows = torch.cat((batch, batch), -1).view(-1).unfold(0, length, 1)
    rows = torch.arange(0, 2 * batch.numel(), 2 * length).view(n, n_channels).add_(starts)
    return windows.index_select(0, rows.view(-1))


def _replace_spans(
    batch: Tensor, starts: Tensor, widths: Tensor, lenders: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """Rows with spans `[B, n_spans]` set to zero, or taken from the lenders: signals and a permutation of them."""
    if batch.is_cpu and batch.shape[-1] >= _LONG:
        pieces = _cut_out(batch, starts, widths)
        pieces[1::2] = _blank(pieces[1::2]) if lenders is None else _lent(*lenders, starts, widths)
        return _join(pieces)
    if lenders is None:
        return zero_spans(batch, starts, widths)
    signals, partners = lenders
    mask = mask_of_spans(starts, widths, batch.shape[-1])[:, None]
    return torch.where(mask, signals.index_select(0, partners), batch)


def _blank(spans: list[Tensor]) -> Sequence[Tensor]:
    widths = [span.numel() for span in spans]
    return spans[0].new_zeros(sum(widths)).split(widths) if spans else []


def _lent(signals: Tensor, partners: Tensor, starts: Tensor, widths: Tensor) -> list[Tensor]:
    by_lender = torch.empty_like(partners).index_copy_(0, partners, torch.arange(len(partners)))
    spans = _cut_out(signals, starts[by_lender], widths[by_lender])[1::2]
    each = signals.shape[1] * starts.shape[1]
    return [span for lender in partners.tolist() for span in spans[lender * each : (lender + 1) * each]]


def _cut_out(batch: Tensor, starts: Tensor, widths: Tensor) -> list[Tensor]:
    """All rows one after the other, cut where spans start and end: every second piece is a span. Nothing is copied."""
    n, n_channels, length = batch.shape
    ends = starts + widths
    if starts.shape[1] > 1:
        starts, order = starts.sort(1)
        ends = ends.gather(1, order).cummax(1).values
        starts[:, 1:] = torch.maximum(starts[:, 1:], ends[:, :-1])  # what two spans share belongs to the first
    rows = torch.arange(0, batch.numel(), length).view(n, n_channels, 1)
    edges = (torch.stack((starts, ends), 2).view(n, 1, -1) + rows).flatten()
    sizes = torch.diff(edges, prepend=edges.new_zeros(1), append=edges.new_full((1,), batch.numel()))
    return list(batch.reshape(-1).split(sizes.tolist()))


def _join(pieces: list[Tensor]) -> Tensor:
    return torch.cat([piece for piece in pieces if piece.numel()])  # empty ones cost torch its fast path


# ---- what the mixing functions share


def _widths(batch: Tensor, alpha: float, generator: torch.Generator | None) -> Tensor:
    share = beta_weights(len(batch), alpha, generator=generator, device=batch.device)
    return ((1 - share) * batch.shape[-1]).round().long()


def _cut_and_paste(
    first: Tensor, second: Tensor, partners: Tensor, widths: Tensor, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """The first signals with spans of their partners among the second, and the share that is kept, float32 `[B]`."""
    length = first.shape[-1]
    starts = draw_starts(widths, length, generator=generator)
    mixed = _replace_spans(first, starts[:, None], widths[:, None], (second, partners))
    return mixed, (length - widths) / length


def _labels_of(batch: Tensor, label: Labels) -> Tensor:
    labels = torch.as_tensor(label, device=batch.device) if isinstance(label, int) else label
    labels = labels[None] if labels.ndim == 0 else labels
    if len(labels) != len(batch):
        raise ValueError(f"labels have shape {list(labels.shape)}, expected one for each of {len(batch)} signals")
    return labels


# ---- judging arguments


def _require_signal(signal: Tensor) -> None:
    check_floating("signal", signal)
    if signal.ndim == 0 or signal.numel() == 0:
        raise ValueError(f"the signal has shape {list(signal.shape)}, expected [B, C, T], each >= 1")


def _as_batch(signal: Tensor) -> Tensor:
    """The signal as `[B, C, T]`."""
    _require_signal(signal)
    if signal.ndim == 3:
        return signal
    return signal.flatten(1, -2) if signal.ndim > 3 else signal.reshape(-1, 1, signal.shape[-1])
