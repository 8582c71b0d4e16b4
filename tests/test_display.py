"""Text and HTML representations of objects: values, escaping, and that no samples are read."""

import copy
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from torch import nn

from whirl._display import Displayed, cell, format_facts, html_table
from whirl.data.loaders import make_loader
from whirl.data.recording import Recording
from whirl.data.splits import Split
from whirl.data.windows import WindowDataset
from whirl.engine.history import History
from whirl.training.trainer import Trainer

SCRIPT = "<script>alert('1')</script>&amp;\"\0\udcff\u202e轴承"


def recording(label="ball", specimen="machine 1", n_samples=12_000, **fields):
    signal = np.random.default_rng(0).standard_normal((2, n_samples))
    return Recording(signal, 12_000, ("DE", "FE"), label=label, specimen=specimen, rpm=1797, **fields)


def split():
    recordings = [recording(label, f"{label} {i}") for label in ("ball", "healthy") for i in range(3)]
    return Split(recordings[:1] + recordings[3:5], recordings[1:2], recordings[2:3], "specimen", "recording")


def dataset():
    return WindowDataset([recording(), recording("healthy")], ("ball", "healthy"), 2048, hop=1024)


def trainer(**options):
    model = nn.Sequential(nn.Flatten(), nn.Linear(2 * 2048, 2))
    return Trainer(model, make_loader(dataset(), 4, shuffle=False), device="cpu", **options)


def history():
    return History(train_loss=[2.0, 1.0, 0.5], val_loss=[2.0, 0.75, 1.5], lr=[0.1, 0.1, 0.01])


def rows(displayed):
    """Return the texts of the cells of the table, by row."""
    table = ElementTree.fromstring(displayed._repr_html_())
    assert table.tag == "table"
    assert {element.tag for element in table.iter()} <= {"table", "caption", "thead", "tbody", "tr", "th", "td"}
    assert not [element for element in table.iter() if element.attrib]
    return [[element.text or "" for element in row] for row in table.iter("tr")]


EXAMPLES = {"recording": recording, "split": split, "dataset": dataset, "trainer": trainer, "history": history}


def test_recording():
    shown = recording(source="a.mat", bearing="SKF 6205", metadata={"severity": 0.5})
    assert repr(shown) == (
        "Recording(signal=float32[2, 12000], sampling_rate_hz=12000, duration_s=1, channels=('DE', 'FE'), "
        "label='ball', rpm=1797, bearing='6205', specimen='machine 1', source='a.mat', metadata=['severity'])"
    )
    assert ["rpm", "1797"] in rows(shown)
    assert ["channels", "DE, FE"] in rows(shown)


def test_split():
    assert repr(split()) == "Split(by='specimen', val_by='recording', train=3, val=1, test=1)"
    assert rows(split()) == [
        ["", "recordings", "specimens", "minutes", "ball", "healthy"],
        ["train", "3", "3", "0.1", "1", "2"],
        ["val", "1", "1", "0.0", "1", "0"],
        ["test", "1", "1", "0.0", "1", "0"],
    ]


def test_split_of_unlabeled_recordings_of_unknown_specimen():
    unknown = Split([recording(None, None)], [], [], "recording", "recording")
    assert rows(unknown)[1] == ["train", "1", "–", "0.0"]


def test_dataset():
    assert repr(dataset()) == (
        "WindowDataset(n_windows=20, window=2048, hop=1024, n_channels=2, sampling_rate_hz=12000, n_recordings=2, "
        "classes=('ball', 'healthy'), standardize=True, memory_mapped=False, metadata=('rpm',))"
    )
    assert ["n_windows", "20"] in rows(dataset())


def test_trainer_before_and_after_training():
    optimizing = trainer()
    before = repr(optimizing)
    assert before == (
        "Trainer(model=Sequential, n_parameters=8194, train_batches=5, train_samples=20, optimizer=AdamW, lr=0.001, "
        "precision='32', device='cpu', epochs=0)"
    )
    optimizing.lr_scheduler = torch.optim.lr_scheduler.StepLR(optimizing.optimizer, 10)
    optimizing.fit(1)
    assert repr(optimizing) == before.replace("lr=0.001", "lr=0.001, lr_scheduler=StepLR").replace("hs=0", "hs=1")
    assert ["n_parameters", "8194"] in rows(optimizing)


def test_trainer_of_any_loader_network_and_learning_rate():
    loader = (batch for batch in ())
    shown = Trainer(nn.Linear(2, 2), loader, nn.LazyLinear(2), device="cpu")
    assert "train_batches" not in repr(shown)
    shown.model = nn.LazyLinear(2)
    shown.optimizer.param_groups[0]["lr"] = torch.tensor(0.1, device="meta")
    assert "n_parameters" not in repr(shown)
    assert "lr=float32[]" in repr(shown)


