"""Precision, schedules, random states, interruption, the list of callbacks."""

import random
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler

from whirl.engine.callbacks import Callback, CallbackList
from whirl.engine.interrupt import finish_batch_on_interrupt
from whirl.engine.precision import choose_precision, cpu_has_bfloat16
from whirl.engine.random_state import get_random_state, set_random_state
from whirl.engine.schedule import scheduler_unit, step_scheduler
from whirl.engine.state import TrainingState

CPU = torch.device("cpu")


def optimizer():
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)


def test_precision_names():
    assert choose_precision(False, CPU).name == "32"
    assert choose_precision("bf16", CPU).name == "bf16"
    assert choose_precision("fp16", CPU).name == "fp16"


def test_mixed_precision_on_a_cpu_is_bf16_only_with_instructions_for_it():
    if cpu_has_bfloat16():
        assert choose_precision(True, CPU).name == "bf16"
    else:
        with pytest.warns(UserWarning, match="single precision"):
            assert choose_precision(True, CPU).name == "32"


def test_bf16_context_computes_in_bf16():
    with choose_precision("bf16", CPU).context():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16


def test_fp16_scaling_gives_the_same_step_as_fp32():
    """The scaler multiplies and divides by the same power of two, so gradients come back exact."""
    weights = []
    for mode in (False, "fp16"):
        weight = torch.nn.Parameter(torch.tensor([2.0]))
        sgd = torch.optim.SGD([weight], lr=0.5)
        precision = choose_precision(mode, CPU)
        precision.backward((weight * 3).sum())
        precision.unscale(sgd)
        precision.step(sgd)
        weights.append(weight.item())
    assert weights == [0.5, 0.5]


def sequence(own, last):
    return lr_scheduler.SequentialLR(own, [lr_scheduler.LinearLR(own, 0.5, total_iters=2), last], [2])


@pytest.mark.parametrize(
    ("make", "unit"),
    [
        (lambda o: lr_scheduler.StepLR(o, 1), "epoch"),
        (lambda o: lr_scheduler.CosineAnnealingLR(o, 5), "epoch"),
        (lambda o: lr_scheduler.OneCycleLR(o, 1.0, 5), "step"),
        (lambda o: lr_scheduler.CyclicLR(o, 0.1, 1.0, cycle_momentum=False), "step"),
        (lambda o: lr_scheduler.ReduceLROnPlateau(o), "validation"),
        (lambda o: lr_scheduler.ChainedScheduler([lr_scheduler.OneCycleLR(o, 1.0, 5)]), "step"),
        (lambda o: sequence(o, lr_scheduler.CosineAnnealingLR(o, 4)), "epoch"),
    ],
)
def test_schedulers_know_their_unit(make, unit):
    assert scheduler_unit(make(optimizer())) == unit


def test_a_scheduler_may_say_its_unit_itself():
    scheduler = lr_scheduler.LambdaLR(optimizer(), lambda step: 1.0)
    scheduler.step_unit = "step"
    assert scheduler_unit(scheduler) == "step"
    scheduler.step_unit = "fortnight"
    with pytest.raises(ValueError, match="fortnight"):
        scheduler_unit(scheduler)


def test_parts_of_different_units_need_a_word():
    own = optimizer()
    scheduler = sequence(own, lr_scheduler.OneCycleLR(own, 1.0, 5))
    with pytest.raises(ValueError, match="LinearLR per epoch, OneCycleLR per step: give it an attribute step_unit"):
        scheduler_unit(scheduler)
    scheduler.step_unit = "step"
    assert scheduler_unit(scheduler) == "step"


def test_one_cycle_holds_its_last_value_after_its_end():
    own = optimizer()
    scheduler = lr_scheduler.OneCycleLR(own, max_lr=1.0, total_steps=4)
    rates = []
    for _ in range(6):
        own.step()
        step_scheduler(scheduler)
        rates.append(scheduler.get_last_lr()[0])
    assert rates[2] == rates[3] == rates[5] == pytest.approx(1.0 / 25 / 1e4)


def test_cosine_holds_its_last_value_after_its_end():
    own = optimizer()
    scheduler = lr_scheduler.CosineAnnealingLR(own, T_max=3, eta_min=0.01)
    rates = []
    for _ in range(7):
        own.step()
        step_scheduler(scheduler)
        rates.append(scheduler.get_last_lr()[0])
    assert rates[2:] == pytest.approx([0.01] * 5)


def rates_over_epochs(own, scheduler, n_epochs):
    rates = []
    for _ in range(n_epochs):
        rates.append(own.param_groups[0]["lr"])
        own.step()
        step_scheduler(scheduler)
    assert scheduler.get_last_lr() == [own.param_groups[0]["lr"]]
    return rates


def test_the_last_of_a_sequence_holds_its_value():
    own = optimizer()
    own.param_groups[0]["lr"] = 1.0
    rates = rates_over_epochs(own, sequence(own, lr_scheduler.CosineAnnealingLR(own, 2)), 8)
    assert rates == pytest.approx([0.5, 0.75, 1.0, 0.5, 0, 0, 0, 0])


