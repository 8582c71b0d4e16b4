"""Models of descriptors: the family network, what verdicts mean for classes, and the choice of a model."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from whirl.data.recording import Recording
from whirl.data.simulation import simulate
from whirl.diagnosis.descriptor_models import part_of
from whirl.diagnosis.descriptor_sets import Descriptors, describe
from whirl.diagnosis.family_features import FAMILY_FEATURES
from whirl.diagnosis.family_net import NOTHING, FamilyNet, train_family_net
from whirl.diagnosis.learned import BEARING_CANDIDATES, ROTOR_CANDIDATES, Candidate, LearnedDiagnoser
from whirl.diagnosis.pretrain import simulated_samples
from whirl.diagnosis.registry import DIAGNOSERS, register_diagnoser
from whirl.diagnosis.selection import assign_folds, choose_candidate, choose_diagnoser, suitable_candidates

N_FEATURES = len(FAMILY_FEATURES)


def strong_family(part, significance=2.0, depth=3.5):
    """Features of recordings in which one family has clear lines; levels in units of 10 dB."""
    features = np.zeros((1, 3, N_FEATURES), np.float32)
    features[0, :, 1] = 1.5  # -25 dB
    features[0, part, :5] = [significance, depth, significance, significance, significance]
    features[0, part, FAMILY_FEATURES.index("chance")] = 2
    features[0, part, -2:] = [significance, depth - 1.5]
    return features


@pytest.fixture(scope="module")
def bearings():
    return simulate(4, 1, ["healthy", "inner_race", "outer_race"], n_samples=60_000, snr_db_range=(20, 30))


# -- family network ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", range(3))
def test_pretrained_network_names_the_part_with_clear_lines(part):
    judged = np.ones((1, 3), bool)
    net = FamilyNet.pretrained()
    assert net.predict_proba(strong_family(part), judged).argmax() == part
    assert net.predict_proba(strong_family(part, 0.1, 1.5), judged).argmax() == NOTHING
    judged[0, part] = False
    assert net.predict_proba(strong_family(part), judged)[0, part] == 0


def test_network_treats_families_alike():
    features, judged = torch.rand(5, 3, N_FEATURES), torch.ones(5, 3, dtype=torch.bool)
    net = FamilyNet.pretrained()
    with torch.no_grad():
        swapped = net(features[:, [2, 0, 1]], judged)
        torch.testing.assert_close(swapped[:, :3], net(features, judged)[:, [2, 0, 1]])
        torch.testing.assert_close(swapped[:, 3], net(features, judged)[:, 3])


def test_penalty_holds_the_weights_in_place():
    net = FamilyNet.pretrained()
    features = np.concatenate([strong_family(part) for part in (0, 1, 2)])
    judged, targets = np.ones((3, 3), bool), np.array([NOTHING] * 3)
    weights = [torch.cat([p.flatten() for p in each.parameters()]) for each in (net, FamilyNet.pretrained())]
    torch.testing.assert_close(*weights)
    held, free = (train_family_net(features, judged, targets, net, penalty=penalty) for penalty in (1e6, 1e-3))
    assert (held.predict_proba(features, judged).argmax(1) == [0, 1, 2]).all()
    moved = [float((a - b).detach().abs().max()) for a, b in zip(held.parameters(), net.parameters(), strict=True)]
    assert max(moved) < 1e-3
    assert (free.predict_proba(features, judged).argmax(1) == NOTHING).all()


def test_training_leaves_out_parts_that_were_not_evaluated():
    features, judged = strong_family(0), np.array([[False, True, True]])
    net = FamilyNet.pretrained()
    trained = train_family_net(features, judged, np.array([0]), net)
    torch.testing.assert_close(list(trained.parameters()), list(net.parameters()))


def test_simulated_samples_do_not_depend_on_workers():
    # a seed with short recordings
    alone, shared = simulated_samples(2, seed=27), simulated_samples(2, seed=27, n_workers=2)
    for first, second in zip(alone, shared, strict=True):
        np.testing.assert_array_equal(first, second)
    assert alone.features.shape == (40, 3, N_FEATURES)
    assert (np.bincount(alone.targets, minlength=4)[:3] <= 10).all()  # faint faults count as sound


def test_weights_survive_saving(tmp_path):
    net = FamilyNet.pretrained()
    net.save(tmp_path / "net.json", command="none")
    features, judged = strong_family(1), np.ones((1, 3), bool)
    np.testing.assert_allclose(
        FamilyNet.load(tmp_path / "net.json").predict_proba(features, judged), net.predict_proba(features, judged)
    )


def test_loading_and_fine_tuning_leave_the_global_generator(bearings):
    before = torch.get_rng_state()
    LearnedDiagnoser(Candidate("family_net", "families")).fit(bearings)
    assert torch.equal(torch.get_rng_state(), before)


# -- trained diagnosers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("candidate", BEARING_CANDIDATES, ids=str)
def test_trained_diagnoser_survives_saving(candidate, bearings, tmp_path):
    diagnoser = LearnedDiagnoser(candidate).fit(bearings)
    probabilities = diagnoser.predict_proba(bearings)
    np.testing.assert_allclose(probabilities.sum(1), 1)
    diagnoser.save(tmp_path / "diagnoser.npz")
    loaded = LearnedDiagnoser.load(tmp_path / "diagnoser.npz")
    np.testing.assert_allclose(loaded.predict_proba(bearings), probabilities, atol=1e-6)
    assert (loaded.classes, loaded.candidate) == (diagnoser.classes, candidate)


@pytest.mark.parametrize("candidate", [*BEARING_CANDIDATES, *ROTOR_CANDIDATES], ids=str)
def test_recordings_without_speed_have_no_class(candidate, bearings):
    diagnoser = LearnedDiagnoser(candidate).fit(bearings)
    mixed = [bearings[0], replace(bearings[1], rpm=None)]
    assert np.isfinite(diagnoser.predict_proba(mixed)[0]).all()
    assert diagnoser.predict(mixed)[1] is None


def test_training_needs_recordings_that_can_be_described(bearings):
    with pytest.raises(ValueError, match="none of 12 recordings can be described by families"):
        LearnedDiagnoser(Candidate("rule", "families")).fit([replace(each, rpm=None) for each in bearings])


@pytest.fixture(scope="module")
def rotors():
    return simulate(3, 1, ["healthy", "imbalance"], n_samples=40_960)


@pytest.mark.parametrize("candidate", [*ROTOR_CANDIDATES, *BEARING_CANDIDATES], ids=str)
def test_nothing_is_predicted_where_no_recording_can_be_described(candidate, rotors, bearings):
    recordings = rotors if candidate in ROTOR_CANDIDATES else bearings
    diagnoser = LearnedDiagnoser(candidate).fit(recordings)
    assert diagnoser.predict([replace(each, rpm=None) for each in recordings[:2]]) == [None, None]
    assert diagnoser.predict_proba([]).shape == (0, len(diagnoser.classes))


@pytest.mark.parametrize("candidate", ROTOR_CANDIDATES, ids=str)
def test_a_sample_that_is_not_finite_has_no_effect_on_other_recordings(candidate, rotors):
    broken = replace(rotors[0], signal=np.where(np.arange(40_960) == 100, np.nan, rotors[0].signal))
    diagnoser = LearnedDiagnoser(candidate).fit([broken, *rotors[1:]])
    expected = LearnedDiagnoser(candidate).fit(rotors[1:]).predict_proba(rotors[1:])
    np.testing.assert_allclose(diagnoser.predict_proba(rotors[1:]), expected)
    assert diagnoser.predict([broken]) == [None]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": ["healthy"]}, "1 labels for 6 recordings"),
        ({"classes": ["healthy", "imbalanced"]}, "unknown class 'imbalance'; did you mean 'imbalanced'"),
    ],
)
def test_rejects_labels_that_do_not_fit(arguments, message, rotors):
    with pytest.raises(ValueError, match=message):
        LearnedDiagnoser(ROTOR_CANDIDATES[1]).fit(rotors, **arguments)


@pytest.mark.parametrize("model", ["rule", "family_net"])
def test_models_of_families_reject_other_descriptors(model, rotors):
    with pytest.raises(ValueError, match="descriptors are order_levels, expected families"):
        LearnedDiagnoser(Candidate(model, "order_levels")).fit(rotors)


def test_rejects_prediction_before_training(rotors):
    with pytest.raises(ValueError, match="has not been trained: call fit first"):
        LearnedDiagnoser(ROTOR_CANDIDATES[1]).predict(rotors)


def test_each_recording_is_judged_by_its_own_bearing(bearings):
    """The same signals with orders of another bearing show no lines there."""
    faulty = [each for each in bearings if each.label != "healthy"]
    others = [replace(each, bearing="7, 9, 36") for each in faulty]
    ours, theirs = (describe(each) for each in (faulty, others))
    assert (ours.verdicts < NOTHING).mean() > (theirs.verdicts < NOTHING).mean()


def test_labels_name_parts_in_any_spelling():
    assert [part_of(label) for label in ("IR", "Outer race", "ball", "normal", "gear_crack")] == [0, 1, 2, 3, 3]


# -- choice of a model ---------------------------------------------------------------------------------------


def made_up(values, n_recordings):
    """Descriptors with one row for each recording."""
    return Descriptors(
        "families",
        np.asarray(values, np.float32),
        np.arange(n_recordings),
        n_recordings,
        np.zeros((n_recordings, 3, N_FEATURES), np.float32),
        np.ones((n_recordings, 3), bool),
        np.full(n_recordings, NOTHING),
    )


def labeled(labels, specimens):
    return [
        Recording(np.zeros(100), 1000, rpm=600, label=label, specimen=specimen, bearing="6205")
        for label, specimen in zip(labels, specimens, strict=True)
    ]


def test_better_model_is_preferred():
    """The rule finds no line anywhere, while the table separates the classes."""
    labels = ["healthy", "inner_race"] * 10
    recordings = labeled(labels, [f"m{index}" for index in range(20)])
    described = made_up(np.array([[label == "healthy"] for label in labels]), 20)
    choice = choose_candidate(recordings, None, lambda kind: described)
    assert choice.candidate == Candidate("logistic_regression", "families")
    assert choice.scores[choice.candidate] == 1
    assert choice.grouped_by == "specimen"


def test_simplest_of_equal_models_is_preferred():
    labels = ["healthy", "inner_race"] * 10
    recordings = labeled(labels, [f"m{index}" for index in range(20)])
    noise = np.random.default_rng(0).normal(size=(20, 2))
    choice = choose_candidate(recordings, None, lambda kind: made_up(noise, 20))
    assert choice.candidate == BEARING_CANDIDATES[0]


def test_folds_keep_groups_together_and_have_every_class():
    rng = np.random.default_rng(0)
    groups = rng.integers(12, size=200)
    targets = groups % 3
    folds = assign_folds(groups, targets, 4)
    assert all(len({*folds[groups == group]}) == 1 for group in range(12))
    assert all({*targets[folds == fold]} == {0, 1, 2} for fold in range(4))


@pytest.mark.parametrize(
    ("specimens", "speeds", "grouped_by"),
    [
        (["a", "b", "c", "d"], [600] * 4, "specimen"),
        (["a", "a", "b", "b"], [600, 1200, 600, 1200], "speed"),
        (["a", "a", "b", "b"], [600] * 4, "recording"),
    ],
)
def test_groups_are_the_coarsest_that_each_class_has_twice(specimens, speeds, grouped_by):
    recordings = labeled(["healthy", "healthy", "inner_race", "inner_race"], specimens)
    recordings = [replace(each, rpm=rpm) for each, rpm in zip(recordings, speeds, strict=True)]
    choice = choose_candidate(recordings, None, lambda kind: made_up(np.zeros((4, 1)), 4))
    assert choice.grouped_by == grouped_by


def test_choice_sees_the_given_recordings_only(bearings):
    diagnoser, choice = choose_diagnoser(bearings, seed=1)
    assert set(choice.scores) == set(BEARING_CANDIDATES)
    assert str(choice.candidate) in choice.reason
    assert diagnoser.predict(bearings).count(None) == 0


@pytest.mark.parametrize(
    ("labels", "changes", "expected"),
    [
        (["healthy", "IR"], {}, BEARING_CANDIDATES),
        (["healthy", "IR"], {"bearing": None}, ()),
        (["healthy", "IR"], {"rpm": None}, ()),
        (["normal", "unbalance"], {"bearing": None}, ROTOR_CANDIDATES),
        (["normal", "unbalance"], {"rpm": None}, ()),
        (["unbalance", "inner_race"], {}, ()),
        (["normal", "gear_crack"], {}, ()),
        (["normal"], {}, ()),
    ],
)
def test_candidates_follow_what_is_known(labels, changes, expected):
    recordings = [replace(each, **changes) for each in labeled(labels, labels)]
    assert suitable_candidates(recordings) == expected


def test_registered_model_can_be_trained(bearings):
    @register_diagnoser("nearest_mean")
    class NearestMean:
        def __init__(self, seed=0):
            self.means = np.zeros((0, 0))

        def fit(self, descriptors, targets, classes):
            self.means = np.stack([descriptors.values[targets == k].mean(0) for k in range(len(classes))])
            return self

        def predict_proba(self, descriptors):
            distances = np.linalg.norm(descriptors.values[:, None] - self.means, axis=2)
            return np.exp(-distances) / np.exp(-distances).sum(1, keepdims=True)

        def state(self):
            return {"means": self.means}

        def load_state(self, state):
            self.means = state["means"]
            return self

    try:
        diagnoser = LearnedDiagnoser(Candidate("nearest_mean", "families")).fit(bearings)
        hits = [found == each.label for found, each in zip(diagnoser.predict(bearings), bearings, strict=True)]
        assert np.mean(hits) > 1 / 3
    finally:
        DIAGNOSERS._entries.pop("nearest_mean")
