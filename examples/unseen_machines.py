"""From recordings to a judged diagnoser in Python: four fault classes, tested on machines the network never saw.

    python examples/unseen_machines.py

Takes about a minute. Put `load_dataset("my_recordings")` in the place of `simulate(...)` for your own.
"""

import torch

from whirl.callbacks.callbacks import EarlyStopping
from whirl.data.leakage import check_leakage
from whirl.data.loaders import make_loader
from whirl.data.simulation import simulate
from whirl.data.splits import split_recordings
from whirl.data.windows import WindowDataset
from whirl.evaluation.metrics import evaluate_predictions
from whirl.evaluation.prediction import predict_windows
from whirl.models.registry import create_model
from whirl.training.cnn_trainer import CNNTrainer

CLASSES = ("healthy", "oil_whirl", "clearance", "cavitation")

torch.manual_seed(0)
recordings = simulate(n_machines=24, recordings_per_class=2, classes=CLASSES)
split = split_recordings(recordings, by="specimen", test_fraction=0.25)
check_leakage(split)  # stops here if anything of the test part is in the others

train = make_loader(WindowDataset(split.train, CLASSES, window=16384, hop=8192), batch_size=32, shuffle=True)
val = make_loader(WindowDataset(split.val, CLASSES, window=16384), batch_size=32)
trainer = CNNTrainer(
    create_model("cnn1d", len(CLASSES)), train, val, device="auto", callbacks=[EarlyStopping(patience=3)]
)
history = trainer.fit(8)
print("validation accuracy by epoch:", [round(accuracy, 2) for accuracy in history["val_accuracy"]])

windows = predict_windows(trainer.model, WindowDataset(split.test, CLASSES, window=16384))
found = evaluate_predictions(windows, split.test, CLASSES)["recording"]
interval = found["intervals"]["accuracy"]
print(f"accuracy on {found['n_specimens']} unseen machines: {found['accuracy']:.2f}", end=" ")
print(interval["reason"] or f"[{interval['low']:.2f}, {interval['high']:.2f}]")
