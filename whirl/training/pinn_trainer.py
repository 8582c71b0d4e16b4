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
from whirl.engine.state import TrainingState
from whirl.losses.balancing import LAMBDA_SCHEDULES, create_balancer, lambda_multiplier
from whirl.losses.physics_loss_functions import PhysicalConstraintLoss
from whirl.training.trainer import History, Trainer, set_epoch
from whirl.validation import check_name

TERMS = ("freq_loss", "sommerfeld_loss", "temporal_loss")

RECORDING_IDS = ("recording", "record_ids")


class _Joined(NamedTuple):
    """A labelled and an unlabelled batch that go through the network together."""

    labelled: Any
    unlabeled: Any


@dataclass
class PINNTrainingState(TrainingState):
    """Progress of a physics-informed training; what is specific to it is read from the history."""

    @property
    def lambda_history(self) -> list[float]:
        """Share of the physics terms' final weights in each epoch, 0 to 1."""
        return self.history.get("train_lambda", [])

    @property
    def loss_components(self) -> dict[str, list[float]]:
        """Each part of the loss by epoch: `train_freq_loss`, `val_classification_loss`, ..."""
        parts = ("classification_loss", "physics_loss", "total_loss", *TERMS)
        names = [f"{part}_{name}" for part in ("train", "val") for name in parts]
        return {name: self.history[name] for name in names if name in self.history}


class ZeroGradientError(ValueError):
    """A physics term that would not change the training at all."""


