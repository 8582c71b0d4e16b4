import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from sklearn import metrics as sklearn_metrics
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from whirl.metrics import (
    MetricsTracker,
    compute_accuracy,
    compute_confusion_matrix,
    compute_f1_score,
    compute_per_class_metrics,
    compute_top_k_accuracy,
)

AVERAGES = ("macro", "micro", "weighted")
N_CLASSES = 6

label_pairs = st.integers(1, 40).flatmap(
    lambda n: st.tuples(*(arrays(np.int64, n, elements=st.integers(0, N_CLASSES - 1)) for _ in range(2)))
)
quick = settings(max_examples=60, deadline=None)


def by_sklearn(predictions, targets, average):
    precision, recall, f1_score, _ = sklearn_metrics.precision_recall_fscore_support(
        targets, predictions, average=average, zero_division=0
    )
    accuracy = sklearn_metrics.accuracy_score(targets, predictions)
    return {"accuracy": accuracy, "precision": precision, "recall": recall, "f1_score": f1_score}


@quick
@given(pair=label_pairs, num_classes=st.sampled_from([None, N_CLASSES, N_CLASSES + 5]), data=st.data())
def test_tracker_counts_as_scikit_learn_does_however_the_batches_are_cut(pair, num_classes, data):
    predictions, targets = pair
    cut = data.draw(st.integers(0, len(targets)))
    tracker = MetricsTracker(num_classes)
    tracker.update(predictions[:cut], targets[:cut])
    tracker.update(predictions[cut:], targets[cut:])
    for average in AVERAGES:
        assert tracker.compute(average) == pytest.approx(by_sklearn(predictions, targets, average), abs=1e-12)


@quick
@given(pair=label_pairs)
def test_functions_agree_with_scikit_learn(pair):
    predictions, targets = pair
    labels = range(N_CLASSES)
    assert compute_accuracy(predictions, targets) == sklearn_metrics.accuracy_score(targets, predictions)
    np.testing.assert_array_equal(
        compute_confusion_matrix(predictions, targets, N_CLASSES),
        sklearn_metrics.confusion_matrix(targets, predictions, labels=labels),
    )
    for average in AVERAGES:
        expected = sklearn_metrics.f1_score(targets, predictions, average=average, zero_division=0)
        assert compute_f1_score(predictions, targets, average) == pytest.approx(expected, abs=1e-12)
    expected = sklearn_metrics.precision_recall_fscore_support(targets, predictions, labels=labels, zero_division=0)
    found = compute_per_class_metrics(predictions, targets, N_CLASSES)
    for column, name in enumerate(("precision", "recall", "f1_score", "support")):
        assert [found[label][name] for label in labels] == pytest.approx(expected[column], abs=1e-12)


@quick
@given(
    logits=arrays(np.float64, (20, N_CLASSES), elements=st.floats(-5, 5), unique=True),
    targets=arrays(np.int64, 20, elements=st.integers(0, N_CLASSES - 1)),
    k=st.integers(1, N_CLASSES),
)
def test_top_k_agrees_with_scikit_learn(logits, targets, k):
    if k < N_CLASSES:  # scikit-learn warns where the answer is trivially 1
        expected = sklearn_metrics.top_k_accuracy_score(targets, logits, k=k, labels=range(N_CLASSES))
        assert compute_top_k_accuracy(logits, targets, k) == pytest.approx(expected)
    else:
        assert compute_top_k_accuracy(logits, targets, k) == 1.0


def test_k_beyond_the_classes_counts_as_all_and_k_of_one_is_accuracy():
    logits, targets = torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.7, 0.3]]), torch.tensor([1, 1, 0])
    assert compute_top_k_accuracy(logits, targets, k=100) == 1.0
    assert compute_top_k_accuracy(logits, targets, k=1) == compute_accuracy(logits, targets) == pytest.approx(2 / 3)


