"""SpectrogramTrainer and MultiTFRTrainer: statistics of masks, comparison with simpler loops, exact resume."""

import math
import warnings

import pytest
import torch
from scipy.stats import chisquare
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from whirl.data.loaders import make_loader
from whirl.dsp.time_frequency import TimeFrequency
from whirl.engine.callbacks import Callback
from whirl.models.cnn2d import CNN2d
from whirl.models.multi_tfr import MultiTFR
from whirl.models.time_frequency import TimeFrequencyNetwork
from whirl.training.spectrogram_trainer import (
    InterleavedLoaders,
    MultiTFRTrainer,
    SpectrogramTrainer,
    load_representation,
    mask_params,
)
from whirl.training.trainer import Trainer

KINDS = ("stft", "cwt")
SMALL = {"device": "cpu", "time_mask_param": 6, "freq_mask_param": 4}


def data(n=20, seed=1, shape=(1, 16, 24)):
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, 3, (n,), generator=generator)
    maps = torch.randn(n, *shape, generator=generator) + targets.view(-1, *[1] * len(shape))
    return TensorDataset(maps, targets)


def loader(n=20, seed=1, shuffle=True, generator=None, shape=(1, 16, 24), batch_size=8):
    return DataLoader(data(n, seed, shape), batch_size=batch_size, shuffle=shuffle, generator=generator)


def network(seed=0):
    torch.manual_seed(seed)
    return CNN2d(3)


def pair(seed=0):
    torch.manual_seed(seed)
    return MultiTFR({kind: TimeFrequency(kind, 1000, 16, 16) for kind in KINDS}, {kind: CNN2d(3) for kind in KINDS})


def weights(model):
    return torch.cat([value.detach().flatten().double() for value in model.state_dict().values()])


def fitted(make, epochs=2, seed=7):
    torch.manual_seed(seed)
    trainer = make()
    torch.manual_seed(seed)
    trainer.fit(epochs)
    return weights(trainer.model)


def masker(**settings):
    return SpectrogramTrainer(
        nn.Identity(), [], None, torch.optim.SGD([nn.Parameter(torch.ones(1))]), device="cpu", **settings
    )


# -- SpecAugment ---------------------------------------------------------------------------------------


def masked_share(length, widest, count):
    """Expected fraction of an axis that `count` masks cover: a position is open if no mask covers it."""
    widest = min(widest, length)
    places = []
    for place in range(length):
        hits = [
            sum(start <= place < start + width for start in range(length - width + 1)) / (length - width + 1)
            for width in range(widest + 1)
        ]
        places.append(1 - (1 - sum(hits) / len(hits)) ** count)
    return sum(places) / length


@pytest.mark.parametrize(
    ("n_frequencies", "n_times", "freq", "time", "n_freq", "n_time"),
    [(16, 24, 4, 6, 2, 2), (16, 24, 40, 40, 1, 2), (12, 8, 3, 0, 3, 1), (12, 8, 3, 2, 0, 1)],
)
def test_masked_share_has_the_expected_value(n_frequencies, n_times, freq, time, n_freq, n_time):
    torch.manual_seed(0)
    trainer = masker(time_mask_param=time, freq_mask_param=freq, num_time_masks=n_time, num_freq_masks=n_freq)
    shares = (trainer.apply_specaugment(torch.ones(6_000, 1, n_frequencies, n_times)) == 0).double().mean((1, 2, 3))
    open_rows, open_columns = (
        1 - masked_share(length, widest, count)
        for length, widest, count in ((n_frequencies, freq, n_freq), (n_times, time, n_time))
    )
    # within 3.3 standard errors: one in a thousand; the seed is fixed
    assert shares.mean().item() == pytest.approx(
        1 - open_rows * open_columns, abs=3.3 * shares.std().item() / math.sqrt(6_000)
    )


def test_widths_are_uniform():
    torch.manual_seed(1)
    for axis, settings in (
        (2, {"num_time_masks": 0, "freq_mask_param": 5}),
        (3, {"num_freq_masks": 0, "time_mask_param": 5}),
    ):
        trainer = masker(**{"num_time_masks": 1, "num_freq_masks": 1} | settings)
        masked = trainer.apply_specaugment(torch.ones(10_000, 1, 12, 12)) == 0
        widths = masked.sum(axis).amax((1, 2))
        assert widths.max() == 5
        assert chisquare(torch.bincount(widths, minlength=6)).pvalue > 0.01