class PINNTrainer(Trainer):
    """Trains on classification and physics together.

    loss = criterion + lambda(epoch) · (lambda_freq · L_freq + lambda_sommerfeld · L_sommerfeld + lambda_temporal ·
    L_temporal), with the terms of `whirl.losses.physics_loss_functions`. Validation always uses the final
    weights, so that its epochs can be compared. With all three weights 0 it is `Trainer`, to the bit, and unlabelled
    windows are not looked at. With a weight they pass through the network in every epoch, so its batch normalisation
    sees them even while the schedule is at 0.

    Before the first step each enabled term must have a gradient with respect to the predictions on the first batch;
    one that has none stops training and says why.

    Args:
        model: see `Trainer`, as for every argument not named here. A network whose `forward` has a parameter `metadata`
            is given the batch's metadata.
        lambda_freq: weight of the frequency term, >= 0; 0 turns it off.
        lambda_sommerfeld: weight of the severity ranking, >= 0.
        lambda_temporal: weight of the temporal term, >= 0.
        adaptive_lambda: follow the schedule; False uses the final weights from the start.
        lambda_schedule: `'linear'`, `'cosine'`, `'exponential'`, `'step'` or `'constant'`: how the weights rise from 0
            to all of them over the run's epochs.
        sample_rate: of the signals, in Hz.
        metadata_keys: which metadata the batches must have, and the only ones used; None uses what there is.
        augmentation: see `Trainer`; unlabelled windows are left as they are.
        physics_loss: the terms, ready made; its own weights are not used. None makes them for `classes`.
        classes: name of each class index; None is the 11 journal classes.
        unlabeled_loader: windows without (used) labels, on which the physics terms act too: batches as of
            `train_loader`, begun again as often as an epoch needs. One of `make_loader` resumes exactly.
        balancing: `'none'`, or `'gradnorm'`, `'softadapt'`, `'relobralo'`: factors on the terms that follow the losses,
            on top of the schedule; in training only.
        allow_zero_gradient: train although an enabled term has no gradient.
        **options: further keyword arguments of `Trainer`: `lr_scheduler`, `checkpoint_dir`, ...

    Raises:
        ValueError: a negative weight, an unknown schedule or balancing.
        ZeroGradientError: from `fit` or `train_epoch`, when an enabled term has no gradient.

    Example:
        >>> from whirl.models.registry import create_model
        >>> signals, targets = torch.randn(16, 1, 2048), torch.arange(16) % 11
        >>> batch = (signals, targets, {"rpm": torch.full((16,), 3000.0)})
        >>> network, no = create_model("wdcnn", 11), 0.0
        >>> trainer = PINNTrainer(
        ...     network, [batch], device="cpu", lambda_sommerfeld=no, lambda_temporal=no, sample_rate=2560
        ... )
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
        self.allow_zero_gradient = allow_zero_gradient
        self._terms_checked = False

    def new_state(self) -> PINNTrainingState:
        return PINNTrainingState()

    def train(self, num_epochs: int) -> History:
        """`fit(num_epochs)`."""
        return self.fit(num_epochs)

    def prepare_batch(self, batch: Any) -> Batch:
        """Signals of labelled, then of unlabelled windows; targets of the labelled ones alone."""
        if not isinstance(batch, _Joined):
            return self._with_known_metadata(super().prepare_batch(batch))
        labelled = self._with_known_metadata(super().prepare_batch(batch.labelled))
        unlabeled = self._with_known_metadata(as_batch(batch.unlabeled, self.device))
        signals = torch.cat([labelled.signals, unlabeled.signals])
        return Batch(signals, labelled.targets, _join(labelled.metadata, unlabeled.metadata))

    def batches(self, loader: Iterable[Any]) -> Iterable[Any]:
        if self.unlabeled_loader is None or not self.weights or loader is not self.train_loader:
            return loader
        start = getattr(getattr(loader, "sampler", None), "start_batch", 0)
        return map(_Joined, loader, islice(self._unlabeled(), start, None))

    def compute_loss(
        self, outputs: Tensor, targets: Tensor, signal: Tensor, metadata: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Classification and physics.

        Args:
            outputs: logits `[B, K]`, of unlabelled windows too.
            targets: of the first windows; what comes after them is unlabelled.
            signal: `[B, C, T]`.
            metadata: tensors `[B]` by name, e.g. `rpm` in rev/min.

        Returns:
            The loss, and detached: `total_loss`, `classification_loss`, `physics_loss` (weighted sum), `freq_loss`,
            `sommerfeld_loss`, `temporal_loss` (not weighted), `lambda` (share of the final weights), and what
            `PhysicalConstraintLoss.diagnose` says.
        """
        data_loss = self.criterion(outputs[: len(targets)], targets)
        if not self.weights:
            return data_loss, _detached(data_loss, data_loss, data_loss.new_zeros(()), {}, 1.0)
        share = self._share()
        if self.model.training and not self._terms_checked:
            self.check_gradients_flow(outputs, signal, metadata)
        terms = self.physics_loss.terms(outputs, signal, metadata, names=tuple(self.weights))
        factors = self._factors(data_loss, terms)
        physics_loss = share * sum((factors[name] * terms[name] for name in terms), start=data_loss.new_zeros(()))
        # A share of 0 must leave no trace in the gradient, whatever the terms are.
        total = data_loss + physics_loss if share > 0 else data_loss
        found = _detached(total, data_loss, physics_loss, terms, share)
        return total, found | self.physics_loss.diagnose(outputs, signal, metadata)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"physics": self.physics_loss.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.physics_loss.load_state_dict(state["physics"])
        self._terms_checked = True  # its first batch has been looked at; the one to go on with may be poorer

    def _own_parts(self) -> dict[str, Any]:
        # Each process balances by the losses of its own batches.
        return super()._own_parts() | {"balancing": self.balancer.state_dict()}

    def _load_own_parts(self, own: dict[str, Any]) -> None:
        super()._load_own_parts(own)
        if "balancing" in own:  # a process that was not there before begins afresh
            self.balancer.load_state_dict(own["balancing"])

    def _kinds(self) -> dict[str, str]:
        return super()._kinds() | {"balancing": type(self.balancer).__name__}

    def _share(self) -> float:
        """Share of the final weights; all of them in validation."""
        if not self.model.training:
            return 1.0
        return lambda_multiplier(self.schedule, self.state.epoch, self.state.num_epochs)

    def _factors(self, data_loss: Tensor, terms: dict[str, Tensor]) -> dict[str, Tensor | float]:
        if not self.model.training:
            return dict(self.weights)
        balanced = self.balancer(data_loss, terms, self._shared)
        return {name: self.weights[name] * balanced[name] for name in terms}

    @cached_property
    def _shared(self) -> list[nn.Parameter]:
        """Weight of the last layer, which all terms reach."""
        return [p for p in self.model.parameters() if p.requires_grad and p.ndim > 1][-1:]

    def check_gradients_flow(self, outputs: Tensor, signal: Tensor, metadata: dict[str, Tensor]) -> None:
        """Stop before the first step if an enabled term cannot change the predictions.

        Args:
            outputs: logits `[B, K]`; only their shape counts.
            signal: `[B, C, T]`.
            metadata: tensors `[B]` by name.

        Raises:
            ZeroGradientError: a term has no gradient, unless `allow_zero_gradient`.
        """
        self._terms_checked = True
        if self.allow_zero_gradient:
            return
        # Any predictions will do but equal ones, at which a term may rest.
        probe = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(0)).to(outputs.device)
        probe.requires_grad_()
        terms = self.physics_loss.terms(probe, signal, metadata, names=tuple(self.weights))
        inert = [name for name, term in terms.items() if not _has_gradient(term, probe)]
        if inert:
            reasons = "; ".join(f"{name}: {self.physics_loss.why_inert(name, signal, metadata)}" for name in inert)
            raise ZeroGradientError(
                f"physics terms without a gradient on the first batch: {reasons}. Set their lambda to 0, "
                "or allow_zero_gradient to True"
            )

    def _with_known_metadata(self, batch: Batch) -> Batch:
        if self.metadata_keys is None:
            return batch
        missing = [key for key in self.metadata_keys if key not in batch.metadata]
        if missing:
            raise ValueError(f"batches have no metadata {missing[0]!r}; they have {sorted(batch.metadata)}")
        return batch._replace(metadata={key: batch.metadata[key] for key in self.metadata_keys})

    def _unlabeled(self) -> Iterator[Any]:
        """Batches without end."""
        loader = self.unlabeled_loader or ()
        while True:
            set_epoch(loader, self._passes)
            empty = True
            for batch in loader:
                empty = False
                yield batch
            if empty:
                raise ValueError("unlabeled_loader yielded no batch")


