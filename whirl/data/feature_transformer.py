"""Features of windows as a step of a scikit-learn pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from whirl._distribution import install_hint

try:
    from sklearn.base import BaseEstimator, TransformerMixin
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError:
    raise ImportError(f"features in a pipeline need scikit-learn 1.6: {install_hint('search')}") from None

from whirl.data.features import MIN_SAMPLES, SIGNAL, feature_table, signal_features
from whirl.physics.rolling_bearing import BEARINGS, FaultOrders, fault_orders
from whirl.validation import check_count, check_name, check_number


class SignalFeatures(TransformerMixin, BaseEstimator):
    """Windows to features that have names and units, see `features.signal_features`.

    Nothing is learned from the windows but their shape. So where a search fits many candidates, features may as well be
    made once, in front of it: no window sees another.

    Speeds are one for each window and so come with `X`, not with the constructor: `fit_transform(X, rpm=rpm)`. Within a
    pipeline scikit-learn hands them on where metadata routing is enabled and asked for, `set_fit_request(rpm=True)` and
    `set_transform_request(rpm=True)`.

    Args:
        sampling_rate_hz: of the windows, > 0.
        channels: a name for each channel, all different; None names them ch0, ch1, ...
        unit: of the windows, such as `"g"`; empty where it is not known or they were standardised. A name only.
        bearing: name in `rolling_bearing.BEARINGS` of the bearing on the shaft, for evidence of its faults, the only
            features that tell faults of bearings not trained on; it needs speeds and should get windows of a second.
        batch_size: windows at once, >= 1.

    Attributes:
        feature_units_: unit of each column, `[F]` strings; `""` is a pure number.
        n_features_in_: what scikit-learn calls the second axis of `X`: samples of `[n, T]`, channels of `[n, C, T]`.

    Example:
        >>> from sklearn.ensemble import RandomForestClassifier
        >>> from sklearn.pipeline import make_pipeline
        >>> rng = np.random.default_rng(0)
        >>> X = rng.standard_normal((40, 1, 512))
        >>> X[20:, :, ::64] += 5  # impacts
        >>> y = ["healthy"] * 20 + ["worn"] * 20
        >>> model = make_pipeline(SignalFeatures(12_000, ["DE"], "g"), RandomForestClassifier(10, random_state=0))
        >>> model.fit(X[::2], y[::2]).score(X[1::2], y[1::2])
        1.0
        >>> features = model[0]
        >>> list(zip(features.get_feature_names_out(), features.feature_units_))[:2]
        [('DE_rms', 'g'), ('DE_peak', 'g')]
    """

    n_features_in_: int

    def __init__(
        self,
        sampling_rate_hz: float,
        channels: Sequence[str] | None = None,
        unit: str = "",
        bearing: str | None = None,
        batch_size: int = 512,
    ) -> None:
        self.sampling_rate_hz = sampling_rate_hz
        self.channels = channels
        self.unit = unit
        self.bearing = bearing
        self.batch_size = batch_size

    def fit(self, X: Any, y: Any = None, rpm: Any = None) -> SignalFeatures:
        """Notes the shape of the windows, and whether speeds come with them.

        Args:
            X: windows, `[n, T]` or `[n, C, T]`, T >= 16, finite.
            y: not used.
            rpm: speed of the shaft, rev/min, > 0, of each window, `[n]`, or one for all; None leaves out what needs it.

        Raises:
            ValueError: the windows are not finite or too short, or a parameter or speed makes no sense.
        """
        windows = self._checked(X, fit=True)
        rate_hz = check_number("sampling_rate_hz", self.sampling_rate_hz, 0, open_ends=True)
        check_count("batch_size", self.batch_size)
        self._speeds(rpm, len(windows))
        self._orders = self._fault_orders(rpm)
        n_channels = windows.shape[1]
        channels = [f"ch{i}" for i in range(n_channels)] if self.channels is None else list(self.channels)
        if len(channels) != n_channels or len(set(channels)) < n_channels:
            raise ValueError(f"channels are {channels}, expected {n_channels} different names, one for each of X")
        self._window_shape, self._with_speed = windows.shape[1:], rpm is not None
        table = feature_table(rate_hz, self._with_speed, self._orders)
        self._names = np.array([f"{channel}_{name}" for channel in channels for name, _ in table], dtype=object)
        units = [self.unit if unit == SIGNAL else unit for _, unit in table]
        self.feature_units_ = np.array(units * n_channels, dtype=object)
        return self

    def fit_transform(self, X: Any, y: Any = None, rpm: Any = None) -> np.ndarray:
        """`fit`, then `transform` of the same; scikit-learn's own would leave the speeds out at the second."""
        return self.fit(X, y, rpm=rpm).transform(X, rpm=rpm)

    def transform(self, X: Any, rpm: Any = None) -> np.ndarray:
        """Features of windows.

        Args:
            X: as at `fit`, with as many channels and samples.
            rpm: as at `fit`; needed if there were speeds then, and refused if not.

        Returns:
            `[n, C F]`, channel by channel, float32 for float32 windows, else float64.

        Raises:
            ValueError: windows or speeds are not as at `fit`.
        """
        check_is_fitted(self)
        windows = self._checked(X, fit=False)
        if windows.shape[1:] != self._window_shape:
            raise ValueError(f"X has {_shaped(windows.shape[1:])}, expected {_shaped(self._window_shape)} as at fit")
        if (rpm is not None) != self._with_speed:
            given = ("not given", "given")
            raise ValueError(
                f"rpm is {given[rpm is not None]}, at fit it was {given[self._with_speed]}: expected alike"
            )
        speeds = self._speeds(rpm, len(windows))
        starts = range(0, len(windows), self.batch_size)
        return np.concatenate([self._of(windows, speeds, slice(start, start + self.batch_size)) for start in starts])

    def _of(self, windows: np.ndarray, speeds: torch.Tensor | None, rows: slice) -> np.ndarray:
        rpm = None if speeds is None else speeds[rows]
        features = signal_features(torch.tensor(windows[rows]), float(self.sampling_rate_hz), rpm, self._orders)
        return features.flatten(1).numpy()

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the columns, channel and feature, such as `"DE_kurtosis"`; their units are `feature_units_`.

        Args:
            input_features: for scikit-learn's sake; names of the second axis of `X`.

        Raises:
            ValueError: there are more or fewer of them, or others than at `fit`.
        """
        check_is_fitted(self)
        if input_features is not None:
            self._check_input_features(input_features)
        return self._names

    def _check_input_features(self, names: Any) -> None:
        if len(names) != self.n_features_in_:
            raise ValueError(
                f"input_features should have length equal to number of features ({self.n_features_in_}), "
                f"got {len(names)}"
            )
        if list(names) != list(getattr(self, "feature_names_in_", names)):
            raise ValueError("input_features is not equal to feature_names_in_")

    def _checked(self, X: Any, fit: bool) -> np.ndarray:
        """Windows `[n, C, T]`, finite, float32 or float64."""
        values = validate_data(self, X, reset=fit, dtype=(np.float64, np.float32), allow_nd=True)
        return self._windows(np.asarray(values))

    def _windows(self, values: np.ndarray) -> np.ndarray:
        if values.ndim > 3:
            raise ValueError(f"X has shape {values.shape}, expected [windows, samples] or [windows, channels, samples]")
        if values.shape[-1] < MIN_SAMPLES:
            raise ValueError(f"X has windows of {values.shape[-1]} samples, expected at least {MIN_SAMPLES}")
        return values[:, None] if values.ndim == 2 else values

    def _fault_orders(self, rpm: Any) -> FaultOrders | None:
        if self.bearing is None:
            return None
        check_name("bearing", self.bearing, BEARINGS)
        if rpm is None:
            raise ValueError(f"bearing is {self.bearing!r} but rpm is None, expected the speed of every window")
        return fault_orders(BEARINGS[self.bearing])

    def _speeds(self, rpm: Any, n_windows: int) -> torch.Tensor | None:
        if rpm is None:
            return None
        speeds = np.asarray(rpm, dtype=np.float64)
        if speeds.shape not in ((), (n_windows,)):
            raise ValueError(
                f"rpm has shape {speeds.shape}, expected one speed, or one for each of {n_windows} windows"
            )
        speeds = np.broadcast_to(speeds, n_windows)
        if (wrong := ~((speeds > 0) & np.isfinite(speeds))).any():
            first = int(wrong.argmax())
            raise ValueError(f"rpm of window {first} is {speeds[first]:g}, expected the speed of every window, > 0")
        return torch.tensor(speeds)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        tags.requires_fit = True
        return tags


def _shaped(shape: tuple[int, ...]) -> str:
    return f"{shape[0]} channel(s) of {shape[1]} samples"
