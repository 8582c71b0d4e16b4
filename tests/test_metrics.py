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
def test_tracker_matches_scikit_learn_for_any_batch_split(pair, num_classes, data):
    predictions, targets = pair
    split = data.draw(st.integers(0, len(targets)))
    tracker = MetricsTracker(num_classes)
    tracker.update(predictions[:split], targets[:split])
    tracker.update(predictions[split:], targets[split:])
    for average in AVERAGES:
        assert tracker.compute(average) == pytest.approx(by_sklearn(predictions, targets, average), abs=1e-12)


@quick
@given(pair=label_pairs)
def test_functions_match_scikit_learn(pair):
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
    metrics = compute_per_class_metrics(predictions, targets, N_CLASSES)
    for column, name in enumerate(("precision", "recall", "f1_score", "support")):
        assert [metrics[label][name] for label in labels] == pytest.approx(expected[column], abs=1e-12)


@quick
@given(
    logits=arrays(np.float64, (20, N_CLASSES), elements=st.floats(-5, 5), unique=True),
    targets=arrays(np.int64, 20, elements=st.integers(0, N_CLASSES - 1)),
    k=st.integers(1, N_CLASSES),
)
def test_top_k_matches_scikit_learn(logits, targets, k):
    if k < N_CLASSES:  # scikit-learn warns if the result is trivially 1
        expected = sklearn_metrics.top_k_accuracy_score(targets, logits, k=k, labels=range(N_CLASSES))
        assert compute_top_k_accuracy(logits, targets, k) == pytest.approx(expected)
    else:
        assert compute_top_k_accuracy(logits, targets, k) == 1.0


def test_top_k_with_all_classes_is_one_and_with_k_of_one_is_accuracy():
    logits, targets = torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.7, 0.3]]), torch.tensor([1, 1, 0])
    assert compute_top_k_accuracy(logits, targets, k=100) == 1.0
    assert compute_top_k_accuracy(logits, targets, k=1) == compute_accuracy(logits, targets) == pytest.approx(2 / 3)


def test_macro_includes_classes_in_predictions_only_but_not_absent_ones():
    # Class 0: precision 1, recall 1/2. Class 1: never a target, so all are 0. Class 2 is absent.
    tracker = MetricsTracker(num_classes=3)
    tracker.update([0, 1], [0, 0])
    assert tracker.compute() == {"accuracy": 0.5, "precision": 0.5, "recall": 0.25, "f1_score": pytest.approx(1 / 3)}


@pytest.mark.parametrize("num_classes", [None, 4])
def test_all_input_types_give_equal_metrics(num_classes):
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


def test_labels_may_be_any_integers_without_num_classes():
    tracker = MetricsTracker()
    tracker.update([-1, 10**12, 7], [-1, 7, 7])
    assert tracker.compute() == pytest.approx(by_sklearn([-1, 10**12, 7], [-1, 7, 7], "macro"))
    assert tracker.confusion_matrix().tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 0]]


@pytest.mark.parametrize("num_classes", [None, 3])
def test_modifying_a_batch_after_update_has_no_effect(num_classes):
    predictions, targets = torch.tensor([0, 1, 2]), torch.tensor([0, 1, 2])
    tracker = MetricsTracker(num_classes)
    tracker.update(predictions, targets)
    predictions.fill_(0)
    assert tracker.compute()["accuracy"] == 1.0


@pytest.mark.parametrize("num_classes", [None, 3])
def test_reset_discards_counts_and_compute_is_repeatable(num_classes):
    tracker = MetricsTracker(num_classes)
    tracker.update([0, 1], [1, 0])
    assert tracker.compute() == tracker.compute()
    tracker.reset()
    tracker.update([0, 1], [0, 1])
    assert tracker.compute()["accuracy"] == 1.0


def test_accepts_read_only_arrays():
    targets = np.array([0, 1])
    targets.setflags(write=False)
    assert compute_accuracy(targets, targets) == 1.0


@pytest.mark.parametrize("num_classes", [None, 3])
def test_compute_rejects_empty_input(num_classes):
    tracker = MetricsTracker(num_classes)
    with pytest.raises(ValueError, match="at least one"):
        tracker.compute()
    tracker.update([], [])
    with pytest.raises(ValueError, match="at least one"):
        tracker.compute()


