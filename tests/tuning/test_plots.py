"""Tests of the figures of search results, with parameter values of any type."""

import io

import numpy as np
import pytest
from matplotlib.figure import Figure

from whirl.tuning import plots
from whirl.tuning.results import results_table

MIXED = [
    {"kernel": "rbf", "C": 0.01, "layers": (32, 8), "shrink": True, "gamma": "scale"},
    {"kernel": None, "C": 10.0, "layers": (64,), "shrink": False, "gamma": 0.1},
    {"kernel": "$x$_very_long_name_of_a_kernel_that_does_not_fit", "C": 1000.0, "layers": None, "shrink": True},
    {"kernel": "rbf", "C": 0.1, "layers": (32, 8), "shrink": False, "gamma": object},
]


def mixed_results(scores=(0.5, 0.9, np.nan, 0.7)):
    return results_table(MIXED, scores, [0.1, 0.02, np.nan, 0.0], [1.0, 2.0, 3.0, 4.0])


def renders(figure):
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return len(file.getvalue()) > 3000


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_history_marks_best_and_failed_candidates():
    figure = plots.plot_history(mixed_results(), "accuracy")
    axes = figure.axes[0]
    assert renders(figure)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("candidate", "accuracy")
    assert legend(figure) == ["candidate", "best so far", "best: 0.9", "without a score: 1"]
    star = next(points for points in axes.collections if points.get_label() == "best: 0.9")
    assert star.get_offsets().tolist() == [[2.0, 0.9]]
    steps = next(line for line in axes.lines if line.get_label() == "best so far")
    np.testing.assert_array_equal(steps.get_ydata(), [0.5, 0.9, 0.9, 0.9])


@pytest.mark.parametrize("name", ["kernel", "C", "layers", "shrink", "gamma"])
def test_parameter_values_of_any_type(name):
    figure = plots.plot_parameter(mixed_results(), name)
    assert renders(figure)
    assert figure.axes[0].get_xscale() == ("log" if name == "C" else "linear")
    assert "best: 0.9" in legend(figure)


def test_heatmap_cells_show_best_over_other_parameters():
    params = [{"a": a, "b": b, "c": c} for a in (1, 2) for b in ("x", "y") for c in (0, 1)]
    scores = [0.1, 0.2, 0.4, 0.3, 0.8, 0.5, np.nan, 0.6]
    figure = plots.plot_heatmap(results_table(params, scores, scores, scores), "a", "b")
    image = figure.axes[0].images[0].get_array()
    np.testing.assert_array_equal(image, [[0.2, 0.8], [0.4, 0.6]])
    assert figure.axes[0].get_title() == "best over the other parameters"
    assert legend(figure) == ["best: 0.8"]
    assert renders(figure)


def test_heatmap_of_many_values_draws_points():
    rng = np.random.default_rng(0)
    params = [{"lr": 10.0**power, "k": "rbf"} for power in rng.uniform(-4, -1, 40)]
    figure = plots.plot_heatmap(results_table(params, rng.random(40), [0.0] * 40, [1.0] * 40), "lr", "k")
    assert renders(figure)
    assert figure.axes[0].get_xscale() == "log"


def test_parallel_coordinates_omit_failed_candidates():
    figure = plots.plot_parallel_coordinates(mixed_results())
    assert renders(figure)
    assert len(figure.axes[0].collections[0].get_segments()) == 3
    assert figure.axes[0].get_title() == "omitted, without a score: 1"


def test_importances_are_sorted():
    figure = plots.plot_importances({"lr": 0.2, "batch_size": 0.7, "width": 0.1})
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["width", "lr", "batch_size"]
    assert [bar.get_width() for bar in figure.axes[0].patches] == [0.1, 0.2, 0.7]


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plots.plot_history(mixed_results([np.nan] * 4)), "none of the 4 candidates has a score"),
        (lambda: plots.plot_parameter(mixed_results(), "Gamma"), "unknown parameter 'Gamma'; .*xpected one of: ker"),
        (lambda: plots.plot_heatmap(mixed_results(), "C", "C"), "expected two different parameters"),
        (lambda: plots.plot_importances({}), "importances is empty"),
        (lambda: results_table([{"rank": 1}], [1.0], [0.0], [1.0]), "'rank' cannot be searched"),
    ],
    ids=["scores", "parameter", "heatmap", "importances", "column"],
)
def test_rejects_invalid_arguments(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


def test_plots_single_candidate():
    single = results_table([{"C": 1.0, "k": "rbf"}], [0.5], [np.nan], [1.0])
    assert renders(plots.plot_history(single))
    assert renders(plots.plot_parallel_coordinates(single))
    assert renders(plots.plot_heatmap(single, "C", "k"))


@pytest.mark.parametrize(
    "draw",
    [
        lambda ax: plots.plot_history(mixed_results(), ax=ax),
        lambda ax: plots.plot_parameter(mixed_results(), "C", ax=ax),
        lambda ax: plots.plot_heatmap(mixed_results(), "C", "layers", ax=ax),
        lambda ax: plots.plot_importances({"lr": 0.9, "width": 0.1}, ax=ax),
        lambda ax: plots.plot_parallel_coordinates(mixed_results(), ax=ax),
    ],
    ids=["history", "parameter", "heatmap", "importances", "parallel"],
)
def test_draws_on_given_axes(draw):
    figure = Figure(figsize=(12, 5), layout="constrained")
    axes = figure.subfigures(1, 2)[1].add_subplot()
    assert draw(axes) is figure
    assert axes.has_data()
    assert not figure.legends
    assert renders(figure)


def test_history_on_given_axes_draws_the_scores_with_a_legend():
    axes = Figure().add_subplot()
    plots.plot_history(mixed_results(), "accuracy", ax=axes)
    assert axes.get_ylabel() == "accuracy"
    np.testing.assert_array_equal(axes.collections[0].get_offsets()[:, 1], [0.5, 0.9, np.nan, 0.7])
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["candidate", "best so far", "best: 0.9", "without a score: 1"]
