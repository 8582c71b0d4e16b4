"""Mixing of signals and their labels: CutMix and mixup.

Signals are floats `[B, C, T]` or another shape described in `whirl.augment.signals`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from whirl.augment.base import Augmentation
from whirl.augment.label_mixing import (
    as_distributions,
    beta_weights,
    draw_partners,
    mix_labels,
    mix_metadata,
)
from whirl.augment.signal_inputs import Labels, as_label_batch, as_signal_batch
from whirl.augment.span_operations import replace_spans
from whirl.dsp.masks import draw_starts
from whirl.engine.batch import Batch
from whirl.validation import check_number


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
    """Replace a span of the first signal by that of the second, and weight the labels by length.

    `round((1 - w) T)` of T samples are taken from the second signal, at the same position, with w drawn from
    Beta(alpha, alpha). One-dimensional version of CutMix, Yun et al. 2019, ICCV. Short-time spectra are preserved,
    except for two discontinuities in the waveform. A fault whose impacts are less frequent than the span is long may
    be removed.

    Args:
        signal1: float `[B, C, T]`.
        signal2: float, of the same shape.
        label1: class indices `[B]` or class weights `[B, K]`; a single index for a single signal.
        label2: the same for the second signals.
        alpha: parameter of the Beta distribution, > 0; 1 is the uniform distribution.
        num_classes: number of classes K, if the labels are indices. None means the largest index plus 1.
        generator: random generator on the device of the signals. None means torch's global generator.

    Returns:
        Mixed signals of the shape of `signal1`, and class weights float32 `[B, K]`: the fraction of samples that is
        kept for the first label, and the rest for the second.

    Raises:
        TypeError: the signals are not floating-point tensors, or the labels have an invalid dtype.
        ValueError: the shapes do not match, a label is outside 0..K-1, or `alpha` is not positive.

    Example:
        >>> mixed, weights = cutmix(torch.zeros(1, 1, 4), torch.ones(1, 1, 4), 0, 1)
        >>> bool(mixed.mean() == weights[0, 1])
        True
    """
    if isinstance(signal1, Tensor) and isinstance(signal2, Tensor) and signal1.shape != signal2.shape:
        raise ValueError(f"signals have shapes {list(signal1.shape)} and {list(signal2.shape)}, expected equal shapes")
    first, second = as_signal_batch(signal1), as_signal_batch(signal2)
    labels1, labels2 = as_label_batch(label1, first), as_label_batch(label2, first)
    partners = torch.arange(len(first), device=first.device)
    mixed, kept = _cut_and_paste(first, second, partners, _draw_widths(first, alpha, generator), generator)
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
    """Apply `cutmix` between the samples of a batch; partners are a random number of places apart.

    Args:
        signals: float `[B, C, T]`.
        labels: class indices `[B]` or class weights `[B, K]`.
        alpha: parameter of the Beta distribution, > 0.
        prob: probability that a sample is mixed, in [0, 1].
        num_classes: number of classes K, if the labels are indices. None means the largest index plus 1.
        generator: random generator on the device of the signals. None means torch's global generator.

    Returns:
        Mixed signals of the shape of `signals`, and class weights float32 `[B, K]`.

    Raises:
        TypeError: see `cutmix`.
        ValueError: see `cutmix`, or `prob` is outside [0, 1].

    Example:
        >>> signals, labels = torch.randn(4, 1, 16), torch.tensor([0, 1, 2, 0])
        >>> mixed, weights = cutmix_batch(signals, labels, prob=1.0, num_classes=3)
        >>> mixed.shape, weights.shape
        (torch.Size([4, 1, 16]), torch.Size([4, 3]))
    """
    mixed = cutmix_samples(Batch(signals, labels, {}), alpha, prob, num_classes=num_classes, generator=generator)
    return mixed.signals, mixed.targets


def cutmix_samples(
    batch: Batch,
    alpha: float = 1.0,
    prob: float = 0.5,
    *,
    num_classes: int | None = None,
    generator: torch.Generator | None = None,
) -> Batch:
    """Apply `cutmix_batch` to a batch with metadata, see `mix_metadata`; arguments and errors as for `cutmix_batch`.

    Example:
        >>> batch = Batch(torch.randn(2, 1, 16), torch.tensor([0, 1]), {"rpm": torch.tensor([1500.0, 3000.0])})
        >>> cutmix_samples(batch, prob=1.0).metadata
        {'rpm': tensor([nan, nan])}
    """
    prob = check_number("prob", prob, 0, 1)
    signals = as_signal_batch(batch.signals)
    distributions = as_distributions(as_label_batch(batch.targets, signals), num_classes)
    partners = draw_partners(len(signals), generator=generator, device=signals.device)
    widths = _draw_widths(signals, alpha, generator)
    if prob < 1:
        widths = widths * (torch.rand(len(signals), generator=generator, device=signals.device) < prob)
    mixed, kept = _cut_and_paste(signals, signals, partners, widths, generator)
    targets = mix_labels(distributions, distributions.index_select(0, partners), kept)
    return Batch(mixed.view(batch.signals.shape), targets, mix_metadata(batch.metadata, partners, kept))


class MixupAugmentation(Augmentation):
    """Weighted sums of pairs of samples and of their labels (mixup; Zhang et al. 2018, ICLR).

    Each sample becomes `w x_i + (1 - w) x_j`, with w drawn from Beta(alpha, alpha) per sample. The partner j is a
    random number of places before i in the batch, the same number for all samples. The sum of two machines is not a
    realistic machine: it contains the scaled lines of both spectra.

    Args:
        alpha: parameter of the Beta distribution, > 0; small values leave one of the two samples almost unchanged.
        num_classes: number of classes K, if the labels are indices. None means the largest index plus 1.

    Raises:
        ValueError: `alpha` is not positive.

    Example:
        >>> mixup = MixupAugmentation(0.2, num_classes=3)
        >>> signals, weights = mixup(torch.randn(4, 1, 16), torch.tensor([0, 1, 2, 0]))
        >>> weights.shape, weights.sum(1)
        (torch.Size([4, 3]), tensor([1., 1., 1., 1.]))
    """

    def __init__(self, alpha: float = 1.0, *, num_classes: int | None = None) -> None:
        alpha = check_number("alpha", alpha, 0, open_ends=True)
        self.alpha, self.num_classes = alpha, num_classes

    def augment(self, batch: Batch, generator: torch.Generator | None = None) -> Batch:
        signals = as_signal_batch(batch.signals)
        distributions = as_distributions(as_label_batch(batch.targets, signals), self.num_classes)
        partners = draw_partners(len(signals), generator=generator, device=signals.device)
        # The labels use the weight as rounded to the precision of the signals.
        weights = beta_weights(len(signals), self.alpha, generator=generator, device=signals.device).to(signals.dtype)
        mixed = signals.index_select(0, partners).lerp_(signals, weights[:, None, None])
        targets = distributions.index_select(0, partners).lerp_(distributions, weights[:, None].to(distributions.dtype))
        metadata = mix_metadata(batch.metadata, partners, weights)
        return Batch(mixed.view(batch.signals.shape), targets, metadata)

    def __repr__(self) -> str:
        return f"MixupAugmentation({self.alpha})"


def _draw_widths(batch: Tensor, alpha: float, generator: torch.Generator | None) -> Tensor:
    kept = beta_weights(len(batch), alpha, generator=generator, device=batch.device)
    return ((1 - kept) * batch.shape[-1]).round().long()


def _cut_and_paste(
    first: Tensor, second: Tensor, partners: Tensor, widths: Tensor, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Return the first signals with spans of their partners in the second, and the kept fractions, float32 `[B]`."""
    length = first.shape[-1]
    starts = draw_starts(widths, length, generator=generator)
    mixed = replace_spans(first, starts[:, None], widths[:, None], (second, partners))
    return mixed, (length - widths) / length