SCORES = (
    compute_accuracy,
    compute_f1_score,
    lambda p, t: compute_confusion_matrix(p, t, 3),
    lambda p, t: compute_per_class_metrics(p, t, 3),
    MetricsTracker().update,
    MetricsTracker(3).update,
)


@pytest.mark.parametrize("compute", SCORES)
def test_rejects_invalid_input(compute):
    with pytest.raises(ValueError, match="3 predictions, but 2 targets"):
        compute([0, 1, 2], [0, 1])
    with pytest.raises(ValueError, match=r"\[1, 1, 2\]"):
        compute([[[0, 1]]], [0])
    with pytest.raises(
        ValueError, match=r"\[2, 1\]"
    ):  # a column of labels would be interpreted as logits of a single class
        compute([[0], [1]], [0, 1])
    with pytest.raises(TypeError, match="float64"):
        compute([0.2, 0.9], [0, 1])


NO_CLASSES = {
    "several_labels": np.array([[1, 0, 0], [1, 0, 1]]),
    "booleans": np.array([[True, False, False], [True, True, False]]),
    "no_label": torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]),
    "numbers": torch.tensor([[1.0, 0.0, 0.0], [3.5, -2.0, 0.1]]),
    "sum_of_one": torch.tensor([[1.0, 0.0, 0.0], [2.0, -1.0, 0.0]]),
    "not_a_number": torch.tensor([[1.0, 0.0, 0.0], [torch.nan, 0.0, 0.0]]),
}


@pytest.mark.parametrize("targets", NO_CLASSES.values(), ids=NO_CLASSES)
def test_rejects_targets_that_are_neither_labels_nor_shares(targets):
    logits = torch.eye(3)[:2]
    message = r"targets of shape \[2, 3\] and dtype torch\..+ have the row \[.+\], expected labels \[B\], or shares"
    for compute in (*SCORES, compute_top_k_accuracy):
        with pytest.raises(ValueError, match=message):
            compute(logits, targets)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.bfloat16, torch.float64])
def test_accepts_one_label_per_row(dtype):
    assert compute_accuracy([2, 0, 1], torch.eye(3)[[2, 0, 0]].to(dtype)) == pytest.approx(2 / 3)


def test_accepts_rounded_shares():
    shares = torch.rand(500, 40, generator=torch.Generator().manual_seed(0)).softmax(1)
    assert compute_accuracy(shares.bfloat16(), shares.bfloat16()) == 1.0


@pytest.mark.gpu
@pytest.mark.parametrize("num_classes", [None, 3])
def test_compute_rejects_targets_that_are_no_shares_on_gpu(num_classes):
    tracker = MetricsTracker(num_classes)
    tracker.update(torch.eye(3, device="cuda"), torch.ones(3, 3, device="cuda"))
    with pytest.raises(ValueError, match=r"not shares of the classes|outside 0\.\.2"):
        tracker.compute()


@pytest.mark.parametrize("wrong", [-1, 3, 2**40])
def test_rejects_labels_out_of_range_and_does_not_count_them(wrong):
    tracker = MetricsTracker(num_classes=3)
    with pytest.raises(ValueError, match=r"1 targets and 0 predictions are outside 0..2"):
        tracker.update([0, 1], [0, wrong])
    with pytest.raises(ValueError, match=r"0 targets and 1 predictions are outside 0..2"):
        compute_confusion_matrix([0, wrong], [0, 1], 3)
    with pytest.raises(ValueError, match=r"1 targets and 1 predictions are outside 0..2"):
        compute_per_class_metrics([0, wrong], [0, wrong], 3)
    tracker.update([0, 2], [0, 2])
    assert tracker.compute()["accuracy"] == 1.0


def test_top_k_rejects_invalid_input():
    logits = torch.eye(3)
    with pytest.raises(ValueError, match="from 0 to 3"):
        compute_top_k_accuracy(logits, [0, 1, 3])
    with pytest.raises(ValueError, match="k is 0"):
        compute_top_k_accuracy(logits, [0, 1, 2], k=0)
    with pytest.raises(ValueError, match=r"\[3\]"):
        compute_top_k_accuracy([0, 1, 2], [0, 1, 2])
    with pytest.raises(ValueError, match="3 predictions, but 2"):
        compute_top_k_accuracy(logits, [0, 1])
    with pytest.raises(ValueError, match="at least one"):
        compute_top_k_accuracy(torch.zeros(0, 3), [])


