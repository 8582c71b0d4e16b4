"""Wrappers and callbacks shared by the tests of the loop."""

from torch import nn

from whirl.engine.callbacks import Callback


class Passthrough(nn.Module):
    """A user's wrapper, whose signature hides that of the network."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, *args, **kwargs):
        return self.inner(*args, **kwargs)


class InterruptAt(Callback):
    """Interrupts the training after a batch of an epoch."""

    def __init__(self, epoch, batch):
        self.where = (epoch, batch)

    def on_batch_end(self, batch, logs=None):
        if (self.trainer.state.epoch, batch) == self.where:
            self.trainer.state.interrupted = True