def test_a_part_of_a_chain_holds_its_value_while_another_moves_on():
    own = optimizer()
    own.param_groups[0]["lr"] = 1.0
    parts = [lr_scheduler.CosineAnnealingLR(own, 2, eta_min=0.5), lr_scheduler.StepLR(own, 4)]
    rates = rates_over_epochs(own, lr_scheduler.ChainedScheduler(parts), 9)
    assert rates == pytest.approx([1.0, 0.75, 0.5, 0.5, 0.05, 0.05, 0.05, 0.05, 0.005])


def test_plateau_takes_the_metric_of_its_mode():
    own = optimizer()
    plateau = lr_scheduler.ReduceLROnPlateau(own, mode="max", patience=0, factor=0.5)
    for accuracy in (0.5, 0.4):
        step_scheduler(plateau, {"val_loss": 1.0, "val_accuracy": accuracy})
    assert own.param_groups[0]["lr"] == 0.5
    with pytest.raises(ValueError, match="val_accuracy"):
        step_scheduler(plateau, {"train_loss": 1.0})


def test_random_states_of_all_three_generators_and_of_a_loader():
    loader = torch.utils.data.DataLoader(list(range(8)), shuffle=True, generator=torch.Generator().manual_seed(1))

    def draw():
        return random.random(), np.random.rand(), torch.rand(1).item(), [int(x) for x in loader]  # noqa: NPY002

    state = get_random_state(loader)
    first = draw()
    assert draw() != first
    set_random_state(state, loader)
    assert draw() == first


@pytest.mark.skipif(not torch.mps.is_available(), reason="needs Apple's MPS")
def test_the_random_state_of_mps_is_kept():
    state = get_random_state()
    first = torch.rand(3, device="mps").cpu()
    set_random_state(state)
    assert torch.equal(torch.rand(3, device="mps").cpu(), first)


def test_random_states_of_a_checkpoint_without_mps_are_taken():
    state = get_random_state()
    first = torch.rand(3)
    del state["mps"]
    set_random_state(state)
    assert torch.equal(torch.rand(3), first)


def test_random_states_survive_a_checkpoint_file(tmp_path):
    from whirl.engine.files import load_checkpoint_file, save_checkpoint_file

    save_checkpoint_file(tmp_path / "r.pt", get_random_state())
    first = (random.random(), np.random.rand(), torch.rand(1).item())  # noqa: NPY002
    set_random_state(load_checkpoint_file(tmp_path / "r.pt"))
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == first  # noqa: NPY002


def test_a_second_interrupt_stops_at_once():
    state = TrainingState()
    with pytest.raises(KeyboardInterrupt), finish_batch_on_interrupt(state):
        signal.raise_signal(signal.SIGINT)
        assert state.interrupted
        signal.raise_signal(signal.SIGINT)


def test_the_handler_before_comes_back():
    before = signal.getsignal(signal.SIGINT)
    with finish_batch_on_interrupt(TrainingState()):
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


def test_outside_the_main_thread_nothing_is_handled():
    failures = []

    def work():
        try:
            with finish_batch_on_interrupt(TrainingState()):
                pass
        except ValueError as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert failures == []


def test_nothing_is_handled_on_import():
    code = (
        "import signal; before = signal.getsignal(signal.SIGINT); import whirl.engine.interrupt; "
        "assert signal.getsignal(signal.SIGINT) is before"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


class Counter(Callback):
    def __init__(self):
        self.count = 0

    def on_epoch_end(self, epoch, logs=None):
        self.count += 1

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


def test_a_list_of_callbacks_keeps_its_members_states_apart():
    first = CallbackList([Counter(), Callback(), Counter()])
    first.callbacks[2].on_epoch_end(0)
    second = CallbackList([Counter(), Counter()])
    second.load_state_dict(first.state_dict())
    assert [member.count for member in second] == [0, 1]


def test_a_state_without_its_callback_is_an_error():
    with pytest.raises(ValueError, match="Counter:0"):
        CallbackList([Callback()]).load_state_dict(CallbackList([Counter()]).state_dict())


def test_the_members_of_a_nested_list_know_their_trainer():
    member = Counter()
    outer = CallbackList([CallbackList([member])])
    outer.set_trainer("trainer")
    assert member.trainer == "trainer"
    assert list(outer) == [member]


def test_all_members_hear_of_the_end_although_one_fails():
    heard = []

    class Ends(Callback):
        def __init__(self, error=None):
            self.error = error

        def on_train_end(self, logs=None):
            heard.append(self)
            if self.error:
                raise self.error

    with pytest.raises(OSError, match="disk"):
        CallbackList([Ends(), Ends(OSError("disk")), Ends()]).on_train_end()
    assert len(heard) == 3


def test_only_overridden_hooks_are_listened_to():
    callbacks = CallbackList([Counter()])
    assert callbacks.has_hook("on_epoch_end")
    assert not callbacks.has_hook("on_batch_end")
    assert len(callbacks) == 1
