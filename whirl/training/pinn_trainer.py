"""The physics-informed trainer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from whirl.engine.batch import Batch, as_batch
from whirl.engine.callbacks import Callback
from whirl.engine.objective import SAMPLE_WEIGHT
from whirl.engine.replay import set_epoch
from whirl.engine.state import TrainingState
from whirl.losses.balancing import LAMBDA_SCHEDULES, create_balancer, lambda_multiplier
from whirl.losses.physics_loss_functions import PhysicalConstraintLoss
from whirl.training.trainer import History, Trainer
from whirl.validation import check_name

TERMS = ("freq_loss", "sommerfeld_loss", "temporal_loss")

RECORDING_IDS = ("recording", "record_ids")
"""Metadata that hold the index of a recording."""


class _Joined(NamedTuple):
    """A labeled and an unlabeled batch that pass through the network together."""

    labeled: Any
    unlabeled: Any


@dataclass
class PINNTrainingState(TrainingState):
    """Progress of a physics-informed training run; the additional properties are read from the history.

    Attributes:
        ramp_epochs: epochs over which the weights of the physics terms rise: those of the first `fit`, so that they do
            not fall back in a second one; 0 before it.
    """

    ramp_epochs: int = 0

    @property
    def lambda_history(self) -> list[float]:
        """Fraction of the final weights that the physics terms had in each epoch, 0 to 1."""
        return self.history.get("train_lambda", [])

    @property
    def loss_components(self) -> dict[str, list[float]]:
        """Each term of the loss by epoch: `train_freq_loss`, `val_classification_loss`, ..."""
        terms = ("classification_loss", "physics_loss", "total_loss", *TERMS)
        names = [f"{part}_{name}" for part in ("train", "val") for name in terms]
        return {name: self.history[name] for name in names if name in self.history}


class ZeroGradientError(ValueError):
    """A physics term has no gradient, so it would not change the training."""


class PINNTrainer(Trainer):
    """Train on the classification loss and on physics terms.

    loss = criterion + lambda(epoch) · (lambda_freq · L_freq + lambda_sommerfeld · L_sommerfeld + lambda_temporal ·
    L_temporal), with the terms of `whirl.losses.physics_loss_functions`. Validation always uses the final weights, so
    that its epochs can be compared. If all three weights are 0, the result is bit-identical to that of `Trainer`, and
    unlabeled windows are not read. Otherwise they pass through the network in every epoch, so its batch normalization
    sees them even while the schedule is at 0.

    Before the first step each enabled term must have a gradient with respect to the predictions on the first batch;
    otherwise training stops with an explanation.

    Args:
        model: see `Trainer`, as for all arguments not listed here. A network whose `forward` has a parameter `metadata`
            gets the metadata of the batch.
        lambda_freq: weight of the frequency term, >= 0; 0 disables it.
        lambda_sommerfeld: weight of the severity ranking, >= 0.
        lambda_temporal: weight of the temporal term, >= 0.
        adaptive_lambda: follow the schedule; False uses the final weights from the start.
        lambda_schedule: `'linear'`, `'cosine'`, `'exponential'`, `'step'` or `'constant'`: how the weights rise from 0
            to their final values over the epochs of the run.
        sample_rate: sampling rate of the signals, in Hz.
        metadata_keys: metadata that the batches must have, and the only ones used; None uses all.
        augmentation: see `Trainer`; unlabeled windows are not augmented.
        physics_loss: the terms, if they are created by the caller; its own weights are not used. None creates them for
            `classes`.
        classes: name of each class index; None is the 11 classes of journal bearings.
        unlabeled_loader: windows without labels (labels are ignored), to which the physics terms are applied too:
            batches as from `train_loader`, repeated as often as an epoch needs. A loader of `make_loader` resumes
            exactly.
        balancing: `'none'`, or `'gradnorm'`, `'softadapt'`, `'relobralo'`: factors on the terms that adapt to the
            losses, in addition to the schedule; in training only.
        allow_zero_gradient: train even if an enabled term has no gradient.
        **options: further keyword arguments of `Trainer`: `lr_scheduler`, `checkpoint_dir`, ...

    Raises:
        ValueError: a weight is negative, or the schedule or balancing is unknown.
        ZeroGradientError: from `fit` or `train_epoch`, when an enabled term has no gradient.

    Example:
        >>> from whirl.models.registry import create_model
        >>> signals, targets = torch.randn(16, 1, 2048), torch.arange(16) % 11
        >>> batch = (signals, targets, {"rpm": torch.full((16,), 3000.0)})
        >>> freq_only = {"lambda_sommerfeld": 0.0, "lambda_temporal": 0.0}
        >>> trainer = PINNTrainer(create_model("wdcnn", 11), [batch], device="cpu", sample_rate=2560, **freq_only)
        >>> history = trainer.train(2)
        >>> trainer.state.lambda_history
        [0.0, 1.0]
    """

    state: PINNTrainingState

    def __init__(
        self,
        model: nn.Module,
        train_loader: Iterable[Any],
        val_loader: Iterable[Any] | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        criterion: nn.Module | Callable[..., Tensor] | None = None,
        device: str | torch.device = "cuda",
        callbacks: list[Callback | Callable[..., Any]] | None = None,
        gradient_accumulation_steps: int = 1,
        max_grad_norm: float | None = 1.0,
        mixed_precision: bool | str = False,
        lambda_freq: float = 1.0,
        lambda_sommerfeld: float = 0.5,
        lambda_temporal: float = 0.1,
        adaptive_lambda: bool = True,
        lambda_schedule: str = "linear",
        sample_rate: int = 20480,
        metadata_keys: list[str] | None = None,
        *,
        physics_loss: PhysicalConstraintLoss | None = None,
        classes: Sequence[str] | None = None,
        unlabeled_loader: Iterable[Any] | None = None,
        balancing: str = "none",
        allow_zero_gradient: bool = False,
        **options: Any,
    ) -> None:
        check_name("lambda_schedule", lambda_schedule, LAMBDA_SCHEDULES)
        lambdas = {
            "lambda_freq": lambda_freq,
            "lambda_sommerfeld": lambda_sommerfeld,
            "lambda_temporal": lambda_temporal,
        }
        for name, weight in lambdas.items():
            if not 0 <= weight < math.inf:
                raise ValueError(f"{name} is {weight!r}, expected a number >= 0")
        super().__init__(
            model,
            train_loader,
            val_loader,
            optimizer,
            criterion,
            device,
            callbacks,
            gradient_accumulation_steps,
            max_grad_norm,
            mixed_precision,
            **options,
        )
        self.physics_loss = physics_loss or PhysicalConstraintLoss(
            lambda_freq, lambda_sommerfeld, lambda_temporal, sample_rate=sample_rate, classes=classes
        )
        self.physics_loss.to(self.device)
        self.weights = {name: weight for name, weight in zip(TERMS, lambdas.values(), strict=True) if weight > 0}
        self.schedule = lambda_schedule if adaptive_lambda else "constant"
        self.metadata_keys = metadata_keys
        self.unlabeled_loader = unlabeled_loader
        self.balancer = create_balancer(balancing)
        self.kinds["balancing"] = type(self.balancer).__name__
        self.replay.parts["balancing"] = self.balancer  # each process balances by the losses of its own batches
        self.allow_zero_gradient = allow_zero_gradient
        self._terms_checked = False

    def new_state(self) -> PINNTrainingState:
        return PINNTrainingState()

    def train(self, num_epochs: int) -> History:
        """Call `fit(num_epochs)`."""
        return self.fit(num_epochs)

    def prepare_batch(self, batch: Any) -> Batch:
        """Return the signals of labeled and then unlabeled windows, with the targets of the labeled ones."""
        if not isinstance(batch, _Joined):
            return self._select_metadata(super().prepare_batch(batch))
        labeled = self._select_metadata(super().prepare_batch(batch.labeled))
        unlabeled = self._select_metadata(as_batch(batch.unlabeled, self.device))
        signals = torch.cat([labeled.signals, unlabeled.signals])
        return Batch(signals, labeled.targets, _join(labeled.metadata, unlabeled.metadata))

    def batches(self, loader: Iterable[Any]) -> Iterable[Any]:
        if self.unlabeled_loader is None or not self.weights or loader is not self.train_loader:
            return loader
        start = getattr(getattr(loader, "sampler", None), "start_batch", 0)
        return map(_Joined, loader, islice(self._unlabeled_batches(), start, None))

    def compute_loss(
        self, outputs: Tensor, targets: Tensor, signal: Tensor, metadata: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the classification loss plus the weighted physics terms.

        Args:
            outputs: logits `[B, K]`, including those of unlabeled windows.
            targets: targets of the first windows; the others are unlabeled.
            signal: `[B, C, T]`.
            metadata: tensors `[B]` by name, e.g. `rpm` in rev/min.

        Returns:
            The loss, and detached: `total_loss`, `classification_loss`, `physics_loss` (weighted sum), `freq_loss`,
            `sommerfeld_loss`, `temporal_loss` (unweighted), `lambda` (fraction of the final weights), and the values of
            `PhysicalConstraintLoss.diagnose`.
        """
        data_loss = self._objective.loss(outputs[: len(targets)], targets, metadata.get(SAMPLE_WEIGHT))
        if not self.weights:
            return data_loss, _detached(data_loss, data_loss, data_loss.new_zeros(()), {}, 1.0)
        share = self._share()
        if self.model.training and not self._terms_checked:
            self.check_gradients_flow(outputs, signal, metadata)
        terms = self.physics_loss.terms(outputs, signal, metadata, names=tuple(self.weights))
        factors = self._factors(data_loss, terms)
        physics_loss = share * sum((factors[name] * terms[name] for name in terms), start=data_loss.new_zeros(()))
        # 0 times a term that is not finite would be NaN.
        total = data_loss + physics_loss if share > 0 else data_loss
        components = _detached(total, data_loss, physics_loss, terms, share)
        return total, components | self.physics_loss.diagnose(outputs, signal, metadata)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"physics": self.physics_loss.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.physics_loss.load_state_dict(state["physics"])
        self._terms_checked = True  # on the first batch of the run; a later batch may lack what a term needs

    def _share(self) -> float:
        """Return the fraction of the final weights for this epoch; 1 in validation."""
        if not self.model.training:
            return 1.0
        self.state.ramp_epochs = self.state.ramp_epochs or self.state.num_epochs
        return lambda_multiplier(self.schedule, self.state.epoch, self.state.ramp_epochs)

    def _factors(self, data_loss: Tensor, terms: dict[str, Tensor]) -> dict[str, Tensor | float]:
        if not self.model.training:
            return dict(self.weights)
        balanced = self.balancer(data_loss, terms, self._shared)
        return {name: self.weights[name] * balanced[name] for name in terms}

    @cached_property
    def _shared(self) -> list[nn.Parameter]:
        """Weight of the last layer, on which all terms depend."""
        return [p for p in self.model.parameters() if p.requires_grad and p.ndim > 1][-1:]

    def check_gradients_flow(self, outputs: Tensor, signal: Tensor, metadata: dict[str, Tensor]) -> None:
        """Raise before the first step if an enabled term has no gradient with respect to the predictions.

        Args:
            outputs: logits `[B, K]`; only their shape is used.
            signal: `[B, C, T]`.
            metadata: tensors `[B]` by name.

        Raises:
            ZeroGradientError: a term has no gradient, and `allow_zero_gradient` is False.
        """
        self._terms_checked = True
        if self.allow_zero_gradient:
            return
        # Random logits: the gradient of a term can be zero at uniform predictions.
        probe = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(0)).to(outputs.device)
        probe.requires_grad_()
        terms = self.physics_loss.terms(probe, signal, metadata, names=tuple(self.weights))
        failed = [name for name, term in terms.items() if not _has_gradient(term, probe)]
        if failed:
            reasons = "; ".join(
                f"{name}: {self.physics_loss.explain_zero_gradient(name, signal, metadata)}" for name in failed
            )
            raise ZeroGradientError(
                f"physics terms without a gradient on the first batch: {reasons}. Set their lambda to 0, "
                "or allow_zero_gradient to True"
            )

    def _select_metadata(self, batch: Batch) -> Batch:
        if self.metadata_keys is None:
            return batch
        missing = [key for key in self.metadata_keys if key not in batch.metadata]
        if missing:
            raise ValueError(
                f"metadata_keys has {missing[0]!r}, but the batches have the metadata {sorted(batch.metadata)}"
            )
        keys = {*self.metadata_keys, SAMPLE_WEIGHT}
        return batch._replace(metadata={key: value for key, value in batch.metadata.items() if key in keys})

    def _unlabeled_batches(self) -> Iterator[Any]:
        """Repeat the unlabeled loader indefinitely."""
        loader = self.unlabeled_loader or ()
        while True:
            set_epoch(loader, self.replay.passes)
            is_empty = True
            for batch in loader:
                is_empty = False
                yield batch
            if is_empty:
                raise ValueError("unlabeled_loader yielded no batch")