def _join(labelled: dict[str, Tensor], unlabeled: dict[str, Tensor]) -> dict[str, Tensor]:
    missing = [name for name in labelled if name not in unlabeled]
    if missing:
        raise ValueError(f"unlabelled batches have no metadata {missing[0]!r}; labelled ones do")
    joined = {name: torch.cat([value, unlabeled[name]]) for name, value in labelled.items()}
    for name in joined.keys() & set(RECORDING_IDS):
        # Counted below zero, unlabelled recordings are not taken for labelled ones of the same index.
        joined[name] = torch.cat([labelled[name].long(), -1 - unlabeled[name].long()])
    return joined


def _has_gradient(term: Tensor, predictions: Tensor) -> bool:
    if not term.requires_grad:
        return False
    (gradient,) = torch.autograd.grad(term, predictions, allow_unused=True)
    return gradient is not None and bool(gradient.isfinite().all() and gradient.any())


def _detached(
    total: Tensor, data_loss: Tensor, physics_loss: Tensor, terms: dict[str, Tensor], share: float
) -> dict[str, Tensor]:
    nothing = data_loss.new_zeros(())
    return {
        "total_loss": total.detach(),
        "classification_loss": data_loss.detach(),
        "physics_loss": physics_loss.detach(),
        **{name: terms.get(name, nothing).detach() for name in TERMS},
        "lambda": data_loss.new_full((), share),
    }
