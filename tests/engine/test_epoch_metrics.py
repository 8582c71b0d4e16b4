"""Metrics of an epoch: equal to scikit-learn, for every task, in history, monitors and checkpoints."""

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from torch import nn

from whirl.callbacks import EarlyStopping
from whirl.engine.callbacks import Callback
from whirl.engine.epoch_metrics import EpochMetrics, metric_names
from whirl.engine.objective import Objective
from whirl.training.trainer import Trainer

N, K = 300, 4
GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(N, K, generator=GENERATOR).mul(4).round().div(4)  # with ties
LABELS = (LOGITS + torch.randn(N, K, generator=GENERATOR)).argmax(1)
MULTI = (LOGITS + torch.randn(N, K, generator=GENERATOR) > 0).float()


def computed(names, outputs, targets, objective):
    metrics = EpochMetrics(names, objective)
    for rows in torch.arange(N).split(64):
        objective.fit_targets(outputs[rows], targets[rows])
        metrics.add(outputs[rows], targets[rows])
    return metrics.compute()


def averages(true, predicted):
    functions = {"f1": sk.f1_score, "precision": sk.precision_score, "recall": sk.recall_score}
    return {
        f"{name}_{average}": function(true, predicted, average=average, zero_division=0)
        for name, function in functions.items()
        for average in ("macro", "micro", "weighted")
    }


def test_metrics_of_classes_equal_scikit_learn():
    true, predicted = LABELS.numpy(), LOGITS.argmax(1).numpy()
    expected = averages(true, predicted) | {
        "balanced_accuracy": sk.balanced_accuracy_score(true, predicted),
        "mcc": sk.matthews_corrcoef(true, predicted),
        "auroc": sk.roc_auc_score(true, LOGITS.softmax(1).double().numpy(), multi_class="ovr"),
    }
    assert computed(list(expected), LOGITS, LABELS, Objective()) == pytest.approx(expected)


def test_top_k_accuracy():
    scores = LOGITS + torch.arange(K) / 1000  # without ties
    expected = sk.top_k_accuracy_score(LABELS, scores.numpy(), k=2)
    assert computed(["top_2_accuracy"], scores, LABELS, Objective())["top_2_accuracy"] == pytest.approx(expected)


