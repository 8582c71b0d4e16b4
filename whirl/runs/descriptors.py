"""Models of descriptors in a run: when they are the default, which one, and the baselines for every report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from whirl._parallel import map_in_threads
from whirl.data.recording import Recording
from whirl.data.splits import Split
from whirl.data.windows import known_quantities
from whirl.diagnosis.descriptor_sets import DescriptorKind, Descriptors, describe, join
from whirl.diagnosis.learned import BEARING_CANDIDATES, ROTOR_CANDIDATES, Candidate, LearnedDiagnoser
from whirl.diagnosis.registry import BUILT_IN, DIAGNOSERS
from whirl.diagnosis.selection import Choice, choose_candidate, suitable_candidates
from whirl.diagnosis.waveform_features import describe_waveform, is_noise
from whirl.engine.objective import SAMPLE_WEIGHT
from whirl.evaluation.metrics import compute_metrics
from whirl.evaluation.prediction import UNKNOWN, Predictions
from whirl.physics.faults import ROLLING_CLASSES, signature
from whirl.runs.config import Config
from whirl.runs.descriptions import OFF
from whirl.runs.sections import InputSection, ModelSection, TrainingSection


@dataclass(frozen=True, eq=False)
class PartDescriptors:
    """Descriptors of the parts of a run, computed when first needed, from the recordings before resampling.

    Attributes:
        parts: recordings of each part by its name.
        held_out: what the comparison of models found for the part `"train"`, see `Choice.held_out`, by model and seed.
    """

    parts: Mapping[str, Sequence[Recording]]
    held_out: dict[tuple[Candidate, int], NDArray[np.float64]] = field(default_factory=dict)
    _computed: dict[tuple[str, str], Descriptors] = field(default_factory=dict)
    _waveforms: dict[tuple[str, float], NDArray[np.float64]] = field(default_factory=dict)

    @cached_property
    def shows_noise(self) -> bool:
        """Whether a recording of the part `"train"` shows nothing but noise in every channel."""
        return any(map_in_threads(shows_noise, self.parts["train"]))

    def get(self, part: str, kind: DescriptorKind) -> Descriptors:
        """Return the descriptors of a part."""
        if (part, kind) not in self._computed:
            is_joined = kind == "evidence_and_levels"
            self._computed[part, kind] = (
                join(self.get(part, "evidence"), self.get(part, "order_levels"))
                if is_joined
                else describe(self.parts[part], kind)
            )
        return self._computed[part, kind]

    def of_waveforms(self, part: str, rate_hz: float) -> NDArray[np.float64]:
        """Return the features of the signals of a part up to half of `rate_hz`, `[n, F]`; NaN where there are none."""
        if (part, rate_hz) not in self._waveforms:
            rows = list(map_in_threads(lambda each: describe_waveform(each, rate_hz), self.parts[part]))
            width = min(len(row) for row in rows)
            features = [row if len(row) == width else np.full(width, np.nan) for row in rows]
            self._waveforms[part, rate_hz] = np.array(features)
        return self._waveforms[part, rate_hz]

    def add(self, part: str, descriptors: Descriptors) -> None:
        """Add descriptors of a part that were computed elsewhere."""
        self._computed[part, descriptors.kind] = descriptors

    def with_test(self, recordings: Sequence[Recording]) -> PartDescriptors:
        """Return the descriptors with other recordings as the test part."""
        kept = {key: value for key, value in self._computed.items() if key[0] != "test"}
        waveforms = {key: value for key, value in self._waveforms.items() if key[0] != "test"}
        return PartDescriptors({**self.parts, "test": recordings}, self.held_out, kept, waveforms)


def shows_noise(recording: Recording) -> bool:
    """Whether every channel of a recording shows nothing but noise, see `is_noise`."""
    return all(is_noise(signal) for signal in recording.signal)


def training_part(split: Split) -> list[Recording]:
    """Return the recordings on which models of descriptors are trained.

    They are compared within the training part and need no validation part; its recordings are added unless they are
    cut from the same recordings.
    """
    return split.train if split.val_by == "time" else [*split.train, *split.val]


def with_bearing(recordings: Sequence[Recording], config: Config) -> list[Recording]:
    """Give the configured bearing to recordings that do not state theirs."""
    return [r if r.bearing or not config.bearing else replace(r, bearing=config.bearing) for r in recordings]


def is_descriptor_model(name: str | None) -> bool:
    """Return whether a name is that of a model of descriptors, as opposed to a network.

    Example:
        >>> is_descriptor_model("extra_trees"), is_descriptor_model("cnn1d"), is_descriptor_model(None)
        (True, False, False)
    """
    return name in DIAGNOSERS.names()


def candidates_for(config: Config, recordings: Sequence[Recording]) -> tuple[Candidate, ...]:
    """Return the models of descriptors that a configuration leaves to choose from; none if it asks for a network.

    By default these are all that suit the recordings, unless a setting of the network or its training was changed, or
    recordings have weights, which only networks take.

    Raises:
        ValueError: the stated model cannot describe the recordings, or take their weights.
    """
    name, kind = config.model.name, config.model.descriptors
    if name is None:
        is_open = leaves_model_open(config) and not have_weights(recordings)
        return _of_kind(suitable_candidates(recordings), kind) if is_open else ()
    if not is_descriptor_model(name):
        return ()
    if have_weights(recordings):
        raise ValueError(
            f"recordings have a {SAMPLE_WEIGHT}, which model {name!r} does not take: choose a network, or remove the "
            "column"
        )
    _check_without_network_settings(config)
    suitable = suitable_candidates(recordings) or _by_speed_or_bearing(recordings)
    if name not in BUILT_IN:
        suitable = tuple(dict.fromkeys(Candidate(name, each.kind) for each in suitable))
    chosen = _of_kind([each for each in suitable if each.model == name], kind)
    if not chosen:
        missing = why_no_descriptors(recordings) or "it does not take the descriptors that suit them"
        raise ValueError(f"model {name!r} cannot describe the recordings: {missing}")
    return chosen


def have_weights(recordings: Sequence[Recording]) -> bool:
    """Whether any recording states a weight of its samples in the loss."""
    return SAMPLE_WEIGHT in known_quantities(recordings)


def _of_kind(candidates: Sequence[Candidate], kind: str | None) -> tuple[Candidate, ...]:
    return tuple(each for each in candidates if kind in (None, OFF, each.kind))


def leaves_model_open(config: Config) -> bool:
    """Return whether no setting of a network or its training was changed."""
    return not _network_settings(config)


def _network_settings(config: Config) -> list[str]:
    """Return the settings of networks and their training that were changed, unless they are for compared networks."""
    if config.model.compared:
        return []
    pairs = ((config.training, TrainingSection()), (config.input, InputSection()))
    changed = [
        "trainer" if name == "method" else name
        for section, default in pairs
        for name in type(section).model_fields
        if getattr(section, name) != getattr(default, name)
    ]
    return changed + ["width"] * (config.model.width != ModelSection().width)


def _check_without_network_settings(config: Config) -> None:
    is_of_a_run = config.model.descriptors is not None  # the configuration of a run states every setting
    changed = [] if is_of_a_run else _network_settings(config)
    if changed:
        raise ValueError(f"{changed[0]} is a setting of networks; leave it out for model {config.model.name!r}")


def _by_speed_or_bearing(recordings: Sequence[Recording]) -> tuple[Candidate, ...]:
    """Candidates for labels that physics does not know, if their user asks for a model of descriptors."""
    if any(recording.rpm is None for recording in recordings):
        return ()
    return BEARING_CANDIDATES if all(recording.bearing for recording in recordings) else ROTOR_CANDIDATES


def why_no_descriptors(recordings: Sequence[Recording]) -> str:
    """Return what keeps the recordings from being described by physics; empty if nothing does."""
    n_slow = sum(recording.rpm is None for recording in recordings)
    if n_slow:
        return f"the speed of {n_slow} of {len(recordings)} recordings is unknown"
    rolling = {signature(name) for name in ROLLING_CLASSES[1:]}
    n_unknown = sum(not recording.bearing for recording in recordings)
    if n_unknown and any(signature(recording.label or "") in rolling for recording in recordings):
        return f"the bearing of {n_unknown} of {len(recordings)} recordings is unknown"
    return ""


def choose_model(config: Config, candidates: Sequence[Candidate], descriptors: PartDescriptors) -> Choice:
    """Choose the model of descriptors by a comparison within the training part."""
    choice = choose_candidate(
        descriptors.parts["train"],
        candidates,
        lambda kind: descriptors.get("train", kind),
        seed=config.run.seed,
    )
    if choice.held_out is not None:
        descriptors.held_out[choice.candidate, config.run.seed] = choice.held_out
    return choice


def train_diagnoser(config: Config, classes: Sequence[str], descriptors: PartDescriptors) -> LearnedDiagnoser:
    """Train the model of a resolved configuration on the training part."""
    candidate = Candidate(cast("str", config.model.name), cast("DescriptorKind", config.model.descriptors))
    labels = [str(recording.label) for recording in descriptors.parts["train"]]
    diagnoser = LearnedDiagnoser(candidate, config.run.seed)
    return diagnoser.fit(descriptors.get("train", candidate.kind), labels, classes)


def predict_test(diagnoser: LearnedDiagnoser, classes: Sequence[str], descriptors: PartDescriptors) -> Predictions:
    """Predict the recordings of the test part; those that cannot be described have equal probabilities."""
    probabilities = diagnoser.predict_proba(descriptors.get("test", diagnoser.candidate.kind))
    return _as_predictions(probabilities, classes, descriptors.parts["test"])


def _as_predictions(
    probabilities: NDArray[np.floating], classes: Sequence[str], recordings: Sequence[Recording]
) -> Predictions:
    known = np.where(np.isnan(probabilities), 1 / len(classes), probabilities)
    targets = [classes.index(str(each.label)) if each.label in classes else UNKNOWN for each in recordings]
    return Predictions(known, np.array(targets), np.arange(len(recordings)))


# -- baselines -----------------------------------------------------------------------------------------------

BASELINES = {
    "families": {"rule": "untrained rule", "logistic_regression": "logistic regression on descriptors"},
    "evidence": {"logistic_regression": "logistic regression on evidence"},
}
"""Models that every report scores beside the trained one, by kind of descriptors, and their names in reports."""

MAJORITY = "most frequent class"


def baselines(
    classes: Sequence[str], descriptors: PartDescriptors, untrained: Predictions | None = None
) -> dict[str, dict[str, Any]]:
    """Score simple diagnosers on the test part: the untrained rule, logistic regression, and the most frequent class.

    Args:
        classes: names of the classes.
        descriptors: those of training and test part.
        untrained: predictions by physical evidence, where the rule for rolling bearings does not apply.

    Returns:
        Accuracy and macro F1 of each by its name, or `{"reason": ...}` of one that is not applicable.
    """
    found: dict[str, dict[str, Any]] = {}
    suitable = suitable_candidates(descriptors.parts["train"])
    test = descriptors.parts["test"]
    if untrained is not None:
        found[BASELINES["families"]["rule"]] = _score(untrained, test, classes)
    for model, text in BASELINES.get(suitable[0].kind, {}).items() if suitable else ():
        diagnoser = LearnedDiagnoser(Candidate(model, suitable[0].kind))
        labels = [str(recording.label) for recording in descriptors.parts["train"]]
        diagnoser.fit(descriptors.get("train", suitable[0].kind), labels, classes)
        found[text] = _score(predict_test(diagnoser, classes, descriptors), test, classes)
    if not suitable:
        reason = f"no physics: {why_no_descriptors(descriptors.parts['train']) or 'the labels name no known faults'}"
        found |= {text: {"reason": reason} for text in BASELINES["families"].values() if text not in found}
    return found | {MAJORITY: _score(_majority(classes, descriptors), test, classes)}


def _majority(classes: Sequence[str], descriptors: PartDescriptors) -> Predictions:
    labels = [recording.label for recording in descriptors.parts["train"]]
    test = descriptors.parts["test"]
    shares = np.array([labels.count(label) for label in classes]) / len(labels)
    return _as_predictions(np.tile(shares, (len(test), 1)), classes, test)


def _score(predictions: Predictions, recordings: Sequence[Recording], classes: Sequence[str]) -> dict[str, Any]:
    metrics = compute_metrics(predictions, recordings, classes)
    return {name: metrics[name] for name in ("accuracy", "macro_f1")}


def better_baselines(metrics: Mapping[str, Any]) -> list[str]:
    """Return sentences about baselines that surpass the trained diagnoser in macro F1, best first.

    Example:
        >>> better_baselines({"recording": {"macro_f1": 0.35}, "baselines": {"untrained rule": {"macro_f1": 0.84}}})
        ['the untrained rule is better than the trained diagnoser: macro F1 0.840 instead of 0.350']
    """
    own = metrics["recording"]["macro_f1"]
    better = {
        name: scores["macro_f1"]
        for name, scores in metrics.get("baselines", {}).items()
        if scores.get("macro_f1", 0.0) > own
    }
    return [
        f"the {name} is better than the trained diagnoser: macro F1 {score:.3f} instead of {own:.3f}"
        for name, score in sorted(better.items(), key=lambda item: -item[1])
    ]
