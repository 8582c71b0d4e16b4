"""CallbackList: states, nesting, hooks."""

import pytest

from whirl.engine.callbacks import Callback, CallbackList


class Counter(Callback):
    def __init__(self):
        self.count = 0

    def on_epoch_end(self, epoch, logs=None):
        self.count += 1

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


def test_callback_list_keeps_states_of_equal_classes_apart():
    first = CallbackList([Counter(), Callback(), Counter()])
    first.callbacks[2].on_epoch_end(0)
    second = CallbackList([Counter(), Counter()])
    second.load_state_dict(first.state_dict())
    assert [member.count for member in second] == [0, 1]


def test_rejects_a_state_without_callback():
    with pytest.raises(ValueError, match="Counter:0"):
        CallbackList([Callback()]).load_state_dict(CallbackList([Counter()]).state_dict())


def test_members_of_a_nested_list_have_a_trainer():
    member = Counter()
    outer = CallbackList([CallbackList([member])])
    outer.set_trainer("trainer")
    assert member.trainer == "trainer"
    assert list(outer) == [member]


def test_on_train_end_runs_for_all_members_after_a_failure():
    ended = []

    class Ends(Callback):
        def __init__(self, error=None):
            self.error = error

        def on_train_end(self, logs=None):
            ended.append(self)
            if self.error:
                raise self.error

    with pytest.raises(OSError, match="disk"):
        CallbackList([Ends(), Ends(OSError("disk")), Ends()]).on_train_end()
    assert len(ended) == 3


def test_has_hook_for_overridden_hooks_only():
    callbacks = CallbackList([Counter()])
    assert callbacks.has_hook("on_epoch_end")
    assert not callbacks.has_hook("on_batch_end")
    assert len(callbacks) == 1