def test_metrics_of_two_classes_equal_scikit_learn():
    scores, targets = LOGITS[:, :1], MULTI[:, :1]
    true, predicted = targets[:, 0].numpy(), (scores[:, 0] > 0).long().numpy()
    expected = averages(true, predicted) | {
        "f1": sk.f1_score(true, predicted),
        "precision": sk.precision_score(true, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(true, predicted),
        "auroc": sk.roc_auc_score(true, scores[:, 0].numpy()),
    }
    assert computed(list(expected), scores, targets, Objective(task="binary")) == pytest.approx(expected)


def test_metrics_of_several_labels_equal_scikit_learn():
    expected = averages(MULTI.numpy(), (LOGITS > 0).numpy()) | {"auroc": sk.roc_auc_score(MULTI, LOGITS)}
    assert computed(list(expected), LOGITS, MULTI, Objective(task="multilabel")) == pytest.approx(expected)


def test_metrics_of_numbers_equal_scikit_learn():
    outputs, targets = LOGITS[:, :1], LOGITS[:, :1] + MULTI[:, :1]
    expected = {
        "mae": sk.mean_absolute_error(targets, outputs),
        "rmse": sk.root_mean_squared_error(targets, outputs),
        "r2": sk.r2_score(targets, outputs),
    }
    assert computed(list(expected), outputs, targets, Objective(task="regression")) == pytest.approx(expected)


def test_ignored_labels_do_not_count():
    labels = LABELS.where(torch.arange(N) % 3 > 0, -100)
    kept = labels != -100
    expected = sk.f1_score(labels[kept], LOGITS.argmax(1)[kept], average="macro")
    assert computed(["f1_macro"], LOGITS, labels, Objective())["f1_macro"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("metrics", "error", "message"),
    [
        (["f1_makro"], ValueError, "did you mean 'f1_macro'"),
        ("f1_macro", TypeError, "expected a list"),
        ([3], TypeError, "metric is 3, expected a name"),
        ([lambda outputs, targets: 0.0], ValueError, "lambda, which has no name"),
    ],
)
def test_rejects_what_is_not_a_metric(metrics, error, message):
    with pytest.raises(error, match=message):
        Trainer(nn.Linear(1, 1), [], device="cpu", metrics=metrics)


def test_rejects_a_metric_of_another_task():
    with pytest.raises(ValueError, match="metric 'mae' is for the task regression, but the task is multiclass"):
        new_trainer(metrics=["mae"]).fit(1)


# -- in a trainer ---------------------------------------------------------------------------------------------


class Precision:
    """As the objects of torchmetrics."""

    def reset(self):
        self.hits = self.n = 0

    def update(self, outputs, targets):
        self.hits += int((outputs.argmax(1) == targets).sum())
        self.n += len(targets)

    def compute(self):
        return torch.tensor(self.hits / self.n)

    def __call__(self, outputs, targets):
        raise AssertionError("is not called")


def error_rate(outputs, targets):
    return (outputs.argmax(1) != targets).float().mean()


class InterruptAt(Callback):
    def on_batch_end(self, batch, logs=None):
        if (self.trainer.state.epoch, batch) == (1, 2):
            self.trainer.state.interrupted = True


def new_trainer(folder=None, callbacks=(), metrics=("f1_macro", "balanced_accuracy", "auroc"), **options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(K, K))
    batches = list(zip((LOGITS + 1)[:, None].split(64), LABELS.split(64), strict=True))
    return Trainer(
        model, batches, batches, device="cpu", metrics=metrics, checkpoint_dir=folder, callbacks=list(callbacks),
        **options,
    )  # fmt: skip


def test_metrics_are_logged_for_training_and_validation():
    trainer = new_trainer(metrics={"f1": "f1_macro", "errors": error_rate, "object": Precision()})
    history = trainer.fit(2)
    for part in ("train", "val"):
        accuracy = np.array(history[f"{part}_accuracy"])
        assert history[f"{part}_errors"] == pytest.approx(1 - accuracy)
        assert history[f"{part}_object"] == pytest.approx(accuracy)
        assert len(history[f"{part}_f1"]) == 2


def test_functions_are_named_after_themselves():
    assert "val_error_rate" in new_trainer(metrics=[error_rate, Precision()]).fit(1)
    assert "val_precision" in new_trainer(metrics=[error_rate, Precision()]).fit(1)


def test_metrics_can_be_monitored_and_determine_the_best_checkpoint(tmp_path):
    stopping = EarlyStopping("val_f1_macro", mode="max")
    trainer = new_trainer(tmp_path, [stopping], best_by="val_f1_macro")
    history = trainer.fit(4)
    best = torch.load(tmp_path / "best.pt", weights_only=True)["metadata"]
    assert best["val_metrics"]["val_f1_macro"] == max(history["val_f1_macro"]) == stopping.best


def test_best_by_names_what_the_logs_have():
    with pytest.raises(ValueError, match="monitor is 'val_f2', but the logs have"):
        new_trainer(best_by="val_f2").fit(1)


def test_an_epoch_resumed_in_the_middle_has_the_same_metrics(tmp_path):
    expected = new_trainer(best_by="val_f1_macro")
    expected.fit(3)
    new_trainer(tmp_path, [InterruptAt()], best_by="val_f1_macro").fit(3)
    resumed = new_trainer(best_by="val_f1_macro")
    resumed.fit(3, resume_from=tmp_path / "last.pt")
    timeless = [{n: v for n, v in t.history.items() if n != "epoch_time_s"} for t in (resumed, expected)]
    assert timeless[0] == timeless[1]


def test_all_names_are_documented_as_known():
    assert {"f1_macro", "balanced_accuracy", "auroc", "top_K_accuracy"} <= set(metric_names())
