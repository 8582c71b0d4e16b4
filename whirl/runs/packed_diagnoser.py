"""A model of descriptors and its detector of unusual recordings as arrays, which contain no code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whirl.diagnosis.descriptor_sets import DescriptorKind, Descriptors
from whirl.diagnosis.family_features import FAMILY_FEATURES, PARTS
from whirl.diagnosis.learned import Candidate, LearnedDiagnoser
from whirl.diagnosis.novelty import NoveltyDetector
from whirl.diagnosis.order_levels import level_names
from whirl.evaluation.export import arrays_from_bytes, arrays_to_bytes

MAX_PACKED_BYTES = 2**27
"""Maximum size of a packed model: more than 200 trees on 100 000 recordings take."""

_MODEL, _NOVELTY = "model.", "novelty."
_N_EVIDENCE = 11  # features of `order_evidence`


def pack(diagnoser: LearnedDiagnoser, novelty: NoveltyDetector | None) -> bytes:
    """Serialize a trained model and its detector of unusual recordings.

    Raises:
        ImportError: safetensors is not installed.
    """
    arrays: dict[str, NDArray[Any]] = {_MODEL + name: array for name, array in diagnoser.state().items()}
    if novelty is not None:
        arrays |= {_NOVELTY + name: array for name, array in novelty.state().items()}
    return arrays_to_bytes(arrays)


def unpack(
    data: bytes, candidate: Candidate, classes: Sequence[str], n_channels: int
) -> tuple[LearnedDiagnoser, NoveltyDetector | None]:
    """Restore what `pack` returned; the bytes may come from an untrusted source.

    Args:
        data: the bytes.
        candidate: the model and its descriptors.
        classes: names of the K classes.
        n_channels: channels of the recordings.

    Raises:
        ImportError: safetensors is not installed.
        ValueError: the arrays are not those of such a model, or it gives no probabilities.
    """
    arrays = arrays_from_bytes(data)
    try:
        diagnoser = LearnedDiagnoser.from_state(candidate, _with_prefix(arrays, _MODEL), classes)
        of_novelty = _with_prefix(arrays, _NOVELTY)
        novelty = NoveltyDetector.from_state(of_novelty) if of_novelty else None
        probabilities = diagnoser.predict_proba(example_descriptors(candidate.kind, n_channels))
        if novelty is not None:
            novelty.distances(np.zeros((1, len(novelty.distances.center))))
    except (KeyError, IndexError, RuntimeError, TypeError) as error:
        raise ValueError(f"contains another model ({type(error).__name__}: {error})") from None
    is_complete = probabilities.shape == (2, len(classes)) and np.allclose(probabilities.sum(axis=1), 1, atol=1e-3)
    if not is_complete:
        raise ValueError(f"contains a model that gives no probabilities of {len(classes)} classes")
    return diagnoser, novelty


def _with_prefix(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def example_descriptors(kind: DescriptorKind, n_channels: int) -> Descriptors:
    """Return descriptors of two recordings without any fault, to try a model with.

    Example:
        >>> example_descriptors("order_levels", 2).values.shape
        (2, 42)
    """
    widths = {"families": 2 * len(PARTS), "evidence": _N_EVIDENCE, "order_levels": len(level_names(n_channels))}
    widths["evidence_and_levels"] = widths["evidence"] + widths["order_levels"]
    n_families = 2 if kind == "families" else 0
    return Descriptors(
        kind,
        np.zeros((2, widths[kind]), np.float32),
        np.arange(2),
        2,
        np.zeros((n_families, len(PARTS), len(FAMILY_FEATURES)), np.float32),
        np.ones((n_families, len(PARTS)), bool),
        np.full(n_families, len(PARTS)),
    )
