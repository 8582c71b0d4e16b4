"""Resume with persistent workers: every sample once per epoch, in the order of the uninterrupted training."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tests.engine.helpers import InterruptAt
from whirl.engine.persistent_workers import have_started, restore_workers
from whirl.training.trainer import Trainer

N = 40


class Recorder(nn.Module):
    """A network that records which samples it sees in training."""

    def __init__(self):
        super().__init__()
        self.head, self.seen = nn.Linear(1, 2), []

    def forward(self, signals):
        if self.training:
            self.seen += signals.flatten().int().tolist()
        return self.head(signals.flatten(1))


def loader(persistent=True, generator=False):
    data = TensorDataset(torch.arange(N).float().view(N, 1, 1), torch.arange(N) % 2)
    return DataLoader(
        data, batch_size=5, shuffle=True, num_workers=2, persistent_workers=persistent,
        generator=torch.Generator().manual_seed(3) if generator else None,
    )  # fmt: skip


def new_trainer(folder, *callbacks, **options):
    torch.manual_seed(0)
    val_loader = DataLoader(TensorDataset(torch.zeros(4, 1, 1), torch.zeros(4).long()), 2, num_workers=1,
                            persistent_workers=True)  # fmt: skip
    return Trainer(
        Recorder(), loader(**options), val_loader, device="cpu", callbacks=list(callbacks), checkpoint_dir=folder
    )


@pytest.mark.parametrize(
    ("where", "persistent", "generator"),
    [
        ((1, 2), True, False),
        (None, True, False),
        *(
            pytest.param(where, persistent, generator, marks=pytest.mark.slow)
            for where in ((0, 3), (1, 2), None)
            for persistent, generator in ((False, False), (False, True), (True, True))
        ),
    ],
)
def test_resumed_epochs_have_the_samples_of_an_uninterrupted_run(tmp_path, persistent, generator, where):
    options = {"persistent": persistent, "generator": generator}
    expected = new_trainer(tmp_path / "a", **options)
    expected.fit(2)
    first = new_trainer(tmp_path / "b", *([InterruptAt(*where)] if where else []), **options)
    first.fit(2 if where else 1)
    torch.manual_seed(99)
    second = new_trainer(tmp_path / "b", **options)
    second.fit(2, resume_from=tmp_path / "b" / "last.pt")
    assert first.model.seen + second.model.seen == expected.model.seen
    assert torch.equal(second.model.head.weight, expected.model.head.weight)
    assert [len(set(expected.model.seen[i : i + N])) for i in range(0, 2 * N, N)] == [N] * 2


def test_the_same_trainer_continues_after_an_interruption(tmp_path):
    expected, trainer = (new_trainer(tmp_path / name) for name in "ab")
    torch.manual_seed(5)
    expected.fit(2)
    trainer.callbacks.append(InterruptAt(0, 2))
    torch.manual_seed(5)
    trainer.fit(2)
    assert len(trainer.model.seen) == 15
    trainer.fit(2)
    assert trainer.model.seen == expected.model.seen


def test_restoring_workers_leaves_random_states():
    workers = loader()
    state = torch.get_rng_state()
    restore_workers(workers, [True])
    assert have_started(workers) == [True]
    restore_workers(workers, [False])
    assert have_started(workers) == [False]
    assert torch.equal(state, torch.get_rng_state())
