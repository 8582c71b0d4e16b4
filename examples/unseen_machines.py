"""Train a diagnoser for four classes and evaluate it on machines that training has never seen.

    python examples/unseen_machines.py

Takes some minutes on a CPU. For your own recordings, replace `simulate(...)` by `load_dataset("my_recordings")`.
"""

import torch

from whirl import (
    CNNTrainer,
    EarlyStopping,
    WindowDataset,
    check_leakage,
    create_model,
    make_loader,
    simulate,
    split_recordings,
)
from whirl.evaluation import evaluate_predictions, predict_windows

CLASSES = ("healthy", "oil_whirl", "clearance", "cavitation")

torch.manual_seed(0)
recordings = simulate(n_machines=24, recordings_per_class=2, classes=CLASSES)
split = split_recordings(recordings, by="specimen", test_fraction=0.25)
check_leakage(split)  # raises an error if training or validation contain anything of the test part

train = make_loader(WindowDataset(split.train, CLASSES, window=16384, hop=8192), batch_size=32, shuffle=True)
val = make_loader(WindowDataset(split.val, CLASSES, window=16384), batch_size=32)
trainer = CNNTrainer(
    create_model("cnn1d", len(CLASSES)), train, val, device="auto", callbacks=[EarlyStopping(patience=3)]
)
history = trainer.fit(8)
print("validation accuracy by epoch:", [round(accuracy, 2) for accuracy in history["val_accuracy"]])

predictions = predict_windows(trainer.model, WindowDataset(split.test, CLASSES, window=16384))
scores = evaluate_predictions(predictions, split.test, CLASSES)["recording"]
interval = scores["intervals"]["accuracy"]
print(f"accuracy on {scores['n_specimens']} unseen machines: {scores['accuracy']:.2f}", end=" ")
print(interval["reason"] or f"[{interval['low']:.2f}, {interval['high']:.2f}]")
