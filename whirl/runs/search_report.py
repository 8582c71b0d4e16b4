"""What a search leaves behind: `trials.csv`, `best.yaml`'s candidate in plain words, and `report.html`."""

from __future__ import annotations

import base64
import io
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from whirl.evaluation.report import page_template
from whirl.runs.search_space import Space, outside
from whirl.tuning.plots import plot_history, plot_importances, plot_parallel_coordinates
from whirl.tuning.results import results_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

SCORE = "validation accuracy of windows"
MAX_ROWS = 15

_STATES = {
    "COMPLETE": "finished",
    "PRUNED": "pruned",
    "FAIL": "failed",
    "RUNNING": "running elsewhere",
    "WAITING": "waiting",
}


@dataclass(frozen=True)
class Tried:
    """One candidate and what became of it.

    Attributes:
        number: of its trial in the study.
        candidate: its values by setting.
        state: `finished`, `pruned`, `failed`, or that it is not over.
        score: of the weights that were kept; None unless it is finished.
        n_epochs: epochs that it was trained.
        time_s: seconds that they took; None where nobody knows.
        why: cause of a failure.
        is_usual: whether it is the settings one had without a search.
    """

    number: int
    candidate: Mapping[str, Any]
    state: str
    score: float | None
    n_epochs: int
    time_s: float | None
    why: str
    is_usual: bool


@dataclass(frozen=True, kw_only=True)
class SearchReport:
    """All that the report of a search tells; names and messages may hold anything, they are escaped.

    Attributes:
        title: heading.
        data: what the recordings are.
        trials: all of them, in the order in which they were begun; at least one is finished.
        space: what was searched.
        usual: the settings one had without a search.
        epochs: that an unpruned trial is trained.
        seed: of weights, order, split and search.
        n_windows: validation windows that a score is the share of.
        importances: of each setting for the score; empty where nothing can be said.
        train_command: what trains the best settings.
        caution: what nobody may overlook who reads the score.
        notes: how it was done.
    """

    title: str
    data: str
    trials: Sequence[Tried]
    space: Space
    usual: Mapping[str, Any]
    epochs: int
    seed: int
    n_windows: int
    importances: Mapping[str, float]
    train_command: str
    caution: str
    notes: Sequence[str] = ()

    @property
    def ranked(self) -> list[Tried]:
        """The finished trials, the best first; of equal ones the earlier."""
        finished = [tried for tried in self.trials if tried.score is not None]
        return sorted(finished, key=lambda tried: (-(tried.score or 0), tried.number))

    @property
    def best(self) -> Tried:
        """The one with the highest score."""
        return self.ranked[0]

    @property
    def comparison(self) -> str:
        """The best trial beside the usual settings, in a sentence."""
        usual = next((tried for tried in self.trials if tried.is_usual), None)
        if usual is None:
            why = "lie outside the space and " if outside(self.space, self.usual) else ""
            return f"The usual settings {why}were not tried."
        if usual.score is None:
            return f"The usual settings, trial {usual.number}, have no score: {usual.state}."
        if usual.number == self.best.number:
            others = len(self.trials) - 1
            found = f"none of {counted(others, 'other trial')} was better" if others else "no others were tried"
            return f"These are the usual settings: {found}."
        gained = round((self.best.score or 0) * self.n_windows) - round(usual.score * self.n_windows)
        return (
            f"The usual settings, trial {usual.number}, come to {usual.score:.4f}: "
            f"{counted(gained, 'window')} of {self.n_windows} fewer."
        )


def tried_of(trials: Sequence[Any], usual: Mapping[str, Any]) -> list[Tried]:
    """What became of the trials of a study, given as Optuna's frozen trials."""
    return [
        Tried(
            number=trial.number,
            candidate=trial.params,
            state=_STATES[trial.state.name],
            score=trial.value if trial.state.name == "COMPLETE" else None,
            n_epochs=len(trial.intermediate_values),
            time_s=None if trial.duration is None else trial.duration.total_seconds(),
            why=trial.user_attrs.get("failure", "its workers died"),
            is_usual=trial.params == usual,
        )
        for trial in trials
    ]


