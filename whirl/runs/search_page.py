"""The report of a search as an HTML page and as text for the terminal."""

from __future__ import annotations

import base64
import io
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from whirl.evaluation.report import page_template
from whirl.runs.search_report import STATES, SearchReport, TrialSummary
from whirl.runs.search_text import format_candidate, format_count, format_duration, format_range, format_value
from whirl.tuning.plots import plot_history, plot_importances, plot_parallel_coordinates
from whirl.tuning.results import results_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_ROWS = 15
"""Number of trials in the table of the page."""


def render_search_report(report: SearchReport) -> str:
    """Render the report as a self-contained HTML page without scripts."""
    best, defaults = report.best, report.defaults
    page = page_template("search.html", setting=format_value, duration=format_duration).render(
        report=report,
        best=best,
        format_count=format_count,
        names=list(report.space),
        settings=[
            (name, format_value(best.candidate[name]), format_value(defaults[name]), format_range(values))
            for name, values in report.space.items()
        ],
        ranked=report.ranked[:MAX_ROWS],
        failed=[trial for trial in report.trials if trial.state == "failed"],
        figures=_figures(report),
    )
    return page.encode("utf-8", "replace").decode("utf-8")


def _figures(report: SearchReport) -> list[dict[str, str]]:
    finished = [trial for trial in report.trials if trial.score is not None]
    table = results_table(
        [trial.candidate for trial in finished],
        [trial.score or 0.0 for trial in finished],
        [float("nan")] * len(finished),
        [trial.time_s or float("nan") for trial in finished],
    )
    omitted = _omitted_trials(report.trials, len(report.trials) - len(finished))
    figures = [
        (
            "History",
            f"Finished trials in the order in which they were started.{omitted}",
            plot_history(table, report.score),
        ),
        (
            "All trials",
            f"Each line is a trial; the rightmost axis is its score.{omitted}",
            plot_parallel_coordinates(table, report.score),
        ),
    ]
    if report.importances:
        caption = (
            "Share of the variation of the scores within the searched ranges that a setting explains by itself "
            "(functional analysis of variance over a random forest). The estimate from few trials is rough."
        )
        figures.insert(1, ("Importance of the settings", caption, plot_importances(report.importances)))
    return [{"title": title, "caption": caption, "svg": _encode_svg(figure)} for title, caption, figure in figures]


def _omitted_trials(trials: Sequence[TrialSummary], n_omitted: int) -> str:
    if not n_omitted:
        return ""
    return f" {format_count(n_omitted, 'trial')} without a final score ({_count_states(trials)}) are not drawn."


def _encode_svg(figure: Figure) -> str:
    """Encode the figure as base64 of an SVG, for an `img` element, in which scripts of labels cannot run."""
    from matplotlib import rc_context

    content = io.BytesIO()
    with rc_context({"svg.hashsalt": "whirl"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure.savefig(content, format="svg", metadata={"Date": None})
    return base64.b64encode(content.getvalue()).decode()


def format_summary(report: SearchReport, report_file: str) -> list[str]:
    """Format the result in a few lines for the terminal."""
    best = report.best
    return [
        f"{format_count(len(report.trials), 'trial')}: {_count_states(report.trials)}",
        f"  best   {best.score:.4f}  trial {best.number}: {format_candidate(best.candidate)}",
        f"  {report.comparison}",
        f"  caution: {report.caution}",
        f"train with these settings: {report.train_command}",
        f"report: {report_file}",
    ]


def _count_states(trials: Sequence[TrialSummary]) -> str:
    counts = Counter(trial.state for trial in trials)
    return ", ".join(f"{counts[state]} {state}" for state in STATES.values() if counts[state])