def test_mask_is_not_wider_than_parameter_or_axis():
    trainer = masker(time_mask_param=100, freq_mask_param=3, num_time_masks=1, num_freq_masks=1)
    masked = trainer.apply_specaugment(torch.ones(2000, 1, 8, 5)) == 0
    rows, columns = masked.all(3).sum(2), masked.all(2).sum(2)
    assert columns.max() == 5
    assert rows[columns < 5].max() == 3


def test_samples_have_different_masks_and_channels_the_same():
    torch.manual_seed(2)
    masked = masker().apply_specaugment(torch.ones(50, 3, 128, 256)) == 0
    assert len(masked[:, 0].flatten(1).unique(dim=0)) == 50
    assert torch.equal(masked[:, 0], masked[:, 2])


@pytest.mark.parametrize("value", [0.0, -80.0, "mean"])
def test_mask_value(value):
    maps = torch.randn(6, 2, 16, 24)
    before = maps.clone()
    masked = masker(mask_value=value, time_mask_param=6, freq_mask_param=4).apply_specaugment(maps)
    changed = masked != maps
    filling = maps.mean((2, 3), keepdim=True).expand_as(maps) if value == "mean" else torch.full_like(maps, value)
    assert changed.any()
    assert torch.equal(masked[changed], filling[changed])
    assert torch.equal(maps, before)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"time_mask_param": -1}, "time_mask_param is -1, expected an integer"),
        ({"num_freq_masks": 1.5}, "num_freq_masks is 1.5"),
        ({"mask_value": "median"}, "mask_value is 'median', expected a number or 'mean'"),
        ({"mask_value": math.nan}, "mask_value is nan"),
    ],
)
def test_rejects_invalid_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        SpectrogramTrainer(network(), [], device="cpu", **settings)


def test_rejects_unknown_keywords_and_shapes():
    with pytest.raises(TypeError, match="mask_param"):
        SpectrogramTrainer(network(), [], device="cpu", mask_param=3)
    with pytest.raises(ValueError, match=r"spectrograms have shape \[2, 16, 24\]"):
        masker().apply_specaugment(torch.ones(2, 16, 24))


# -- SpectrogramTrainer --------------------------------------------------------------------------------


def test_without_specaugment_equals_trainer_exactly():
    plain = fitted(lambda: Trainer(network(), loader(), loader(), device="cpu"))
    ours = fitted(lambda: SpectrogramTrainer(network(), loader(), loader(), use_specaugment=False, **SMALL))
    masked = fitted(lambda: SpectrogramTrainer(network(), loader(), loader(), **SMALL))
    assert torch.equal(ours, plain)
    assert not torch.equal(masked, plain)


def test_computes_maps_of_signals():
    signals = {"shape": (1, 256)}

    def model():
        return TimeFrequencyNetwork(TimeFrequency("stft", 1000, 16, 16), network())

    plain = fitted(lambda: Trainer(model(), loader(**signals), loader(**signals), device="cpu"))
    ours = fitted(
        lambda: SpectrogramTrainer(model(), loader(**signals), loader(**signals), use_specaugment=False, **SMALL)
    )
    assert torch.equal(ours, plain)
    trainer = SpectrogramTrainer(model(), loader(**signals), **SMALL)
    trainer.model.train()
    batch = trainer.prepare_batch(next(iter(trainer.train_loader)))
    assert batch.signals.shape == (8, 1, 16, 16)
    assert (batch.signals == 0).any()


def test_masks_nothing_in_evaluation():
    trainer = SpectrogramTrainer(network(), loader(), loader(shuffle=False), **SMALL)
    trainer.model.eval()
    state = torch.get_rng_state()
    maps, targets = trainer.val_loader.dataset.tensors
    assert torch.equal(trainer.prepare_batch((maps, targets)).signals, maps)
    assert torch.equal(torch.get_rng_state(), state)
    assert "masked_share" not in trainer.validate_epoch()


