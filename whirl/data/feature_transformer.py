"""A scikit-learn transformer that computes features of windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from whirl.data.features import MIN_SAMPLES, SIGNAL, feature_table, signal_features
from whirl.physics.rolling_bearing import BEARINGS, FaultOrders, fault_orders
from whirl.validation import check_count, check_name, check_number


class SignalFeatures(TransformerMixin, BaseEstimator):
    """Transformer from windows to named features with units, see `whirl.data.signal_features`.

    `fit` only stores the shape of the windows, and each window is transformed independently. In a hyper-parameter
    search, the features can therefore be computed once before the search without leakage.

    Shaft speeds differ between windows and are passed with `X`, not to the constructor: `fit_transform(X, rpm=rpm)`. In
    a pipeline, enable scikit-learn's metadata routing and request them with `set_fit_request(rpm=True)` and
    `set_transform_request(rpm=True)`.

    Args:
        sampling_rate_hz: sampling rate of the windows, > 0.
        channels: unique name of each channel; None names them ch0, ch1, ...
        unit: unit of the windows, e.g. `"g"`; empty if unknown or if the windows are standardized. Only used as a name.
        bearing: name of the bearing on the shaft, a key of `whirl.physics.rolling_bearing.BEARINGS`, to add evidence of
            its faults. These are the only features that generalize to unseen bearings; they require speeds and should
            be computed from windows of about a second.
        batch_size: number of windows processed at once, >= 1.

    Attributes:
        feature_units_: unit of each column, `[F]` strings; `""` for dimensionless features.
        n_features_in_: size of the second axis of `X`: samples of `[n, T]`, channels of `[n, C, T]`.

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
        """Store the shape of the windows and whether speeds are given.

        Args:
            X: windows, `[n, T]` or `[n, C, T]`, T >= 16, finite.
            y: not used.
            rpm: shaft speed of each window, `[n]`, or one speed for all, rev/min, > 0; None omits features that require
                it.

        Raises:
            ValueError: the windows are not finite or too short, or a parameter or speed is invalid.
        """
        windows = self._validate(X, fit=True)
        rate_hz = check_number("sampling_rate_hz", self.sampling_rate_hz, 0, open_ends=True)
        check_count("batch_size", self.batch_size)
        self._speeds(rpm, len(windows))
        self._orders = self._fault_orders(rpm)
        n_channels = windows.shape[1]
        channels = [f"ch{i}" for i in range(n_channels)] if self.channels is None else list(self.channels)
        if len(channels) != n_channels or len(set(channels)) < n_channels:
            raise ValueError(f"channels are {channels}, expected {n_channels} unique names, one per channel of X")
        self._window_shape, self._with_speed = windows.shape[1:], rpm is not None
        table = feature_table(rate_hz, self._with_speed, self._orders)
        self._names = np.array([f"{channel}_{name}" for channel in channels for name, _ in table], dtype=object)
        units = [self.unit if unit == SIGNAL else unit for _, unit in table]
        self.feature_units_ = np.array(units * n_channels, dtype=object)
        return self

    def fit_transform(self, X: Any, y: Any = None, rpm: Any = None) -> np.ndarray:
        """Fit and transform; unlike the inherited method, this passes the speeds to `transform`."""
        return self.fit(X, y, rpm=rpm).transform(X, rpm=rpm)

    def transform(self, X: Any, rpm: Any = None) -> np.ndarray:
        """Compute the features of windows.

        Args:
            X: windows with as many channels and samples as in `fit`.
            rpm: as in `fit`; required if speeds were passed to `fit`, otherwise not allowed.

        Returns:
            Features `[n, C F]`, channel by channel, float32 for float32 windows, otherwise float64.

        Raises:
            ValueError: windows or speeds do not match those of `fit`.
        """
        check_is_fitted(self)
        windows = self._validate(X, fit=False)
        if windows.shape[1:] != self._window_shape:
            raise ValueError(
                f"X has {_describe(windows.shape[1:])}, expected {_describe(self._window_shape)} as in fit"
            )
        if (rpm is not None) != self._with_speed:
            raise ValueError(
                "rpm is required, since it was passed to fit"
                if self._with_speed
                else "rpm is not supported, since it was not passed to fit"
            )
        speeds = self._speeds(rpm, len(windows))
        starts = range(0, len(windows), self.batch_size)
        return np.concatenate(
            [self._transform_batch(windows, speeds, slice(start, start + self.batch_size)) for start in starts]
        )

    def _transform_batch(self, windows: np.ndarray, speeds: torch.Tensor | None, rows: slice) -> np.ndarray:
        rpm = None if speeds is None else speeds[rows]
        features = signal_features(torch.tensor(windows[rows]), float(self.sampling_rate_hz), rpm, self._orders)
        return features.flatten(1).numpy()

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the names of the columns, channel and feature, e.g. `"DE_kurtosis"`; units are in `feature_units_`.

        Args:
            input_features: names of the second axis of `X`, as required by scikit-learn; only validated.

        Raises:
            ValueError: the input names do not match those of `fit`.
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

    def _validate(self, X: Any, fit: bool) -> np.ndarray:
        """Return windows as `[n, C, T]`, finite, float32 or float64."""
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
            raise ValueError(f"rpm has shape {speeds.shape}, expected one speed, or one per window ({n_windows})")
        speeds = np.broadcast_to(speeds, n_windows)
        if (invalid := ~((speeds > 0) & np.isfinite(speeds))).any():
            first = int(invalid.argmax())
            raise ValueError(f"rpm of window {first} is {speeds[first]:g}, expected a finite number > 0")
        return torch.tensor(speeds)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        tags.requires_fit = True
        return tags


def _describe(shape: tuple[int, ...]) -> str:
    return f"{shape[0]} channel(s) of {shape[1]} samples"
