"""Batch order is a pure function of seed and epoch, with any number of workers; signals in worker processes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from whirl.data.loaders import BatchSampler, balanced_weights, make_loader
from whirl.data.recording import Recording
from whirl.data.windows import WindowDataset


@pytest.fixture(scope="module")
def dataset() -> WindowDataset:
    rng = np.random.default_rng(0)
    recordings = [
        Recording(rng.normal(size=(2, 1000 + i)), 12_000, label="AB"[i % 2], rpm=[None, 1500][i % 2]) for i in range(5)
    ]
    return WindowDataset(recordings, ("A", "B"), window=64)


def order(sampler: BatchSampler) -> list[list[int]]:
    return [batch.tolist() for batch in sampler]


@given(
    n=st.integers(1, 60),
    batch_size=st.integers(1, 20),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
    seed=st.integers(0, 9),
)
@settings(deadline=None)
def test_epoch_contains_each_index_once(n, batch_size, shuffle, drop_last, seed):
    if drop_last and n < batch_size:
        with pytest.raises(ValueError, match=f"{n} windows do not fill one batch of {batch_size}"):
            BatchSampler(n, batch_size, drop_last=True)
        return
    sampler = BatchSampler(n, batch_size, shuffle, seed, drop_last)
    batches = order(sampler)
    assert len(batches) == len(sampler)
    assert all(len(batch) == batch_size for batch in batches[:-1])
    seen = [index for batch in batches for index in batch]
    assert len(set(seen)) == len(seen) == (n // batch_size * batch_size if drop_last else n)
    if not shuffle:
        assert seen == list(range(len(seen)))


def test_order_depends_only_on_seed_and_epoch():
    orders = {}
    for seed, epoch in ((0, 0), (0, 1), (1, 0), (1, 1)):
        sampler = BatchSampler(1000, 10, shuffle=True, seed=seed)
        sampler.set_epoch(epoch)
        orders[seed, epoch] = order(sampler)
        torch.rand(3)  # the global generator has no influence
        assert order(sampler) == orders[seed, epoch]
    assert len({str(value) for value in orders.values()}) == 4


def test_resumed_epoch_equals_rest_of_uninterrupted_one():
    sampler = BatchSampler(1000, 7, shuffle=True)
    sampler.set_epoch(3)
    complete = order(sampler)
    sampler.start_batch = 60
    assert len(sampler) == len(complete)
    assert order(sampler) == complete[60:]
    assert sampler.start_batch == 0
    assert order(sampler) == complete


def test_resumed_epoch_with_drop_last():
    sampler = BatchSampler(100, 7, drop_last=True)
    sampler.start_batch = 12
    assert [len(batch) for batch in order(sampler)] == [7, 7]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0, 1), "n_samples is 0"), ((1, 0), "batch_size is 0"), ((1, 1, True, -1), "seed is -1")],
)
def test_rejects_bad_numbers(arguments, message):
    with pytest.raises(ValueError, match=message):
        BatchSampler(*arguments)


@pytest.mark.parametrize("n_shards", [1, 2])
def test_balanced_groups_have_the_same_share_of_an_epoch(n_shards):
    groups = torch.cat([torch.zeros(900), torch.ones(90), torch.full((10,), 2)]).long()
    seen = torch.zeros(3)
    for epoch in range(5):
        for shard in range(n_shards):
            sampler = BatchSampler(
                1000, 64 // n_shards, True, shard=shard, n_shards=n_shards, weights=balanced_weights(groups)
            )
            sampler.set_epoch(epoch)
            indices = torch.cat(list(sampler))
            seen += torch.bincount(groups[indices], minlength=3)
    assert seen.sum() == 5000
    assert ((seen / 5000 - 1 / 3).abs() < 0.02).all()


@given(
    weights=st.lists(st.just(0.0) | st.floats(0.01, 100), min_size=1, max_size=50).filter(any), seed=st.integers(0, 9)
)
@settings(deadline=None)
def test_each_index_occurs_in_proportion_to_its_weight(weights, seed):
    shares = torch.tensor(weights, dtype=torch.float64)
    shares = shares / shares.sum() * len(weights)
    indices = torch.cat(
        list(BatchSampler(len(weights), 7, True, seed, weights=torch.tensor(weights, dtype=torch.float64)))
    )
    counts = torch.bincount(indices, minlength=len(weights))
    assert len(indices) == len(weights)
    assert ((counts - shares).abs() < 1 + 1e-6).all()


def test_weighted_order_resumes_within_an_epoch():
    sampler = BatchSampler(100, 7, True, weights=torch.arange(100))
    complete = order(sampler)
    sampler.start_batch = 5
    assert order(sampler) == complete[5:]


@pytest.mark.parametrize("weights", [[1.0, 2.0], [1.0, -1.0, 1.0], [0.0, 0.0, 0.0], [1.0, float("nan"), 1.0]])
def test_rejects_invalid_weights(weights):
    with pytest.raises(ValueError, match="expected 3 finite numbers >= 0, not all 0"):
        BatchSampler(3, 1, True, weights=torch.tensor(weights))


def test_weights_require_shuffle():
    with pytest.raises(ValueError, match="weights require shuffle=True"):
        BatchSampler(3, 1, weights=torch.ones(3))


def test_loader_is_a_data_loader_with_batch_sampler(dataset):
    loader = make_loader(dataset, batch_size=10, shuffle=True, seed=5)
    assert isinstance(loader, torch.utils.data.DataLoader)
    assert isinstance(loader.sampler, BatchSampler)
    assert len(loader) == 8
    loader.sampler.set_epoch(2)
    for indices, (signals, targets, metadata) in zip(loader.sampler, loader, strict=True):
        assert torch.equal(signals, dataset[indices][0])
        assert torch.equal(targets, dataset.targets[indices])
        assert torch.equal(metadata["start"], dataset.starts[indices])
        np.testing.assert_array_equal(metadata["rpm"], np.where(targets == 1, np.float32(1500), np.float32("nan")))


@pytest.mark.parametrize("context", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
def test_workers_give_the_same_batches_in_the_same_order(dataset, context):
    serial = make_loader(dataset, 10, shuffle=True, drop_last=True)
    parallel = make_loader(dataset, 10, shuffle=True, drop_last=True, num_workers=2, multiprocessing_context=context)
    for epoch in range(2):
        serial.sampler.set_epoch(epoch)
        parallel.sampler.set_epoch(epoch)
        count = 0
        for (signals, targets, metadata), (others, other_targets, other_metadata) in zip(serial, parallel, strict=True):
            assert torch.equal(signals, others)
            assert torch.equal(targets, other_targets)
            assert metadata.keys() == other_metadata.keys()
            assert torch.equal(metadata["recording"], other_metadata["recording"])
            count += 1
        assert count == len(dataset) // 10


def test_workers_resume_within_an_epoch(dataset):
    complete = [targets for _, targets, _ in make_loader(dataset, 10, shuffle=True)]
    loader = make_loader(dataset, 10, shuffle=True, num_workers=1)
    loader.sampler.start_batch = 5
    rest = [targets for _, targets, _ in loader]
    assert len(rest) == len(complete) - 5
    assert all(torch.equal(a, b) for a, b in zip(rest, complete[5:], strict=True))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_iterating_does_not_use_the_global_generator(dataset, num_workers):
    loader = make_loader(dataset, 10, shuffle=True, seed=3, num_workers=num_workers)
    before = torch.get_rng_state()
    for _ in range(2):
        assert len(list(loader)) == len(loader)
        assert torch.equal(torch.get_rng_state(), before)


CONTINUE_AFTER_SIGINT = """
import signal, sys, time
import numpy as np
from whirl.data.loaders import make_loader
from whirl.data.recording import Recording
from whirl.data.windows import WindowDataset

