"""WandbLogger, against real files of wandb."""

import json
import struct

import pytest
from matplotlib.figure import Figure

from tests.callbacks.helpers import At, fail, interrupt, small_trainer
from whirl.callbacks.registry import RunResults
from whirl.callbacks.wandb_logger import WandbLogger


@pytest.fixture
def wandb_environment(monkeypatch):
    """Let wandb, which reads the environment once, read it anew."""
    import wandb

    def set_environment(**variables):
        for name, value in {"SILENT": "true", "ERROR_REPORTING": "false", **variables}.items():
            monkeypatch.setenv(f"WANDB_{name}", value)

    wandb.teardown()
    yield set_environment
    wandb.teardown()


@pytest.fixture
def offline(wandb_environment):
    wandb_environment(MODE="offline")


HEADER_BYTES, BLOCK_BYTES, RECORD_HEADER = 7, 2**15, "<IHB"


def wandb_records(folder):
    """Read the records of the only run in a folder, which are stored in LevelDB's log format."""
    import wandb
    from wandb.proto import wandb_internal_pb2

    wandb.teardown()  # waits until everything is written
    [file] = folder.glob("wandb/offline-run-*/*.wandb")
    content, position, chunks = file.read_bytes(), HEADER_BYTES, b""
    size = struct.calcsize(RECORD_HEADER)
    while position < len(content):
        left = BLOCK_BYTES - position % BLOCK_BYTES
        if left < size:
            position += left
            continue
        _, length, kind = struct.unpack_from(RECORD_HEADER, content, position)
        chunks += content[position + size : position + size + length]
        position += size + length
        if kind in (1, 4):  # a complete record, or the last part of one
            yield wandb_internal_pb2.Record.FromString(chunks)
            chunks = b""


def items_of(update):
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in update}


@pytest.mark.usefixtures("offline")
def test_wandb_has_the_run(tmp_path):
    (tmp_path / "report.html").write_text("report")
    logger = WandbLogger("bearings", "first try", config={"width": 2}, group="search", folder=tmp_path, finish=False)
    history = small_trainer(logger).fit(2)
    logger.log_results(RunResults({"test_accuracy": 0.75}, [tmp_path / "report.html"], {"confusion_matrix": Figure()}))
    records = list(wandb_records(tmp_path))
    [run] = [record.run for record in records if record.WhichOneof("record_type") == "run"]
    assert (run.project, run.display_name, run.run_group, run.run_id) == (
        "bearings",
        "first try",
        "search",
        logger.run_id,
    )
    config = items_of(run.config.update)
    assert config["width"] == 2
    assert config["n_parameters"] == 34
    rows = [items_of(record.history.item) for record in records if record.WhichOneof("record_type") == "history"]
    epochs = [row for row in rows if "val_loss" in row]
    assert [(row["epoch"], row["val_loss"]) for row in epochs] == list(enumerate(history["val_loss"]))
    assert "image-file" in [row.get("confusion_matrix/_type") for row in rows]
    summary = [items_of(record.summary.update) for record in records if record.WhichOneof("record_type") == "summary"]
    assert {"test_accuracy": 0.75} in summary
    exits = [record.exit.exit_code for record in records if record.WhichOneof("record_type") == "exit"]
    assert exits == [0]
    assert list(tmp_path.glob("wandb/offline-run-*/files/report.html"))


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(("action", "raised"), [(fail, ZeroDivisionError), (interrupt, None)])
def test_wandb_finishes_a_run_that_has_no_results(action, raised, tmp_path):
    trainer = small_trainer(WandbLogger("a", folder=tmp_path, finish=False), At(1, action))
    if raised is None:
        trainer.fit(5)
    else:
        with pytest.raises(raised):
            trainer.fit(5)
    records = wandb_records(tmp_path)
    assert [record.exit.exit_code for record in records if record.WhichOneof("record_type") == "exit"] == [1]


def test_wandb_warns_once_if_the_server_is_unreachable(tmp_path, wandb_environment):
    wandb_environment(BASE_URL="http://127.0.0.1:9", API_KEY="0" * 40, INIT_TIMEOUT="1")
    trainer = small_trainer(WandbLogger("a", folder=tmp_path))
    with pytest.warns(RuntimeWarning, match="WandbLogger failed and logs nothing more") as caught:
        history = trainer.fit(2)
    assert len(caught) == 1
    assert len(history["val_loss"]) == 2


# -- parameters ----------------------------------------------------------------------------------------------
