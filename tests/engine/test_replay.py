"""EpochReplay: the position in the data, and what must not change when an epoch is continued."""

import pytest
import torch

from whirl.engine.replay import EpochReplay, check_n_batches


def shuffled(n=12):
    return torch.utils.data.DataLoader(list(range(n)), shuffle=True)


def values(batches):
    return [int(batch) for batch in batches]


def test_continues_an_epoch_in_the_same_order_and_with_the_same_random_state():
    torch.manual_seed(3)
    loader, replay = shuffled(), EpochReplay()
    _, batches = replay.start(loader)
    expected, after = values(batches), torch.rand(2)

    torch.manual_seed(3)
    interrupted = EpochReplay()
    tally, batches = interrupted.start(loader)
    batches = iter(batches)
    first, tally.n_batches = values(next(batches) for _ in range(5)), 5
    state = interrupted.state_dict(loader)

    torch.manual_seed(99)
    resumed = EpochReplay()
    resumed.load_state_dict(state, loader, torch.device("cpu"))
    resumed.restore_random_state(loader)
    _, batches = resumed.start(loader)
    assert first + values(batches) == expected
    assert torch.equal(torch.rand(2), after)


def test_raises_if_the_loader_has_become_shorter():
    replay = EpochReplay()
    replay.start([1, 2, 3])[0].n_batches = 3
    with pytest.raises(ValueError, match="3 batches of the interrupted epoch are done"):
        replay.start([1, 2])


def test_finish_starts_the_next_pass():
    replay = EpochReplay()
    replay.start([1])
    replay.finish()
    assert (replay.passes, replay.tally) == (1, None)
    assert replay.state_dict([1])["epoch_random"] is None


@pytest.mark.parametrize(
    ("within_epoch", "schedule_counts_steps", "message"),
    [
        (True, False, "in the middle of an epoch of 4 batches, but train_loader has 3"),
        (False, True, "with a schedule that counts steps of 4 batches"),
        (False, False, None),
    ],
)
def test_number_of_batches_matters_within_an_epoch_and_for_step_schedules(within_epoch, schedule_counts_steps, message):
    settings = {"within_epoch": within_epoch, "schedule_counts_steps": schedule_counts_steps}
    check_n_batches([1, 2, 3, 4], 4, **settings)
    check_n_batches(iter([1]), 4, **settings)  # no length
    if message is None:
        check_n_batches([1, 2, 3], 4, **settings)
    else:
        with pytest.raises(ValueError, match=message):
            check_n_batches([1, 2, 3], 4, **settings)