if __name__ == "__main__":
    interrupts = []
    signal.signal(signal.SIGINT, lambda *_: interrupts.append(True))
    dataset = WindowDataset([Recording(np.zeros(64 * 50), 12_000, label="A")], ["A"], window=64)
    loader = make_loader(dataset, 1, num_workers=2, multiprocessing_context=sys.argv[1])
    n_batches = 0
    for _ in range(2):
        for _ in loader:
            n_batches += 1
            if n_batches == 2:  # one from each worker: both have started
                print("ready", flush=True)
                while not interrupts:
                    time.sleep(0.01)
                time.sleep(0.2)  # enough time for a killed worker to exit
    print(n_batches)
"""


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow), "forkserver"])
def test_workers_ignore_sigint_to_the_process_group(context, tmp_path):
    script = tmp_path / "continue_after_sigint.py"
    script.write_text(CONTINUE_AFTER_SIGINT)
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", script, context],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        os.killpg(process.pid, signal.SIGINT)
        output, errors = process.communicate(timeout=240)
    assert (process.returncode, output) == (0, "100\n"), errors


@pytest.mark.gpu
def test_batches_are_pinned_for_cuda(dataset):
    signals, targets, metadata = next(iter(make_loader(dataset, 10)))
    assert signals.is_pinned()
    assert targets.is_pinned()
    assert metadata["rpm"].is_pinned()


@pytest.mark.parametrize("n_shards", [2, 3, 4])
def test_processes_have_the_steps_of_one_process_unless_the_last_is_too_small(n_shards):
    size = 6 * n_shards
    for n_samples in range(size, 3 * size + 1):
        whole = list(BatchSampler(n_samples, size, shuffle=True, seed=1))
        shards = [BatchSampler(n_samples, 6, shuffle=True, seed=1, shard=i, n_shards=n_shards) for i in range(n_shards)]
        steps = [torch.cat(parts) for parts in zip(*shards, strict=True)]
        is_merged = 0 < n_samples % size < 2 * n_shards
        assert len(steps) == len(whole) - is_merged
        expected = [*whole[: len(steps) - 1], torch.cat(whole[len(steps) - 1 :])]
        assert all(map(torch.equal, steps, expected))
