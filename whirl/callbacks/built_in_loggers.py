"""The built-in loggers of `whirl train --log`."""

from __future__ import annotations

from whirl.callbacks.metric_logger import MetricLogger
from whirl.callbacks.mlflow_logger import MLflowLogger
from whirl.callbacks.registry import RunFacts, register_logger
from whirl.callbacks.tensorboard_logger import TensorBoardLogger
from whirl.callbacks.wandb_logger import WandbLogger
from whirl.engine.callbacks import Callback

PROJECT = "whirl"
"""Experiment of MLflow and project of Weights & Biases."""

_MLFLOW_TAGS = {"command": "mlflow.source.name", "git_commit": "mlflow.source.git.commit", "user": "mlflow.user"}


@register_logger("csv")
def csv(facts: RunFacts) -> Callback:
    """Write the logs of every epoch to `epochs.csv` in the run folder."""
    return MetricLogger(facts.folder / "epochs.csv")


@register_logger("json")
def json(facts: RunFacts) -> Callback:
    """Write the logs of every epoch to `metrics.jsonl` in the run folder."""
    return MetricLogger(facts.folder / "metrics.jsonl")


@register_logger("tensorboard")
def tensorboard(facts: RunFacts) -> Callback:
    """Write event files to `tensorboard/` in the run folder."""
    return TensorBoardLogger(facts.folder / "tensorboard", hparams=facts.settings)


@register_logger("mlflow")
def mlflow(facts: RunFacts) -> Callback:
    """Log to MLflow's tracking URI, in the experiment `whirl`."""
    tags = {_MLFLOW_TAGS.get(name, f"whirl.{name}"): value for name, value in facts.tags.items()}
    return MLflowLogger(
        PROJECT,
        facts.name,
        parameters=facts.settings,
        tags={"mlflow.source.type": "LOCAL", **tags},
        dataset=facts.dataset,
        parent=facts.parent or None,
        group=facts.name if facts.is_group else None,
    )


@register_logger("wandb")
def wandb(facts: RunFacts) -> Callback:
    """Log to Weights & Biases, in the project `whirl`, with local files in the run folder."""
    return WandbLogger(
        PROJECT,
        facts.name,
        config={**facts.settings, **{f"run_{name}": value for name, value in facts.tags.items()}},
        group=facts.parent or None,
        folder=facts.folder,
        finish=False,
    )