def test_logs_the_masked_share():
    trainer = SpectrogramTrainer(network(), [next(iter(loader(batch_size=20)))], **SMALL)
    seen = []
    trainer.model.register_forward_pre_hook(lambda module, inputs: seen.append((inputs[0] == 0).float().mean().item()))
    assert trainer.train_epoch()["masked_share"] == pytest.approx(seen[0], rel=1e-6)


def test_checkpoint_has_the_representation(tmp_path):
    def trainer(folder, kind="stft"):
        model = TimeFrequencyNetwork(TimeFrequency(kind, 1000, 16, 16, scale="magnitude"), network())
        return SpectrogramTrainer(model, loader(shape=(1, 256)), checkpoint_dir=folder, **SMALL)

    saved = trainer(tmp_path)
    saved.fit(1)
    assert load_representation(tmp_path / "last.pt").config == saved.representation.config
    with pytest.raises(ValueError, match=r"last\.pt: does not fit this trainer: its representation is .*stft"):
        trainer(None, "cwt").load_checkpoint(tmp_path / "last.pt")
    SpectrogramTrainer(network(), loader(), checkpoint_dir=tmp_path / "maps", **SMALL).fit(1)
    assert load_representation(tmp_path / "maps" / "last.pt") is None
    Trainer(network(), loader(), device="cpu", checkpoint_dir=tmp_path / "plain").fit(1)
    with pytest.raises(ValueError, match="of another trainer"):
        load_representation(tmp_path / "plain" / "last.pt")


class InterruptAt(Callback):
    def __init__(self, epoch, batch):
        self.at = (epoch, batch)

    def on_batch_end(self, batch, logs=None):
        if (self.trainer.state.epoch, batch) == self.at:
            self.trainer.state.interrupted = True


def loaders(form):
    generators = [torch.Generator().manual_seed(s) if form == "generator" else None for s in (5, 6)]
    if form == "own":
        return {
            name: make_loader(Sliced(data(n, seed)), 8, shuffle=True, seed=seed)
            for name, n, seed in (("stft", 20, 1), ("cwt", 36, 2))
        }
    return {"stft": loader(20, 1, generator=generators[0]), "cwt": loader(36, 2, generator=generators[1])}


class Sliced(TensorDataset):
    """Returns a batch for a tensor of indices, as `WindowDataset` does."""

    def __init__(self, base):
        super().__init__(*base.tensors)


@pytest.mark.parametrize("at", [(0, 0), (1, 4)])
@pytest.mark.parametrize("form", ["plain", "generator", "own", "one loader"])
def test_resume_matches_uninterrupted_run(tmp_path, form, at):
    def make(folder, callbacks=()):
        settings = {"checkpoint_dir": folder, "callbacks": list(callbacks), **SMALL}
        torch.manual_seed(11)
        if form == "one loader":
            return SpectrogramTrainer(network(), loader(64), loader(shuffle=False), **settings)
        validation = {name: loader(shuffle=False) for name in KINDS}
        return MultiTFRTrainer(network(), loaders(form), validation, {"stft": 1, "cwt": 2}, **settings)

    uninterrupted = make(tmp_path / "uninterrupted")
    torch.manual_seed(21)
    expected = uninterrupted.fit(2)
    interrupted = make(tmp_path / "interrupted", [InterruptAt(*at)])
    torch.manual_seed(21)
    interrupted.fit(2)
    assert interrupted.state.epoch == at[0]
    left = torch.get_rng_state()
    resumed = make(tmp_path / "interrupted")
    torch.manual_seed(99)
    history = resumed.fit(2, resume_from=tmp_path / "interrupted" / "last.pt")
    assert torch.equal(weights(uninterrupted.model), weights(resumed.model))
    for name in set(expected) - {"epoch_time_s"}:
        assert history[name] == expected[name], name
    # the interrupted trainer itself can continue, too
    interrupted.state.interrupted = False
    torch.set_rng_state(left)
    interrupted.fit(2 - interrupted.state.epoch)
    assert torch.equal(weights(uninterrupted.model), weights(interrupted.model))