def table_of(trials: Sequence[Tried]) -> DataFrame:
    """The tidy table of a search, see `results_table`, led by the trials' numbers and with their epochs at the end."""
    missing = float("nan")
    table = results_table(
        [tried.candidate for tried in trials],
        [missing if tried.score is None else tried.score for tried in trials],
        [missing] * len(trials),
        [missing if tried.time_s is None else tried.time_s for tried in trials],
        [tried.state for tried in trials],
    )
    del table["std_score"]  # there is one validation part
    table["epochs"] = [tried.n_epochs for tried in trials]
    table.insert(0, "trial", [tried.number for tried in trials])
    return table


def render(report: SearchReport) -> str:
    """The report as an HTML page that needs no network and no script."""
    best, usual = report.best, report.usual
    page = page_template("search.html", setting=shown, duration=duration).render(
        report=report,
        best=best,
        counted=counted,
        names=list(report.space),
        settings=[
            (name, shown(best.candidate[name]), shown(usual[name]), _span(values))
            for name, values in report.space.items()
        ],
        ranked=report.ranked[:MAX_ROWS],
        failed=[tried for tried in report.trials if tried.state == "failed"],
        figures=_figures(report),
    )
    return page.encode("utf-8", "replace").decode("utf-8")


def _figures(report: SearchReport) -> list[dict[str, str]]:
    finished = [tried for tried in report.trials if tried.score is not None]
    table = results_table(
        [tried.candidate for tried in finished],
        [tried.score or 0.0 for tried in finished],
        [float("nan")] * len(finished),
        [tried.time_s or float("nan") for tried in finished],
    )
    left_out = len(report.trials) - len(finished)
    without = f" {counted(left_out, 'trial')} without a final score ({_states(report.trials)}) are not drawn."
    rest = without if left_out else ""
    drawn = [
        (
            "History",
            f"Finished trials, counted in the order in which they were begun.{rest}",
            plot_history(table, SCORE),
        ),
        (
            "Every trial",
            f"A line is a trial: its values, and on the right its score.{rest}",
            plot_parallel_coordinates(table, SCORE),
        ),
    ]
    if report.importances:
        says = (
            "Share of the scores' variation within the searched ranges that a setting explains by itself (functional "
            "analysis of variance over a random forest). From few trials it is rough."
        )
        drawn.insert(1, ("Which settings mattered", says, plot_importances(report.importances)))
    return [{"title": title, "says": says, "svg": _encoded(figure)} for title, says, figure in drawn]


def _encoded(figure: Figure) -> str:
    """The figure as base64 of an SVG: as a picture, in which no script can run whatever a label says."""
    from matplotlib import rc_context

    content = io.BytesIO()
    with rc_context({"svg.hashsalt": "whirl"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure.savefig(content, format="svg", metadata={"Date": None})
    return base64.b64encode(content.getvalue()).decode()


def format_summary(report: SearchReport, report_file: str) -> list[str]:
    """The result in a few lines, for a terminal."""
    best = report.best
    return [
        f"{counted(len(report.trials), 'trial')}: {_states(report.trials)}",
        f"  best   {best.score:.4f}  trial {best.number}: {describe(best.candidate)}",
        f"  {report.comparison}",
        f"  caution: {report.caution}",
        f"train it: {report.train_command}",
        f"report: {report_file}",
    ]


def _states(trials: Sequence[Tried]) -> str:
    found = Counter(tried.state for tried in trials)
    return ", ".join(f"{found[state]} {state}" for state in _STATES.values() if found[state])


def describe(candidate: Mapping[str, Any]) -> str:
    """A candidate in a line.

    Example:
        >>> describe({"lr": 0.0012345, "augment": None})
        'lr 0.00123, augment none'
    """
    return ", ".join(f"{name} {shown(value)}" for name, value in candidate.items())


def shown(value: Any) -> str:
    """A value of a setting, as text."""
    if isinstance(value, float):
        return f"{value:.3g}"
    return "none" if value is None else str(value)


def _span(values: dict[str, Any] | list[Any]) -> str:
    if isinstance(values, list):
        return ", ".join(map(shown, values))
    return f"{shown(values['low'])} to {shown(values['high'])}{', by ratios' if values.get('log') else ''}"


def counted(n: int, noun: str) -> str:
    """A number of things.

    Example:
        >>> counted(1, "trial"), counted(2, "trial")
        ('1 trial', '2 trials')
    """
    return f"{n} {noun}{'' if n == 1 else 's'}"


def duration(seconds: float | None) -> str:
    """A time in the unit that suits it.

    Example:
        >>> duration(0.52), duration(75), duration(8000), duration(None)
        ('0.52 s', '1.2 min', '2.2 h', '–')
    """
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
