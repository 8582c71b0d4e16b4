"""The objective of a search: train a candidate and return its score."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from whirl.callbacks.registry import RunResults
from whirl.engine.distributed import rank
from whirl.engine.interrupt import finish_batch_on_interrupt
from whirl.runs.config import Config, ResolvedConfig, make_config
from whirl.runs.data import PreparedData
from whirl.runs.flat import to_flat
from whirl.runs.search_space import candidate_settings
from whirl.runs.search_text import format_candidate, format_count
from whirl.runs.tracking import SearchLoggers
from whirl.runs.trainers import make_trainer
from whirl.tuning.attempts import candidates
from whirl.tuning.trial import ReportToTrial, Trial

logger = logging.getLogger(__name__)


class Objective:
    """Trains a candidate and returns the validation score of the weights that a training would keep.

    Args:
        data: the recordings without a test part, with the default settings.
        study: the Optuna study, for logging the best score; None on all ranks but 0.
        loggers: experiment loggers of the search.
    """

    def __init__(self, data: PreparedData, study: Any, loggers: SearchLoggers) -> None:
        self.data, self.study, self.loggers = data, study, loggers
        self.n_windows = n_training_windows(data)

    def __call__(self, trial: Trial) -> float:
        config = candidate_config(self.data.config, trial.params, self.n_windows)
        report = _ReportScoreAtBestLoss(trial, score_of(config))
        trainer = make_trainer(replace(self.data, config=config), None, [report])
        loggers = self.loggers.of_trial(trial.number, config)
        if config.run.log:
            trainer.callbacks.append(loggers)
        if rank():  # each process draws its own augmentations
            torch.manual_seed(config.run.seed + rank())
        with finish_batch_on_interrupt(trainer.state):
            trainer.fit(config.training.epochs)
        if trial.interrupted_by is not None:
            return math.nan
        score = score_at_best_loss(trainer.state.history, score_of(config))
        loggers.log_results(lambda: RunResults({"score": score, "is_pruned": float(trial.is_pruned)}))
        if self.study is not None:
            self._log(trial, score, trainer.state.epoch)
        return score

    def _log(self, trial: Trial, score: float, n_epochs: int) -> None:
        scores = [other.value or 0.0 for other in candidates(self.study) if other.state.name == "COMPLETE"]
        scores += [] if trial.is_pruned else [score]
        epochs = format_count(n_epochs, "epoch")
        outcome = f"pruned at {score:.4f} after {epochs}" if trial.is_pruned else f"{score:.4f}"
        best = f"; best so far {max(scores):.4f}" if scores else ""
        logger.info("trial %d: %s with %s%s", trial.number, outcome, format_candidate(trial.params), best)


class _ReportScoreAtBestLoss(ReportToTrial):
    """Reports after each epoch the score of a training that would end there."""

    def __init__(self, trial: Trial, score: str) -> None:
        super().__init__(trial)
        self.score = score

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_end(epoch, {self.metric: score_at_best_loss(self.trainer.state.history, self.score)})


def score_of(config: Config) -> str:
    """Return the name of the score in the history: validation accuracy, or R2 of a predicted number."""
    return "val_r2" if config.is_regression else "val_accuracy"


def score_at_best_loss(history: Mapping[str, Sequence[float]], score: str = "val_accuracy") -> float:
    """Return the score of the epoch with the lowest validation loss; NaN if no loss is finite.

    Example:
        >>> score_at_best_loss({"val_loss": [0.9, 0.4, 0.5], "val_accuracy": [0.6, 0.8, 0.9]})
        0.8
    """
    losses = [math.inf if math.isnan(loss) else loss for loss in history["val_loss"]]
    best = losses.index(min(losses))
    return history[score][best] if losses[best] < math.inf else math.nan


def candidate_config(config: ResolvedConfig, candidate: Mapping[str, Any], n_windows: int) -> ResolvedConfig:
    """Return the configuration of a trial.

    Args:
        config: the resolved configuration of the search.
        candidate: values of the searched settings.
        n_windows: number of training windows, the upper limit of the batch size.
    """
    settings = to_flat(config) | candidate_settings(config, candidate)
    settings["batch_size"] = max(2, min(settings["batch_size"], n_windows))
    return make_config(settings, "candidate", ResolvedConfig)


def n_training_windows(data: PreparedData) -> int:
    """Return the number of windows of the training part."""
    return len(data.windows(data.split.train, data.config.input.hop))