# -- several representations ---------------------------------------------------------------------------


def test_interleaves_batches_in_proportion():
    loaders = InterleavedLoaders({"a": range(6), "b": range(3), "c": range(1)})
    # a at 1/12, 3/12, ... 11/12; b at 2/12, 6/12, 10/12; c at 6/12
    assert "".join(name for name, _ in loaders) == "".join(loaders.order()) == "abaabcaaba"
    assert len(loaders) == 10
    for name, n in (("a", 6), ("b", 3), ("c", 1)):
        assert [batch for of, batch in loaders if of == name] == list(range(n))
    # after any number of batches each loader is within one batch of its share
    done = {"a": 0, "b": 0, "c": 0}
    for i, name in enumerate(loaders.order(), start=1):
        done[name] += 1
        assert all(abs(done[of] - i * n / 10) < 1 for of, n in (("a", 6), ("b", 3), ("c", 1)))


def test_rejects_loaders_that_cannot_be_interleaved():
    with pytest.raises(TypeError, match="'a' has no length"):
        InterleavedLoaders({"a": iter([1])})
    with pytest.raises(ValueError, match="'a' has no batch"):
        InterleavedLoaders({"a": []})
    with pytest.raises(ValueError, match="there is no loader"):
        InterleavedLoaders({})


def test_single_loader_equals_trainer_exactly():
    def settings():
        return {"gradient_accumulation_steps": 2, "use_specaugment": False, **SMALL}

    plain = fitted(lambda: Trainer(network(), loader(), loader(), device="cpu", gradient_accumulation_steps=2))
    for weight in (1, 0.3):
        ours = fitted(
            lambda w=weight: MultiTFRTrainer(network(), {"x": loader()}, {"x": loader()}, {"x": w}, **settings())
        )
        assert torch.equal(ours, plain)
    masked = fitted(lambda: SpectrogramTrainer(network(), loader(), loader(), **SMALL))
    assert torch.equal(fitted(lambda: MultiTFRTrainer(network(), {"x": loader()}, {"x": loader()}, **SMALL)), masked)


@pytest.mark.parametrize("steps", [1, 3])
def test_equals_a_plain_loop(steps):
    """Batches of unequal size; the gradient of a window is the sample-weighted mean of the weighted losses."""
    batches = {"a": list(loader(20, 1, shuffle=False)), "b": list(loader(12, 2, shuffle=False))}  # 8 8 4, 8 4
    order = [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2)]
    factors = {"a": 0.5, "b": 1.5}
    plain, ours = network().double(), network().double()
    plain.classifier[1].p = ours.classifier[1].p = 0.0
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    plain.train()
    for begin in range(0, len(order), steps):
        window = [(name, *batches[name][j]) for name, j in order[begin : begin + steps]]
        losses = [factors[n] * len(y) * nn.functional.cross_entropy(plain(x.double()), y) for n, x, y in window]
        optimizer.zero_grad()
        (sum(losses) / sum(len(y) for _, _, y in window)).backward()
        optimizer.step()
    doubled = {name: [(maps.double(), targets) for maps, targets in part] for name, part in batches.items()}
    MultiTFRTrainer(
        ours,
        doubled,
        None,
        {"a": 1, "b": 3},
        optimizer=torch.optim.SGD(ours.parameters(), lr=0.1),
        device="cpu",
        use_specaugment=False,
        gradient_accumulation_steps=steps,
        max_grad_norm=None,
    ).fit(1)
    torch.testing.assert_close(weights(ours), weights(plain), rtol=1e-10, atol=1e-12)


