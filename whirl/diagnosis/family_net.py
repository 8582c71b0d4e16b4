"""A small network that scores the families of lines of any bearing, and the weights that ship with whirl."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from whirl.diagnosis.family_features import FAMILY_FEATURES, PARTS
from whirl.validation import check_count, check_number

PRETRAINED = Path(__file__).with_name("family_net.json")
"""Weights trained on simulated bearings only, by `python -m whirl.diagnosis.pretrain`."""

NOTHING = len(PARTS)
"""Index of the logit for "no line found"."""

_NOT_JUDGED = -1e4  # logit of a family that was not evaluated


class FamilyNet(nn.Module):
    """A network that scores each family of lines from its features, with the same weights for each.

    Its inputs are the families of the recording's own bearing, so it applies to bearings that it was not trained on.
    Each family's features pass through one hidden layer to one logit. The largest hidden activations over the families
    give the logit for "no line found".

    Args:
        width: units in the hidden layer, >= 1.

    Attributes:
        mean, scale: standardization of the features, `[F]`.

    Example:
        >>> net = FamilyNet.pretrained()
        >>> sum(parameter.numel() for parameter in net.parameters())
        97
        >>> net(torch.zeros(5, 3, 9), torch.ones(5, 3, dtype=torch.bool)).shape
        torch.Size([5, 4])
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        check_count("width", width)
        self.hidden = nn.Linear(len(FAMILY_FEATURES), width)
        self.score = nn.Linear(width, 1, bias=False)
        self.nothing = nn.Linear(width, 1)
        self.register_buffer("mean", torch.zeros(len(FAMILY_FEATURES)))
        self.register_buffer("scale", torch.ones(len(FAMILY_FEATURES)))

    def forward(self, features: Tensor, judged: Tensor) -> Tensor:
        """Return the logits of inner race, outer race, rolling element and "no line found".

        Args:
            features: `[B, 3, F]`, as from `family_features`.
            judged: which families were evaluated, bool `[B, 3]`; the logits of the others are -10000.

        Returns:
            Logits `[B, 4]`.
        """
        hidden = torch.tanh(self.hidden((features - self.mean) / self.scale))
        scores = self.score(hidden).squeeze(-1).masked_fill(~judged, _NOT_JUDGED)
        strongest = hidden.masked_fill(~judged[..., None], -1).amax(1)
        return torch.cat([scores, self.nothing(strongest)], dim=1)

    @torch.no_grad()
    def predict_proba(self, features: NDArray[np.floating], judged: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the probabilities of the four verdicts `[n, 4]` from features `[n, 3, F]` and `judged` `[n, 3]`."""
        logits = self(torch.as_tensor(features, dtype=torch.float32), torch.as_tensor(judged))
        return logits.double().softmax(1).numpy()

    @classmethod
    def pretrained(cls) -> FamilyNet:
        """Load the network that ships with whirl, in evaluation mode."""
        return cls.load(PRETRAINED)

    @classmethod
    def load(cls, file: str | Path) -> FamilyNet:
        """Load a network that `save` wrote, in evaluation mode."""
        return cls.from_state(json.loads(Path(file).read_text(encoding="utf-8"))["weights"])

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> FamilyNet:
        """Create a network with the weights in a state, given as arrays or nested lists."""
        tensors = {name: torch.tensor(np.asarray(values, dtype=np.float32)) for name, values in state.items()}
        with torch.device("meta"):  # draws no weights from torch's global generator
            net = cls(len(tensors["hidden.bias"]))
        net.load_state_dict(tensors, assign=True)
        return net.eval()

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Return the weights as plain arrays."""
        return {name: tensor.detach().cpu().numpy() for name, tensor in self.state_dict().items()}

    def save(self, file: str | Path, **about: Any) -> None:
        """Write the weights as plain numbers in JSON.

        Args:
            file: the file to write.
            **about: further entries, e.g. how the network was trained.
        """
        weights = {name: np.round(values.astype(float), 6).tolist() for name, values in self.state().items()}
        text = json.dumps({**about, "features": FAMILY_FEATURES, "weights": weights}, indent=1)
        Path(file).write_text(text + "\n", encoding="utf-8")


def train_family_net(
    features: NDArray[np.floating],
    judged: NDArray[np.bool_],
    targets: NDArray[np.integer],
    net: FamilyNet | None = None,
    *,
    penalty: float = 0.1,
    steps: int = 300,
    seed: int = 0,
) -> FamilyNet:
    """Train a network, or fine-tune one, by L-BFGS on all samples.

    Each class has the same weight. Samples whose part was not evaluated are left out: their lines are hidden.

    Args:
        features: `[n, 3, F]`, as from `feature_rows`.
        judged: `[n, 3]`.
        targets: index of the part, or `NOTHING`, `[n]`.
        net: the network to start from, which is not changed; None starts with new weights.
        penalty: factor of half the mean squared distance of the weights to zero, or to those of `net`, >= 0.
        steps: iterations at most, >= 0.
        seed: seed of new weights.

    Returns:
        The trained network, in evaluation mode.
    """
    check_number("penalty", penalty, 0)
    check_count("steps", steps, 0)
    x, j, t = (torch.as_tensor(np.asarray(values)) for values in (features, judged, targets))
    known = torch.cat([j, torch.ones(len(j), 1, dtype=torch.bool)], dim=1).gather(1, t[:, None].long())[:, 0]
    x, j, t = x[known].double(), j[known], t[known].long()
    trained = (_new_net(x, j, seed) if net is None else copy.deepcopy(net)).double()
    if not steps or not len(t):
        return trained.float().eval()
    counts = torch.bincount(t, minlength=NOTHING + 1)
    weights = len(t) / ((counts > 0).sum() * counts.clamp(min=1).double())
    start = parameters_to_vector(trained.parameters()).detach()
    anchor = torch.zeros_like(start) if net is None else start

    def loss() -> Tensor:
        distance = parameters_to_vector(trained.parameters()) - anchor
        return nn.functional.cross_entropy(trained(x, j), t, weight=weights) + 0.5 * penalty * distance.square().mean()

    _minimize(trained, loss, steps)
    return trained.float().eval()


def _new_net(features: Tensor, judged: Tensor, seed: int) -> FamilyNet:
    """A network with random weights that standardizes features like those given."""
    generator = torch.Generator().manual_seed(seed)
    net = FamilyNet()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(0, 0.3, generator=generator)
        if judged.any():
            net.mean.copy_(features[judged].mean(0))
            net.scale.copy_(features[judged].std(0).clamp(min=1e-3))
    return net


def _minimize(net: nn.Module, loss: Callable[[], Tensor], steps: int) -> None:
    """Minimize a loss over the parameters of a network."""
    from scipy.optimize import minimize

    parameters = list(net.parameters())

    def value_and_gradient(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        vector_to_parameters(torch.as_tensor(flat), parameters)
        value = loss()
        gradient = parameters_to_vector(torch.autograd.grad(value, parameters))
        return float(value.detach()), gradient.numpy()

    start = parameters_to_vector(parameters).detach().numpy()
    best = minimize(value_and_gradient, start, jac=True, method="L-BFGS-B", options={"maxiter": steps}).x
    vector_to_parameters(torch.as_tensor(best), parameters)
