"""A small trainer, and ways to end a training, for tests of callbacks."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from whirl.callbacks.callbacks import Callback
from whirl.training.trainer import Trainer

EPOCH_LOGS = {"train_loss": 0.7, "train_accuracy": 0.5, "val_loss": 0.6, "val_accuracy": 0.55, "lr": 0.1}


def small_trainer(*watching, n_samples=40, val=True, **arguments):
    torch.manual_seed(0)
    signals, targets = torch.randn(n_samples, 1, 16), torch.arange(n_samples) % 2
    loader = DataLoader(TensorDataset(signals, targets), batch_size=8)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    optimizer = arguments.pop("optimizer", None) or torch.optim.SGD(model.parameters(), lr=0.1)
    return Trainer(
        model, loader, loader if val else None, optimizer, device="cpu", callbacks=list(watching), **arguments
    )


class At(Callback):
    """Run an action at the end of an epoch."""

    def __init__(self, epoch, action):
        self.epoch, self.action = epoch, action

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.epoch:
            self.action(self.trainer)


def fail(trainer):
    raise ZeroDivisionError


def interrupt(trainer):
    trainer.state.interrupted = True


def interrupt_hard(trainer):
    raise KeyboardInterrupt


def stop(trainer):
    trainer.state.should_stop = True