def test_history():
    assert repr(history()) == "History(epochs=3, train_loss=0.5, val_loss=1.5, lr=0.01, lowest_val_loss=0.75)"
    assert rows(history()) == [
        ["", "epoch 1", "epoch 2, lowest val_loss", "epoch 3"],
        ["train_loss", "2", "1", "0.5"],
        ["val_loss", "2", "0.75", "1.5"],
        ["lr", "0.1", "0.1", "0.01"],
    ]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({}, "History(epochs=0)"),
        ({"train_loss": []}, "History(epochs=0)"),
        ({"val_loss": [float("nan")], "lr": [0.1, 0.2]}, "History(epochs=2, val_loss=nan, lr=0.2)"),
        ({"val_loss": [None, 1.0]}, "History(epochs=2, val_loss=1, lowest_val_loss=1)"),
    ],
)
def test_incomplete_history(values, text):
    assert repr(History(values)) == text
    assert len(rows(History(values))) == (len(values) + 1 if values else 0)


@pytest.mark.parametrize("name", EXAMPLES)
def test_showing_changes_nothing(name):
    displayed = EXAMPLES[name]()
    before = copy.copy(vars(displayed))
    first = repr(displayed), displayed._repr_html_()
    assert (repr(displayed), displayed._repr_html_()) == first
    assert vars(displayed) == before
    assert "\n" not in first[0]


@pytest.mark.parametrize("name", EXAMPLES)
def test_incomplete_object_shows_its_type(name):
    kind = type(EXAMPLES[name]())
    incomplete = kind.__new__(kind) if kind is not History else History(train_loss=3)
    assert kind.__name__ in repr(incomplete)
    assert kind.__name__ in incomplete._repr_html_()
    ElementTree.fromstring(incomplete._repr_html_())


def test_showing_reads_no_samples():
    shape_only = SimpleNamespace(shape=(2, 10**12), dtype="float32")  # anything else raises an AttributeError
    huge, parts, windows = recording(), split(), dataset()
    object.__setattr__(huge, "signal", type("Shape", (SimpleNamespace,), {"__len__": lambda _: 2})(**vars(shape_only)))
    parts.train.append(huge)
    windows._windows = shape_only
    windows._quantities = shape_only
    assert "signal=float32[2, 1000000000000]" in repr(huge)
    assert ["duration_s", "8.33333e+07"] in rows(huge)
    assert rows(parts)[1][:4] == ["train", "4", "4", "1388888.9"]
    assert "n_channels=1000000000000" in repr(windows)
    assert ["window", "2048"] in rows(windows)
    on_meta = trainer()
    on_meta.model.to("meta")  # reading a value of a tensor on this device raises
    assert "n_parameters=8194" in repr(on_meta)


def test_unsafe_text_is_escaped():
    displayed = recording(SCRIPT, SCRIPT, source=SCRIPT * 20, unit=SCRIPT, metadata={SCRIPT: 1})
    html = displayed._repr_html_()
    assert "<script" not in html
    assert "script>alert('1')" in dict(rows(displayed))["label"]
    html.encode()
    repr(displayed).encode()
    assert len(dict(rows(displayed))["source"]) == 79
    assert rows(Split([displayed], [], [], "time", "time"))[0][-1].endswith("轴承")
    rows(History({SCRIPT: [1.0]}))


def test_long_lists_are_shortened():
    channels = tuple(f"channel {i}" for i in range(100))
    assert "('channel 0', 'channel 1', " in format_facts({"channels": channels})
    assert format_facts({"channels": channels}).endswith("..., 'channel 99')")
    assert cell(channels).endswith("..., channel 99")


def test_values_of_any_type_are_formatted():
    facts = {"a": np.float32(0.5), "b": np.zeros((2, 3)), "c": torch.zeros(4), "d": nn.ReLU, "e": nn.ReLU(), "f": True}
    assert format_facts(facts) == "a=0.5, b=float64[2, 3], c=float32[4], d=ReLU, e=ReLU, f=True"


def test_error_in_a_subclass_is_not_raised():
    class Wrong(Displayed):
        def _display_facts(self):
            raise RuntimeError

    assert "Wrong" in repr(Wrong())
    assert Wrong()._repr_html_().startswith("<pre>&lt;")


def test_html_table_without_rows():
    assert html_table([]) == "<table><tbody></tbody></table>"
