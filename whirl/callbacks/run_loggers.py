"""The built-in loggers of `whirl train --log`."""

from __future__ import annotations

from whirl.callbacks.cnn_callbacks import MetricLogger
from whirl.callbacks.loggers import MLflowLogger, TensorBoardLogger
from whirl.callbacks.registry import RunFacts, register_logger


@register_logger("tensorboard")
def tensorboard(facts: RunFacts) -> TensorBoardLogger:
    """Write event files to `tensorboard/` in the run folder."""
    return TensorBoardLogger(facts.folder / "tensorboard")


@register_logger("mlflow")
def mlflow(facts: RunFacts) -> MLflowLogger:
    """Log to MLflow's own tracking URI, in the experiment `whirl`."""
    return MLflowLogger("whirl", run_name=facts.name)


@register_logger("json")
def json(facts: RunFacts) -> MetricLogger:
    """Write the logs of every epoch to `metrics.jsonl` in the run folder."""
    return MetricLogger(facts.folder / "metrics.jsonl")
