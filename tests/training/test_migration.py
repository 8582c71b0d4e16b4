"""The examples of docs/migration.md run."""

import re
from pathlib import Path

import torch

PAGE = Path(__file__).parents[2] / "docs" / "migration.md"


def test_examples_of_the_migration_page_run(tmp_path):
    torch.manual_seed(0)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 4
    exec("\n".join(blocks), {"folder": tmp_path})


def test_every_callback_and_argument_of_the_tables_exists():
    import inspect

    import whirl.callbacks
    from whirl.training import Trainer

    text = PAGE.read_text(encoding="utf-8")
    names = {"max_steps", "limit_train_batches", "limit_val_batches", "fast_dev_run", "metrics", "best_by", "task"}
    assert names <= set(inspect.signature(Trainer).parameters)
    assert all(name in text for name in names)
    for name in ("EMA", "SWA", "EarlyStopping", "ModelCheckpoint", "LearningRateScheduler"):
        assert hasattr(whirl.callbacks, name)
