"""Tests of trials: reports to the pruner, and pruning."""

import optuna
import pytest
import torch
from optuna.distributions import FloatDistribution
from torch import nn

from tests.tuning.studies import SPACE
from whirl.training.trainer import Trainer
from whirl.tuning.attempts import best_trial
from whirl.tuning.study import open_study
from whirl.tuning.trial import ReportToTrial, Trial
from whirl.tuning.worker import run_trials


@pytest.mark.parametrize("pruner", ["median", "hyperband", None])
def test_prunes_unpromising_training(pruner):
    torch.manual_seed(0)
    signals = torch.randn(64, 1, 8)
    batch = (signals, (signals.mean((1, 2)) > 0).long())

    def objective(trial):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(8, 2))
        report = ReportToTrial(trial)
        optimizer = torch.optim.SGD(model.parameters(), lr=trial.params["lr"])
        trainer = Trainer(model, [batch], [batch], optimizer=optimizer, device="cpu", callbacks=[report])
        trainer.fit(9)
        epochs[trial.number] = trainer.state.epoch
        assert report.pruned == (trainer.state.epoch < 9)
        return trainer.state.history["val_accuracy"][-1]

    epochs = {}
    study = open_study(None, pruner=pruner)
    for lr in [3.0, 1.0, 2.0, 1.5, 2.5, 3.5, 1e-9, 1e-9]:
        study.enqueue_trial({"lr": lr})
    trials = run_trials(study, {"lr": FloatDistribution(1e-9, 10, log=True)}, objective, 8)
    pruned = {trial.number for trial in trials if trial.state.name == "PRUNED"}
    assert pruned == {number for number, n_epochs in epochs.items() if n_epochs < 9}
    assert bool(pruned) == (pruner is not None)
    assert best_trial(trials).number not in {6, 7}
    if pruner == "median":
        assert pruned >= {6, 7}


@pytest.mark.parametrize(("n_epochs", "pruned_in"), [(2, None), (3, None), (4, 2), (9, 6)])
def test_never_prunes_in_first_two_thirds_or_last_epoch(n_epochs, pruned_in):
    class AlwaysPruned(Trial):
        def should_prune(self):
            return True

    trial = AlwaysPruned(0, {})
    model = nn.Sequential(nn.Flatten(), nn.Linear(8, 2))
    batch = (torch.randn(4, 1, 8), torch.tensor([0, 1, 0, 1]))
    trainer = Trainer(model, [batch], [batch], device="cpu", callbacks=[ReportToTrial(trial)])
    trainer.fit(n_epochs)
    assert trial.is_pruned == (pruned_in is not None)
    assert trainer.state.epoch == (n_epochs if pruned_in is None else pruned_in + 1)


def test_rejects_missing_metric():
    trial = Trial(0, {})
    with pytest.raises(ValueError, match="unknown metric 'val_f1'; expected one of: loss"):
        ReportToTrial(trial, "val_f1").on_epoch_end(0, {"loss": 1.0})


def test_trial_pruned_counts_as_pruned():
    def objective(trial):
        trial.report(0.3, step=0)
        if trial.number == 1:
            raise optuna.TrialPruned
        return 1.0

    assert [t.state.name for t in run_trials(open_study(None), SPACE, objective, 2)] == ["COMPLETE", "PRUNED"]