def test_macro_over_a_class_that_is_only_predicted_counts_it_and_one_in_neither_is_left_out():
    # Class 0: precision 1, recall 1/2. Class 1: never a target, so 0 for all. Class 2 occurs nowhere.
    tracker = MetricsTracker(num_classes=3)
    tracker.update([0, 1], [0, 0])
    assert tracker.compute() == {"accuracy": 0.5, "precision": 0.5, "recall": 0.25, "f1_score": pytest.approx(1 / 3)}


@pytest.mark.parametrize("num_classes", [None, 4])
def test_every_form_of_input_gives_the_same_numbers(num_classes):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, 4, generator=generator)
    targets = torch.randint(0, 4, (50,), generator=generator)
    soft_targets = 0.7 * torch.nn.functional.one_hot(targets, 4) + 0.3 / 4
    forms = [
        (logits, targets),
        (logits, soft_targets),
        (logits.argmax(1), targets.int()),
        (logits.numpy(), targets.numpy()),
        (logits.argmax(1).tolist(), targets.tolist()),
        (logits.requires_grad_(), targets.to(torch.uint8)),
    ]
    results = []
    for predictions, true in forms:
        tracker = MetricsTracker(num_classes)
        tracker.update(predictions, true)
        results.append(tracker.compute())
    assert all(result == results[0] for result in results)
    assert results[0] == pytest.approx(by_sklearn(logits.detach().argmax(1), targets, "macro"))


def test_labels_need_not_be_dense_without_num_classes():
    tracker = MetricsTracker()
    tracker.update([-1, 10**12, 7], [-1, 7, 7])
    assert tracker.compute() == pytest.approx(by_sklearn([-1, 10**12, 7], [-1, 7, 7], "macro"))
    assert tracker.confusion_matrix().tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 0]]


@pytest.mark.parametrize("num_classes", [None, 3])
def test_a_batch_changed_afterwards_does_not_change_what_was_counted(num_classes):
    predictions, targets = torch.tensor([0, 1, 2]), torch.tensor([0, 1, 2])
    tracker = MetricsTracker(num_classes)
    tracker.update(predictions, targets)
    predictions.fill_(0)
    assert tracker.compute()["accuracy"] == 1.0


@pytest.mark.parametrize("num_classes", [None, 3])
def test_reset_forgets_and_compute_repeats(num_classes):
    tracker = MetricsTracker(num_classes)
    tracker.update([0, 1], [1, 0])
    assert tracker.compute() == tracker.compute()
    tracker.reset()
    tracker.update([0, 1], [0, 1])
    assert tracker.compute()["accuracy"] == 1.0


def test_read_only_arrays_are_taken():
    targets = np.array([0, 1])
    targets.setflags(write=False)
    assert compute_accuracy(targets, targets) == 1.0


@pytest.mark.parametrize("num_classes", [None, 3])
def test_nothing_added_has_no_metrics(num_classes):
    tracker = MetricsTracker(num_classes)
    with pytest.raises(ValueError, match="at least one"):
        tracker.compute()
    tracker.update([], [])
    with pytest.raises(ValueError, match="at least one"):
        tracker.compute()


@pytest.mark.parametrize(
    "judge",
    [
        compute_accuracy,
        compute_f1_score,
        lambda p, t: compute_confusion_matrix(p, t, 3),
        lambda p, t: compute_per_class_metrics(p, t, 3),
        MetricsTracker().update,
        MetricsTracker(3).update,
    ],
)
def test_unfit_input_is_named(judge):
    with pytest.raises(ValueError, match="3 predictions but 2 targets"):
        judge([0, 1, 2], [0, 1])
    with pytest.raises(ValueError, match=r"\[1, 1, 2\]"):
        judge([[[0, 1]]], [0])
    with pytest.raises(ValueError, match=r"\[2, 1\]"):  # a column of labels would be read as logits of one class
        judge([[0], [1]], [0, 1])
    with pytest.raises(TypeError, match="float64"):
        judge([0.2, 0.9], [0, 1])


