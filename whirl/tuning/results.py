"""The table of results, the same for every kind of search."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pandas import DataFrame, Series

RESULT_COLUMNS = ("mean_score", "std_score", "rank", "time_s", "state")
"""Columns of the table of results that are not parameters."""


def results_table(
    params: Sequence[Mapping[str, Any]],
    mean_scores: Sequence[float],
    std_scores: Sequence[float],
    times_s: Sequence[float],
    states: Sequence[str] | None = None,
    *,
    maximize: bool = True,
) -> DataFrame:
    """Return a table with one row per candidate, in the order in which they were tried.

    Args:
        params: `{parameter: value}` of each of the n candidates.
        mean_scores: n means over the folds, or scores on one validation set; NaN for a failed candidate.
        std_scores: n standard deviations over the folds; NaN if there is only one validation set.
        times_s: n durations in seconds, summed over the folds.
        states: n states of Optuna's trials; None to omit the column.
        maximize: whether the largest mean is the best.

    Returns:
        A column per parameter with unchanged values (NaN for a candidate without the parameter), then `mean_score`,
        `std_score`, `rank` (1 is the best; equal scores share the better rank; failed candidates are last), `time_s`,
        and `state` if given.

    Raises:
        ValueError: a parameter has the name of another column.

    Example:
        >>> results_table([{"depth": None}, {"depth": 8}], [0.9, 0.8], [0.01, 0.02], [1.5, 1.0])
          depth  mean_score  std_score  rank  time_s
        0  None         0.9       0.01     1     1.5
        1     8         0.8       0.02     2     1.0
    """
    import pandas as pd

    names = list(dict.fromkeys(name for candidate in params for name in candidate))
    check_parameter_names(names)
    index = range(len(params))
    table = pd.DataFrame(
        {name: _column([candidate.get(name, np.nan) for candidate in params]) for name in names}, index=index
    )
    table["mean_score"] = np.asarray(mean_scores, dtype=float)
    table["std_score"] = np.asarray(std_scores, dtype=float)
    ranks = table["mean_score"].rank(ascending=not maximize, method="min", na_option="bottom")
    table["rank"] = ranks.astype(int)
    table["time_s"] = np.asarray(times_s, dtype=float)
    if states is not None:
        table["state"] = pd.Series(list(states), dtype=object)
    return table


def table_of_cv_results(cv_results: Mapping[str, Any], n_folds: int, scoring: str = "score") -> DataFrame:
    """Return the table of results of a `GridSearchCV` or `RandomizedSearchCV`.

    Args:
        cv_results: its `cv_results_`.
        n_folds: number of folds of the cross-validation, >= 2.
        scoring: name of the score, if there are several.
    """
    return results_table(
        cv_results["params"],
        cv_results[f"mean_test_{scoring}"],
        cv_results[f"std_test_{scoring}"],
        n_folds * (cv_results["mean_fit_time"] + cv_results["mean_score_time"]),
    )


def table_of_fold_scores(cv_results: Mapping[str, Any], n_folds: int, scores: Sequence[str]) -> DataFrame:
    """Return the score of each candidate in each fold, as a long table.

    Args:
        cv_results: `cv_results_` of a search of scikit-learn.
        n_folds: number of folds of the cross-validation.
        scores: names of the scores; `'score'` if there is only one.

    Returns:
        The columns `candidate`, `fold` (from 1), `scoring` and `score`.
    """
    import pandas as pd

    rows = [
        {"candidate": candidate, "fold": fold + 1, "scoring": name, "score": float(score)}
        for name in scores
        for fold in range(n_folds)
        for candidate, score in enumerate(cv_results[f"split{fold}_test_{name}"])
    ]
    return pd.DataFrame(rows).sort_values(["candidate", "fold"], kind="stable", ignore_index=True)


def parameter_names(results: DataFrame) -> list[str]:
    """Return the columns of a table of results that are parameters."""
    return [name for name in results.columns if name not in RESULT_COLUMNS]


def check_parameter_names(names: Iterable[str]) -> None:
    """Validate that no parameter is named like another column of the table of results.

    Raises:
        ValueError: a parameter is; the message names it.
    """
    for name in names:
        if name in RESULT_COLUMNS:
            raise ValueError(f"parameter {name!r} cannot be searched: the table of results has a column of that name")


def plain(value: Any) -> Any:
    """Return the value, converted to a Python number if it is a NumPy scalar.

    Example:
        >>> plain(np.float64(0.5)), plain("rbf")
        (0.5, 'rbf')
    """
    return value.item() if isinstance(value, np.generic) else value


def is_number(value: Any) -> bool:
    """Return whether the value is a real number; bools are not.

    Example:
        >>> is_number(0.5), is_number(True), is_number("rbf")
        (True, False, False)
    """
    return isinstance(value, numbers.Real) and not isinstance(value, bool | np.bool_)


def _column(values: list[Any]) -> Series:
    """Create a column without conversions: None stays None, tuples stay cells, and integers stay integers."""
    import pandas as pd

    values = [plain(value) for value in values]
    kinds = {type(value) for value in values}
    fits_int64 = kinds == {int} and all(abs(value) < 2**63 for value in values)
    cells = np.empty(len(values), dtype=object)
    for row, value in enumerate(values):  # assigned at once, NumPy would unpack values that are sequences
        cells[row] = value
    return pd.Series(cells, dtype=next(iter(kinds)) if kinds in ({bool}, {float}) or fits_int64 else object)