def test_rejects_unknown_average_and_invalid_num_classes():
    with pytest.raises(ValueError, match="'binary'"):
        compute_f1_score([0, 1], [0, 1], average="binary")
    with pytest.raises(ValueError, match="num_classes is 0"):
        MetricsTracker(num_classes=0)
    with pytest.raises(ValueError, match="num_classes is 0"):
        compute_confusion_matrix([0], [0], 0)


class DeviceCopies(TorchDispatchMode):
    """Records the target devices of copies, and whether they are non-blocking."""

    def __init__(self):
        super().__init__()
        self.copies = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default:
            self.copies.append((kwargs["device"].type, kwargs.get("non_blocking", False)))
        return func(*args, **kwargs)


@pytest.mark.parametrize(("device", "other_device", "non_blocking"), [("cpu", "cuda", False), ("cuda", "cpu", True)])
def test_copies_to_the_cpu_are_blocking_and_copies_to_gpu_are_not(device, other_device, non_blocking):
    with FakeTensorMode():  # requires no GPU
        predictions = torch.zeros(4, dtype=torch.int64, device=device)
        targets = torch.zeros(4, dtype=torch.int64, device=other_device)
        with DeviceCopies() as copies:
            MetricsTracker().update(predictions, targets)
    assert copies.copies == [(device, non_blocking)]


@pytest.mark.gpu
def test_waits_for_targets_that_are_still_being_computed_on_gpu():
    predictions = torch.randint(0, 3, (1000,))
    targets = predictions.cuda()
    torch.cuda._sleep(10**9)  # in cycles; delays the following operations by about half a second
    targets = targets + 0
    assert compute_accuracy(predictions, targets) == 1


@pytest.mark.gpu
def test_updates_on_gpu_do_not_synchronize_and_compute_checks_labels():
    predictions, targets = torch.randint(0, 3, (2, 1000), device="cuda")
    tracker, unlimited = MetricsTracker(num_classes=3), MetricsTracker()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            tracker.update(predictions, targets)
            unlimited.update(predictions, targets)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert (
        tracker.compute() == unlimited.compute() == pytest.approx(by_sklearn(predictions.cpu(), targets.cpu(), "macro"))
    )
    tracker.update(predictions, targets + 1)
    with pytest.raises(ValueError, match="are outside"):
        tracker.compute()


UNLABELED = [-1, 0, 3]  # a label out of range, one of the classes, and one beyond


@pytest.mark.parametrize("ignore_index", UNLABELED)
@pytest.mark.parametrize("num_classes", [3, None])
def test_windows_without_a_label_are_left_out(ignore_index, num_classes):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(60, 3)), rng.integers(0, 3, 60)
    labels[::4] = ignore_index
    kept = labels != ignore_index
    tracker, expected = MetricsTracker(num_classes, ignore_index=ignore_index), MetricsTracker(num_classes)
    for part in (slice(0, 25), slice(25, 60)):
        tracker.update(logits[part], labels[part])
    expected.update(logits[kept], labels[kept])
    assert tracker.compute() == expected.compute()
    assert np.array_equal(tracker.confusion_matrix(), expected.confusion_matrix())
    arguments = {
        compute_accuracy: (),
        compute_f1_score: ("weighted",),
        compute_top_k_accuracy: (2,),
        compute_per_class_metrics: (3,),
    }
    for compute, others in arguments.items():
        found = compute(logits, labels, *others, ignore_index=ignore_index)
        assert found == compute(logits[kept], labels[kept], *others)


def test_batch_without_any_label_has_no_metrics():
    with pytest.raises(ValueError, match="there are no predictions"):
        compute_accuracy([0, 1], [-1, -1], ignore_index=-1)
    assert not compute_confusion_matrix([0, 1], [-1, -1], 2, ignore_index=-1).any()
    tracker = MetricsTracker(2, ignore_index=-1)
    tracker.update([0, 1], [-1, -1])
    with pytest.raises(ValueError, match="there are no predictions"):
        tracker.compute()
    with pytest.raises(TypeError, match=r"ignore_index is 0\.5, expected an integer or None"):
        MetricsTracker(2, ignore_index=0.5)