def _join(labeled: dict[str, Tensor], unlabeled: dict[str, Tensor]) -> dict[str, Tensor]:
    weights = {name: value for name, value in labeled.items() if name == SAMPLE_WEIGHT}  # of the labeled windows only
    labeled = {name: value for name, value in labeled.items() if name != SAMPLE_WEIGHT}
    missing = [name for name in labeled if name not in unlabeled]
    if missing:
        raise ValueError(f"batches of unlabeled_loader have no metadata {missing[0]!r}, but those of train_loader have")
    joined = {name: torch.cat([value, unlabeled[name]]) for name, value in labeled.items()}
    for name in joined.keys() & set(RECORDING_IDS):
        # Negative indices, as the two loaders number their recordings independently.
        joined[name] = torch.cat([labeled[name].long(), -1 - unlabeled[name].long()])
    return joined | weights


def _has_gradient(term: Tensor, predictions: Tensor) -> bool:
    if not term.requires_grad:
        return False
    (gradient,) = torch.autograd.grad(term, predictions, allow_unused=True)
    return gradient is not None and bool(gradient.isfinite().all() and gradient.any())


def _detached(
    total: Tensor, data_loss: Tensor, physics_loss: Tensor, terms: dict[str, Tensor], share: float
) -> dict[str, Tensor]:
    zero = data_loss.new_zeros(())
    return {
        "total_loss": total.detach(),
        "classification_loss": data_loss.detach(),
        "physics_loss": physics_loss.detach(),
        **{name: terms.get(name, zero).detach() for name in TERMS},
        "lambda": data_loss.new_full((), share),
    }
