"""Schedules and helpers that the scheduler tests share."""

import torch
from torch import nn
from torch.optim import lr_scheduler

from whirl.engine.schedule import scheduler_unit
from whirl.optim import cnn_schedulers


def sgd(*rates, **settings):
    return torch.optim.SGD([{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in rates or (1.0,)], **settings)


def learning_rates(optimizer):
    return [group["lr"] for group in optimizer.param_groups]


def lr_and_momentum(optimizer):
    """Return learning rate and momentum of each group."""
    return [(group["lr"], group["momentum"]) for group in optimizer.param_groups]


def trace(optimizer, scheduler, n_steps, metrics=None, observe=learning_rates):
    """Return the learning rates of each group at steps 0 to n_steps - 1 of a hand-written loop."""
    observed = []
    for step in range(n_steps):
        observed.append(observe(optimizer))
        optimizer.step()
        scheduler.step(*([] if metrics is None else [metrics[step]]))
    return observed


def make(name, optimizer, **settings):
    return cnn_schedulers.get_scheduler(name, optimizer, **settings)


METRICS = [1.0, 1.0, 0.5, 0.6, 0.6, 0.4, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]
BASES = {
    "cosine": lambda o: make("cosine", o, num_epochs=4),
    "cosine_restarts": lambda o: make("cosine_restarts", o, T_0=2),
    "onecycle": lambda o: make("onecycle", o, max_lr=2.0, total_steps=6),
    "step": lambda o: make("step", o, step_size=2),
    "multistep": lambda o: make("multistep", o, milestones=[2, 5]),
    "constant": lambda o: make("constant", o),
    "exponential": lambda o: make("exponential", o),
    "plateau": lambda o: make("plateau", o, mode="min", factor=0.5, patience=1),
    "polynomial": lambda o: make("polynomial", o, total_epochs=5),
    "warmup_cosine": lambda o: make("warmup_cosine", o, warmup_epochs=2, total_epochs=6),
    "warmup_linear": lambda o: make("warmup_linear", o, warmup_epochs=2, total_epochs=6),
    "inverse_sqrt": lambda o: make("inverse_sqrt", o, warmup_steps=3),
    "noam": lambda o: make("noam", o, d_model=16, warmup_steps=3),
    "torch cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 4),
    "torch onecycle": lambda o: lr_scheduler.OneCycleLR(o, 2.0, total_steps=6),
    "torch plateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, factor=0.5, patience=1),
    "torch lambda": lambda o: lr_scheduler.LambdaLR(o, lambda step: 0.9**step),
}
OURS = {name: base for name, base in BASES.items() if "torch" not in name}


def metrics_for(scheduler):
    return METRICS if scheduler_unit(scheduler) == "validation" else None