def test_metrics_of_each_representation_and_of_all():
    parts = {"a": loader(20, 1, shuffle=False), "b": loader(12, 2, shuffle=False)}
    trainer = MultiTFRTrainer(network(), parts, parts, {"a": 1, "b": 3}, **SMALL)
    history = trainer.fit(1)
    for part in ("train", "val"):
        names = {f"{part}_{name}" for name in ("loss", "accuracy", "a_loss", "a_accuracy", "b_loss", "b_accuracy")}
        assert names <= set(history)
        for metric in ("loss", "accuracy"):
            a, b = history[f"{part}_a_{metric}"][0], history[f"{part}_b_{metric}"][0]
            assert history[f"{part}_{metric}"][0] == pytest.approx((a + 3 * b) / 4)
    trainer.model.eval()
    for name, part in parts.items():
        maps, targets = part.dataset.tensors
        logits = trainer.model(maps).detach()
        assert history[f"val_{name}_accuracy"][0] == pytest.approx((logits.argmax(1) == targets).float().mean().item())
        expected = nn.functional.cross_entropy(logits, targets).item()
        assert history[f"val_{name}_loss"][0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("precision", [False, "bf16"])
def test_signals_go_to_the_representation_of_their_loader(precision):
    signals = loader(16, 1, shuffle=False, shape=(1, 256))
    model = pair()
    before = {kind: weights(model.members[kind]) for kind in KINDS}
    trainer = MultiTFRTrainer(model, {"cwt": signals}, {"cwt": signals}, mixed_precision=precision, **SMALL)
    trainer.fit(1)
    assert torch.equal(weights(model.members["stft"]), before["stft"])
    assert not torch.equal(weights(model.members["cwt"]), before["cwt"])
    both = dict.fromkeys(KINDS, signals)
    history = MultiTFRTrainer(model, both, both, mixed_precision=precision, **SMALL).fit(2)
    assert all(math.isfinite(history[f"{part}_{kind}_loss"][-1]) for part in ("train", "val") for kind in KINDS)
    assert trainer.representation["cwt"].config["kind"] == "cwt"


def test_checkpoint_has_several_representations(tmp_path):
    signals = {kind: loader(8, 1, shape=(1, 256)) for kind in KINDS}
    trainer = MultiTFRTrainer(pair(), signals, None, checkpoint_dir=tmp_path, **SMALL)
    trainer.fit(1)
    again = load_representation(tmp_path / "last.pt")
    assert {kind: made.config for kind, made in again.items()} == {
        k: m.config for k, m in trainer.representation.items()
    }


def test_rejects_invalid_names_and_weights():
    one = {"a": loader()}
    with pytest.raises(ValueError, match=r"val_loaders has the names \['b'\], but train_loaders has \['a'\]"):
        MultiTFRTrainer(network(), one, {"b": loader()}, device="cpu")
    with pytest.raises(ValueError, match=r"tfr_weights has the names \['b'\]"):
        MultiTFRTrainer(network(), one, None, {"b": 1.0}, device="cpu")
    with pytest.raises(ValueError, match=r"tfr_weights has the names \[\]"):
        MultiTFRTrainer(network(), one, None, {}, device="cpu")
    for wrong in ([loader()], loader(), None):
        with pytest.raises(TypeError, match=r"train_loaders is a .*, expected a mapping"):
            MultiTFRTrainer(network(), wrong, None, device="cpu")
    with pytest.raises(TypeError, match="tfr_weights is a list, expected a mapping"):
        MultiTFRTrainer(network(), one, None, [1.0], device="cpu")
    for weight in (0, -1, math.nan, "1"):
        with pytest.raises(ValueError, match=f"the weight of 'a' is {weight!r}"):
            MultiTFRTrainer(network(), one, None, {"a": weight}, device="cpu")
    with pytest.raises(
        ValueError, match=r"train_loaders has the names \['a'\], but the network's maps are \['cwt', 'stft'\]"
    ):
        MultiTFRTrainer(pair(), one, None, device="cpu")
    with pytest.raises(TypeError, match="tfr_weight"):
        MultiTFRTrainer(network(), one, None, device="cpu", tfr_weight={})


def test_mask_params_of_small_maps():
    assert mask_params(128, 256) == {"freq_mask_param": 20, "time_mask_param": 40}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SpectrogramTrainer(network(), [], device="cpu", **mask_params(16, 24))


@pytest.mark.gpu
def test_trains_on_a_gpu_in_float16():
    parts = {kind: loader(16, shape=(1, 256)) for kind in KINDS}
    trainer = MultiTFRTrainer(pair(), parts, parts, device="cuda", mixed_precision=True)
    assert math.isfinite(trainer.fit(2)["val_loss"][-1])
