"""A small trainer for tests of callbacks."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

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
