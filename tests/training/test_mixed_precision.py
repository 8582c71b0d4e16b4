"""MixedPrecisionTrainer: equal to Trainer and to a plain loop, skipped overflows; TensorFloat-32 set and restored."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from whirl.training.mixed_precision import (
    MixedPrecisionTrainer,
    check_mixed_precision_support,
    enable_mixed_precision,
)
from whirl.training.trainer import Trainer


def make_data(n=52):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, 1, 32, generator=generator), torch.randint(3, (n,), generator=generator)


def make_loader():
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*make_data()), batch_size=8)  # the last one of 4


def make_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(1, 8, 5), nn.BatchNorm1d(8), nn.ReLU(), nn.Flatten(), nn.Linear(224, 3))


def adamw(model, fused=True):
    return torch.optim.AdamW(model.parameters(), lr=1e-2, fused=fused)


def same(first, second):
    return all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def make_trainer(model, optimizer=None, criterion=None, **options):
    return MixedPrecisionTrainer(model, make_loader(), optimizer or adamw(model), criterion, "cpu", **options)


@pytest.mark.parametrize(("precision", "mixed"), [("32", False), ("bf16", "bf16"), ("fp16", "fp16")])
def test_equals_trainer_exactly(precision, mixed):
    ours, theirs = make_model(), make_model()
    trainer = make_trainer(ours, precision=precision, val_loader=make_loader(), gradient_accumulation_steps=2)
    plain = Trainer(
        theirs,
        make_loader(),
        make_loader(),
        adamw(theirs),
        device="cpu",
        gradient_accumulation_steps=2,
        mixed_precision=mixed,
    )
    history, expected = trainer.fit(2), plain.fit(2)
    assert same(ours, theirs)
    assert history["val_loss"] == expected["val_loss"]
    assert (trainer.scaler is None) == (precision != "fp16")


@pytest.mark.parametrize("fused", [False, True])
def test_equals_a_plain_loop_with_a_scaler(fused):
    """With overflows at the start, later growth, and a schedule that counts the steps taken."""
    model, plain = make_model(), make_model()
    optimizer, plain_optimizer = adamw(model, fused), adamw(plain, fused)
    one_cycle = torch.optim.lr_scheduler.OneCycleLR
    trainer = make_trainer(
        model,
        optimizer,
        nn.CrossEntropyLoss(),
        precision="fp16",
        init_scale=2.0**24,
        growth_interval=4,
        lr_scheduler=one_cycle(optimizer, 0.05, total_steps=21),
    )
    history = trainer.fit(3)

    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24, growth_interval=4)
    schedule, taken = one_cycle(plain_optimizer, 0.05, total_steps=21), 0
    for signals, targets in list(make_loader()) * 3:
        plain_optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            loss = F.cross_entropy(plain(signals), targets)
        scaler.scale(loss).backward()
        scaler.unscale_(plain_optimizer)
        nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        scale = scaler.get_scale()
        scaler.step(plain_optimizer)
        scaler.update()
        if scaler.get_scale() >= scale:
            schedule.step()
            taken += 1

    assert 0 < taken < 21
    assert same(model, plain)
    assert trainer.scaler.state_dict() == scaler.state_dict()
    assert trainer.skipped_steps == 21 - taken
    assert trainer.state.global_step == taken
    assert trainer.lr_scheduler.get_last_lr() == schedule.get_last_lr()
    assert history["skipped_steps"][-1] == 21 - taken
    assert history["scale"][-1] == scaler.get_scale()


def test_skips_overflows():
    """A loss of 1e30 is finite, its float16 gradient is not: seven steps halve the scale and change no weight."""
    model = make_model()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    trainer = make_trainer(
        model, None, lambda logits, targets: F.cross_entropy(logits, targets) * 1e30, precision="fp16"
    )
    history = trainer.fit(1)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert trainer.scaler.get_scale() == 2.0**16 / 2**7
    assert history["skipped_steps"] == [7]
    assert history["scale"] == [2.0**9]
    assert trainer.state.global_step == 0


def test_resume_keeps_scale_and_growth(tmp_path):
    settings = {"precision": "fp16", "init_scale": 2.0**24, "growth_interval": 10}
    uninterrupted = make_trainer(make_model(), **settings)
    uninterrupted.fit(4)
    half = make_trainer(make_model(), checkpoint_dir=tmp_path, **settings)
    half.fit(2)
    assert half.scaler.state_dict()["_growth_tracker"] != 0
    rest = make_trainer(make_model(), precision="fp16")
    history = rest.fit(4, resume_from=tmp_path / "last.pt")
    assert uninterrupted.skipped_steps > 0
    assert rest.scaler.state_dict() == uninterrupted.scaler.state_dict()
    assert rest.skipped_steps == uninterrupted.skipped_steps
    assert same(rest.model, uninterrupted.model)
    assert {name: history[name] for name in ("scale", "skipped_steps")} == {
        name: uninterrupted.state.history[name] for name in ("scale", "skipped_steps")
    }


def test_logs_no_scale_without_a_scaler():
    trainer = make_trainer(make_model(), precision="bf16")
    assert not {"scale", "skipped_steps"} & set(trainer.fit(1))
    assert trainer.skipped_steps == 0


@pytest.mark.parametrize("has_bf16", [True, False])
def test_auto_selects_what_the_cpu_supports(has_bf16, monkeypatch, recwarn):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": has_bf16})
    trainer = make_trainer(make_model())
    assert trainer.precision.name == ("bf16" if has_bf16 else "32")
    assert check_mixed_precision_support("cpu") is has_bf16
    assert len(recwarn) == (0 if has_bf16 else 1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_absent_device_warns_once():
    model = make_model()
    with pytest.warns(UserWarning, match="training on the CPU") as caught:
        trainer = MixedPrecisionTrainer(model, make_loader(), adamw(model), nn.CrossEntropyLoss(), precision="32")
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert trainer.device == torch.device("cpu")


def test_rejects_invalid_arguments():
    with pytest.raises(ValueError, match="precision is 'fp8'"):
        make_trainer(make_model(), precision="fp8")
    with pytest.raises(ValueError, match=r"growth_factor is 0\.5"):
        make_trainer(make_model(), growth_factor=0.5)
    with pytest.raises(TypeError, match="val_laoder"):
        make_trainer(make_model(), precision="32", val_laoder=None)


def test_support_of_devices(capsys):
    assert check_mixed_precision_support("cuda") == torch.cuda.is_available()
    assert check_mixed_precision_support("cuda:99") is False
    assert check_mixed_precision_support(torch.device("meta")) is False
    assert check_mixed_precision_support() == check_mixed_precision_support("auto")
    with pytest.raises(ValueError, match="unknown device 'abacus'"):
        check_mixed_precision_support("abacus")
    assert capsys.readouterr() == ("", "")


# -- TensorFloat-32 ------------------------------------------------------------------------------------

backends = torch.backends


def settings():
    return [backends.cuda.matmul.fp32_precision, backends.cudnn.conv.fp32_precision, backends.cudnn.rnn.fp32_precision]


@pytest.fixture
def single_precision():
    before = settings()
    backends.cuda.matmul.fp32_precision = backends.cudnn.conv.fp32_precision = "ieee"
    yield
    for owner, value in zip((backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn), before, strict=True):
        owner.fp32_precision = value


def test_tf32_is_restored_after_the_block(single_precision):
    before = settings()
    with enable_mixed_precision() as changes:
        assert settings() == ["tf32"] * 3
        assert changes.changed["torch.backends.cuda.matmul.fp32_precision"] == ("ieee", "tf32")
        assert "torch.backends.cudnn.conv.fp32_precision: ieee -> tf32" in str(changes)
        with enable_mixed_precision() as nothing:
            assert str(nothing) == "nothing changed"
        assert settings() == ["tf32"] * 3
    assert settings() == before
    assert not changes.changed


def test_tf32_is_restored_by_undo(single_precision):
    before = settings()
    changes = enable_mixed_precision()
    assert settings() == ["tf32"] * 3
    changes.undo()
    assert settings() == before
    backends.cudnn.conv.fp32_precision = "tf32"
    changes.undo()  # nothing is left to restore
    assert backends.cudnn.conv.fp32_precision == "tf32"


def test_tf32_is_restored_after_an_error(single_precision):
    before = settings()
    with pytest.raises(KeyError), enable_mixed_precision():
        raise KeyError
    assert settings() == before


def test_old_flags_can_be_read_afterwards():
    with enable_mixed_precision():
        pass
    assert torch.get_float32_matmul_precision() == "highest"
    assert backends.cuda.matmul.allow_tf32 is False
    assert backends.cudnn.allow_tf32 is True


# -- on a GPU ------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("fused", [False, True])
def test_skips_overflows_on_cuda(fused):
    model = make_model().cuda()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = adamw(model, fused)
    trainer = MixedPrecisionTrainer(
        model, make_loader(), optimizer, lambda logits, targets: F.cross_entropy(logits, targets) * 1e30
    )
    history = trainer.fit(1)
    assert trainer.precision.name == "fp16"
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert (history["scale"], history["skipped_steps"], trainer.state.global_step) == ([2.0**9], [7], 0)
    trainer.criterion = nn.CrossEntropyLoss()
    trainer.fit(1)
    assert trainer.state.global_step == 7
    assert not all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.gpu
def test_support_allocates_nothing_on_cuda():
    allocated = torch.cuda.memory_allocated()
    assert check_mixed_precision_support()
    assert torch.cuda.memory_allocated() == allocated


@pytest.mark.gpu
def test_tf32_rounds_products_on_cuda(single_precision):
    torch.manual_seed(0)
    a, b = torch.randn(2, 512, 512, device="cuda")
    exact = a.double() @ b.double()
    error = lambda: ((a @ b).double() - exact).abs().max().item()  # noqa: E731
    single = error()
    with enable_mixed_precision():
        if torch.cuda.get_device_capability() >= (8, 0):
            assert error() > 20 * single
    assert error() == single
