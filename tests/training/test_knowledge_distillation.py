"""DistillationTrainer: against a plain loop, frozen teacher, resume, cached logits, feature hints."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from whirl.data.loaders import make_loader
from whirl.data.recording import Recording
from whirl.data.windows import WindowDataset
from whirl.engine.callbacks import Callback
from whirl.engine.interrupt import finish_batch_on_interrupt
from whirl.training.knowledge_distillation import DistillationLoss, DistillationTrainer
from whirl.training.trainer import Trainer


def network(seed=0, width=8, dropout=0.2):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv1d(1, width, 9, stride=2), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(dropout),
        nn.AdaptiveAvgPool1d(4), nn.Flatten(), nn.Linear(4 * width, 3),
    )  # fmt: skip


def windows(n=50, length=128):
    """Two windows of each of n recordings; a few samples at the end are unused."""
    generator = torch.Generator().manual_seed(1)
    targets = torch.randint(0, 3, (n,), generator=generator).tolist()
    signals = torch.randn(n, 1, length, generator=generator)
    signals[:, :, ::4] += torch.tensor(targets)[:, None, None]
    recordings = [Recording(s, 1000.0, label=str(t)) for s, t in zip(signals.numpy(), targets, strict=True)]
    return WindowDataset(recordings, ["0", "1", "2"], window=64, hop=50)


def loader(**settings):
    return make_loader(windows(), batch_size=16, shuffle=True, seed=4, **settings)


def adamw(model):
    return torch.optim.AdamW(model.parameters(), lr=0.01)


def distiller(student, teacher=None, criterion=None, optimizer=None, **settings):
    with torch.random.fork_rng():
        teacher = teacher or network(seed=9, width=32)
    return DistillationTrainer(teacher, student, criterion, optimizer or adamw(student), **settings)


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


# -- the loop ------------------------------------------------------------------------------------------


def test_equals_a_plain_loop_exactly():
    plain, ours, teacher, criterion = network(), network(), network(9, 32), DistillationLoss(3.0, 0.6)
    torch.manual_seed(7)
    optimizer, batches = adamw(plain), loader()
    plain.train()
    teacher.eval()
    for epoch in range(3):
        batches.sampler.set_epoch(epoch)
        for signals, targets, _ in batches:
            optimizer.zero_grad()
            with torch.no_grad():
                teacher_logits = teacher(signals)
            criterion(plain(signals), teacher_logits, targets).backward()
            nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
            optimizer.step()
    torch.manual_seed(7)
    distiller(ours, teacher.train(), criterion).train(loader(), None, 3)
    assert equal(plain, ours)


def test_alpha_0_equals_trainer_exactly():
    plain, ours = network(), network()
    batches = [loader() for _ in range(4)]
    torch.manual_seed(7)
    history = Trainer(plain, batches[0], batches[1], adamw(plain), device="cpu").fit(3)
    torch.manual_seed(7)
    distilled = distiller(ours, criterion=DistillationLoss(alpha=0.0)).train(batches[2], batches[3], 3)
    assert equal(plain, ours)
    assert distilled["val_loss"] == history["val_loss"]
    assert distilled["train_loss"] == distilled["train_hard_loss"] == history["train_loss"]


def test_restores_the_teacher():
    teacher, student = network(9, 32), network()
    teacher[1].eval()
    teacher[6].weight.requires_grad_(False)
    before = copy.deepcopy(teacher)
    seen = []

    class Watch(Callback):
        def on_batch_end(self, batch, logs=None):
            seen.append((any(m.training for m in teacher.modules()), [p.grad for p in teacher.parameters()]))

    distiller(student, teacher, callbacks=[Watch()]).train(loader(), loader(), 1)
    assert len(seen) == len(loader())
    assert all(not training and grads == [None] * 6 for training, grads in seen)
    assert equal(before, teacher)
    assert [m.training for m in teacher.modules()] == [m.training for m in before.modules()]
    assert [p.requires_grad for p in teacher.parameters()] == [p.requires_grad for p in before.parameters()]


def test_restores_the_teacher_after_an_error():
    teacher = network(9, 32).train()
    with pytest.raises(ValueError, match="criterion failed"):
        distiller(network(), teacher, criterion=DistillationLoss(hard_criterion=fail)).train_epoch(loader(), 0)
    assert all(module.training for module in teacher.modules())


def fail(logits, targets):
    raise ValueError("criterion failed")


def test_rejects_a_teacher_in_the_optimizer():
    teacher = network()
    with pytest.raises(ValueError, match=r"'0\.weight'"):
        DistillationTrainer(teacher, network(), None, adamw(teacher))
    with pytest.raises(ValueError, match="are the same network"):
        DistillationTrainer(teacher, teacher, None, adamw(network()))


def test_train_epoch_equals_train():
    by_hand, ours = network(dropout=0.0), network(dropout=0.0)
    trainer = distiller(by_hand)
    for epoch in range(2):
        metrics = trainer.train_epoch(loader(), epoch)
    history = distiller(ours).train(loader(), loader(), 2)
    assert equal(by_hand, ours)
    assert set(metrics) == {"loss", "accuracy", "soft_loss", "hard_loss"}
    assert metrics["loss"] == history["train_loss"][-1]
    assert trainer.evaluate(loader()) == {"loss": history["val_loss"][-1], "accuracy": history["val_accuracy"][-1]}
    assert trainer.val_loader is None


def test_rejects_a_second_scheduler():
    student = network()
    optimizer = adamw(student)
    first, second = (torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma) for gamma in (0.5, 0.7))
    trainer = distiller(student, optimizer=optimizer, lr_scheduler=first)
    with pytest.raises(ValueError, match="has the lr_scheduler StepLR already"):
        trainer.train(loader(), None, 1, second)
    trainer.train(loader(), None, 1, first)
    assert trainer.lr_scheduler is first


def test_scheduler_is_stepped_once_per_epoch():
    student = network()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    halve = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    assert distiller(student, optimizer=optimizer).train(loader(), None, 3, halve)["lr"] == [0.1, 0.05, 0.025]


def test_restore_best():
    student = network()
    trainer = distiller(student, optimizer=torch.optim.SGD(student.parameters(), lr=0.3, momentum=0.9))
    with pytest.raises(ValueError, match="no epoch"):
        trainer.restore_best()
    history = trainer.train(loader(), loader(), 8)
    assert min(history["val_loss"]) < history["val_loss"][-1]  # otherwise the test would show nothing
    assert trainer.restore_best() == min(history["val_loss"])
    assert trainer.evaluate(loader())["loss"] == pytest.approx(min(history["val_loss"]), rel=1e-6)


class InterruptAt(Callback):
    def __init__(self, batch):
        self.left = batch

    def on_batch_end(self, batch, logs=None):
        self.left -= 1
        self.trainer.state.interrupted |= self.left == 0


SETTINGS = [{}, {"cache_teacher": True}, {"feature_hints": {"1": "1"}}]


@pytest.mark.parametrize("settings", SETTINGS, ids=["plain", "cached", "hints"])
@pytest.mark.parametrize("batch", [3, 7, 9])
def test_resume_matches_uninterrupted_run(tmp_path, settings, batch):
    reference_student, first, second = network(), network(), network()
    settings = {**settings, "gradient_accumulation_steps": 2}
    torch.manual_seed(7)
    reference = distiller(reference_student, **settings)
    history = reference.train(loader(), loader(), 3)
    torch.manual_seed(7)
    interrupted = distiller(first, checkpoint_dir=tmp_path, callbacks=[InterruptAt(batch)], **settings)
    with finish_batch_on_interrupt(interrupted.state):
        interrupted.train(loader(), loader(), 3)
    assert interrupted.state.epoch < 3
    torch.manual_seed(8)
    resumed = distiller(second, checkpoint_dir=tmp_path, callbacks=[InterruptAt(0)], **settings)
    again = resumed.train(loader(), loader(), 3, resume_from=tmp_path / "last.pt")
    assert equal(reference_student, second)
    assert again["train_loss"] == history["train_loss"]
    assert resumed.restore_best() == reference.restore_best()
    assert equal(reference_student, second)


def test_rejects_another_teacher_on_resume(tmp_path):
    distiller(network(), checkpoint_dir=tmp_path).train(loader(), None, 1)
    with pytest.raises(ValueError, match="its teacher is Sequential"):
        distiller(network(), network(8, 32)).train(loader(), None, 2, resume_from=tmp_path / "last.pt")


def test_teacher_and_student_get_the_same_augmented_batch():
    seen = []
    teacher, student = network(9, 32), network()
    for model in (teacher, student):
        model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].clone()))
    mixed = lambda signals, targets: (signals.flip(0), F.one_hot(targets, 3).float())  # noqa: E731
    trainer = distiller(student, teacher, augmentation=mixed)
    assert 0 < trainer.train_epoch(loader(), 0)["soft_loss"] < 100
    assert all(torch.equal(a, b) for a, b in zip(seen[::2], seen[1::2], strict=True))


# -- the cache -----------------------------------------------------------------------------------------


class Indexed(TensorDataset):
    def __getitem__(self, index):
        signals, targets = super().__getitem__(index)
        return signals, targets, {"index": 7 * index}


def indexed(**settings):
    signals, targets, _ = windows()[torch.arange(100)]
    generator = torch.Generator().manual_seed(3)
    return DataLoader(Indexed(signals, targets), batch_size=16, shuffle=True, generator=generator, **settings)


@pytest.mark.parametrize("make", [loader, indexed, lambda **k: list(indexed())], ids=["windows", "index", "list"])
def test_cached_logits_give_the_same_student(make):
    plain, cached, calls = network(), network(), []
    teacher = network(9, 32)
    torch.manual_seed(7)
    expected = distiller(plain, teacher).train(make(drop_last=True), None, 3)
    teacher.register_forward_hook(lambda module, inputs, output: calls.append(len(output)))
    torch.manual_seed(7)
    found = distiller(cached, teacher, cache_teacher=True).train(make(drop_last=True), None, 3)
    assert sum(calls) == 100  # every sample once, including those that an epoch drops
    assert found["train_soft_loss"] == pytest.approx(expected["train_soft_loss"], rel=1e-4)
    for a, b in zip(plain.parameters(), cached.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_cache_is_renewed_for_another_loader():
    student, teacher = network(), network(9, 32)
    trainer = distiller(student, teacher, cache_teacher=True)
    trainer.train_epoch(loader(), 0)
    first = trainer._cached
    trainer.train_epoch()
    assert trainer._cached is first
    trainer.train_epoch(indexed(), 1)
    assert trainer._cached is not first


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ((torch.randn(4, 1, 64), torch.zeros(4).long(), {"rpm": torch.ones(4)}), r"\['rpm'\]"),
        ((torch.randn(4, 1, 64), torch.zeros(4).long(), {"index": torch.tensor([0, 1, 2, 1])}), "the same"),
    ],
    ids=["unnamed", "twice"],
)
def test_rejects_metadata_that_do_not_identify_samples(batch, message):
    with pytest.raises(ValueError, match=message):
        distiller(network(), cache_teacher=True).train([batch], None, 1)


def test_rejects_a_sample_without_cached_logits():
    class Moving:
        """Yields other samples in every epoch, contrary to `cache_teacher`."""

        passes = 0

        def __iter__(self):
            self.passes += 1
            yield torch.randn(4, 1, 64), torch.zeros(4).long(), {"index": 10 * self.passes + torch.arange(4)}

    with pytest.raises(ValueError, match="sample 0 of the batch"):
        distiller(network(), cache_teacher=True).train(Moving(), None, 1)


@pytest.mark.parametrize(
    "other", [{"augmentation": lambda s, t: (s, t)}, {"feature_hints": {"0": "0"}}], ids=["a", "h"]
)
def test_rejects_cache_with_augmentation_or_hints(other):
    with pytest.raises(ValueError, match=f"cache_teacher.*{next(iter(other))}"):
        distiller(network(), cache_teacher=True, **other)


# -- hints ---------------------------------------------------------------------------------------------


def test_hint_loss_by_hand():
    """Equal widths need no projection; the mean squared difference is added with its weight."""
    teacher, student = network(9, dropout=0.0), network(dropout=0.0)
    signals, targets, _ = windows()[torch.arange(16)]
    with torch.no_grad():
        by_hand = (teacher.eval()[:3](signals) - copy.deepcopy(student).train()[:3](signals)).square().mean()
    trainer = distiller(student, teacher, feature_hints={"2": "2"}, hint_weight=0.5)
    metrics = trainer.train_epoch([(signals, targets)], 0)
    assert metrics["hint_loss"] == pytest.approx(by_hand.item(), rel=1e-5)
    expected = 0.7 * metrics["soft_loss"] + 0.3 * metrics["hard_loss"] + 0.5 * metrics["hint_loss"]
    assert metrics["loss"] == pytest.approx(expected, rel=1e-6)
    assert not list(trainer.hints.projections.parameters())
    assert not any(module._forward_hooks for model in (teacher, student) for module in model.modules())


def test_projection_is_trained_with_the_students_schedule():
    student = network()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=28)
    trainer = distiller(student, optimizer=optimizer, feature_hints={"1": "1"}, lr_scheduler=schedule)
    trainer.train_epoch(loader(), 0)
    (weight,) = trainer.hints.projections.parameters()
    assert weight.shape == (32, 8, 1)
    before = weight.clone()
    first = trainer.train_epoch()["hint_loss"]
    assert not torch.equal(before, weight)
    assert len(optimizer.param_groups) == 1
    assert trainer.train_epoch()["hint_loss"] < first


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ({"conv": "1"}, "unknown module of the student 'conv'"),
        ({"1": "9"}, "unknown module of the teacher '9'"),
        ({}, "empty"),
    ],
    ids=["student", "teacher", "empty"],
)
def test_rejects_unknown_modules(pairs, message):
    with pytest.raises(ValueError, match=message):
        distiller(network(), feature_hints=pairs)


def test_rejects_hints_of_different_lengths():
    with pytest.raises(ValueError, match="features have length 28, the teacher's 4"):
        distiller(network(), feature_hints={"1": "4"}).train_epoch(loader(), 0)


@pytest.mark.gpu
def test_on_cuda():
    student, teacher = network(dropout=0.0), network(9, 32)
    cached = distiller(student, teacher, device="cuda", mixed_precision=True, cache_teacher=True)
    history = cached.train(loader(), loader(), 2)
    plain = distiller(network(dropout=0.0), teacher, device="cuda", mixed_precision=True).train(loader(), loader(), 2)
    assert history["train_loss"] == pytest.approx(plain["train_loss"], rel=1e-2)
    assert cached._cached.logits.is_cuda