@pytest.mark.parametrize("wrong", [-1, 3, 2**40])
def test_labels_out_of_range_are_refused_and_not_counted(wrong):
    tracker = MetricsTracker(num_classes=3)
    with pytest.raises(ValueError, match=r"1 targets and 0 predictions lie outside 0..2"):
        tracker.update([0, 1], [0, wrong])
    with pytest.raises(ValueError, match=r"0 targets and 1 predictions lie outside 0..2"):
        compute_confusion_matrix([0, wrong], [0, 1], 3)
    with pytest.raises(ValueError, match=r"1 targets and 1 predictions lie outside 0..2"):
        compute_per_class_metrics([0, wrong], [0, wrong], 3)
    tracker.update([0, 2], [0, 2])
    assert tracker.compute()["accuracy"] == 1.0


def test_top_k_names_what_is_wrong():
    logits = torch.eye(3)
    with pytest.raises(ValueError, match="from 0 to 3"):
        compute_top_k_accuracy(logits, [0, 1, 3])
    with pytest.raises(ValueError, match="k is 0"):
        compute_top_k_accuracy(logits, [0, 1, 2], k=0)
    with pytest.raises(ValueError, match=r"\[3\]"):
        compute_top_k_accuracy([0, 1, 2], [0, 1, 2])
    with pytest.raises(ValueError, match="3 predictions but 2"):
        compute_top_k_accuracy(logits, [0, 1])
    with pytest.raises(ValueError, match="at least one"):
        compute_top_k_accuracy(torch.zeros(0, 3), [])


def test_unknown_average_and_number_of_classes_are_named():
    with pytest.raises(ValueError, match="'binary'"):
        compute_f1_score([0, 1], [0, 1], average="binary")
    with pytest.raises(ValueError, match="num_classes is 0"):
        MetricsTracker(num_classes=0)
    with pytest.raises(ValueError, match="num_classes is 0"):
        compute_confusion_matrix([0], [0], 0)


class DeviceCopies(TorchDispatchMode):
    """Notes where tensors are copied to, and whether without waiting."""

    def __init__(self):
        super().__init__()
        self.copies = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default:
            self.copies.append((kwargs["device"].type, kwargs.get("non_blocking", False)))
        return func(*args, **kwargs)


@pytest.mark.parametrize(("there", "other", "waits_not"), [("cpu", "cuda", False), ("cuda", "cpu", True)])
def test_a_copy_that_the_cpu_reads_is_waited_for_and_one_that_the_device_reads_is_not(there, other, waits_not):
    with FakeTensorMode():  # needs no device
        predictions = torch.zeros(4, dtype=torch.int64, device=there)
        targets = torch.zeros(4, dtype=torch.int64, device=other)
        with DeviceCopies() as copies:
            MetricsTracker().update(predictions, targets)
    assert copies.copies == [(there, waits_not)]


@pytest.mark.gpu
def test_targets_still_to_be_computed_on_the_device_are_waited_for():
    predictions = torch.randint(0, 3, (1000,))
    targets = predictions.cuda()
    torch.cuda._sleep(10**9)  # cycles; what follows waits in the queue for about half a second
    targets = targets + 0
    assert compute_accuracy(predictions, targets) == 1


@pytest.mark.gpu
def test_updates_never_wait_for_the_device_and_wrong_labels_show_in_compute():
    predictions, targets = torch.randint(0, 3, (2, 1000), device="cuda")
    tracker, free = MetricsTracker(num_classes=3), MetricsTracker()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            tracker.update(predictions, targets)
            free.update(predictions, targets)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert tracker.compute() == free.compute() == pytest.approx(by_sklearn(predictions.cpu(), targets.cpu(), "macro"))
    tracker.update(predictions, targets + 1)
    with pytest.raises(ValueError, match="lie outside"):
        tracker.compute()
