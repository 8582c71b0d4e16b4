"""Pictures of searches with candidates of any kind."""

import io

import numpy as np
import pytest

from whirl.tuning import plots as search_plots
from whirl.tuning.results import results_table

ODD = [
    {"kernel": "rbf", "C": 0.01, "layers": (32, 8), "shrink": True, "gamma": "scale"},
    {"kernel": None, "C": 10.0, "layers": (64,), "shrink": False, "gamma": 0.1},
    {"kernel": "$x$_very_long_name_of_a_kernel_that_nobody_reads", "C": 1000.0, "layers": None, "shrink": True},
    {"kernel": "rbf", "C": 0.1, "layers": (32, 8), "shrink": False, "gamma": object},
]


def odd(scores=(0.5, 0.9, np.nan, 0.7)):
    return results_table(ODD, scores, [0.1, 0.02, np.nan, 0.0], [1.0, 2.0, 3.0, 4.0])


def drawn(figure):
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return len(file.getvalue()) > 3000


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_history_marks_the_best_and_those_without_a_score():
    figure = search_plots.plot_history(odd(), "accuracy")
    axes = figure.axes[0]
    assert drawn(figure)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("candidate", "accuracy")
    assert legend(figure) == ["candidate", "best so far", "best: 0.9", "without a score: 1"]
    star = next(points for points in axes.collections if points.get_label() == "best: 0.9")
    assert star.get_offsets().tolist() == [[2.0, 0.9]]
    steps = next(line for line in axes.lines if line.get_label() == "best so far")
    np.testing.assert_array_equal(steps.get_ydata(), [0.5, 0.9, 0.9, 0.9])


@pytest.mark.parametrize("name", ["kernel", "C", "layers", "shrink", "gamma"])
def test_any_type_of_value_has_its_place(name):
    figure = search_plots.plot_parameter(odd(), name)
    assert drawn(figure)
    assert figure.axes[0].get_xscale() == ("log" if name == "C" else "linear")
    assert "best: 0.9" in legend(figure)


def test_cells_hold_the_best_over_the_other_parameters():
    params = [{"a": a, "b": b, "c": c} for a in (1, 2) for b in ("x", "y") for c in (0, 1)]
    scores = [0.1, 0.2, 0.4, 0.3, 0.8, 0.5, np.nan, 0.6]
    figure = search_plots.plot_heatmap(results_table(params, scores, scores, scores), "a", "b")
    image = figure.axes[0].images[0].get_array()
    np.testing.assert_array_equal(image, [[0.2, 0.8], [0.4, 0.6]])
    assert figure.axes[0].get_title() == "best over the other parameters"
    assert legend(figure) == ["best: 0.8"]
    assert drawn(figure)


def test_many_values_become_points():
    rng = np.random.default_rng(0)
    params = [{"lr": 10.0**power, "k": "rbf"} for power in rng.uniform(-4, -1, 40)]
    figure = search_plots.plot_heatmap(results_table(params, rng.random(40), [0.0] * 40, [1.0] * 40), "lr", "k")
    assert drawn(figure)
    assert figure.axes[0].get_xscale() == "log"


def test_parallel_coordinates_leave_out_what_has_no_score():
    figure = search_plots.plot_parallel_coordinates(odd())
    assert drawn(figure)
    assert len(figure.axes[0].collections[0].get_segments()) == 3
    assert figure.axes[0].get_title() == "left out, without a score: 1"


def test_importances_are_ordered():
    figure = search_plots.plot_importances({"lr": 0.2, "batch_size": 0.7, "width": 0.1})
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["width", "lr", "batch_size"]
    assert [bar.get_width() for bar in figure.axes[0].patches] == [0.1, 0.2, 0.7]


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: search_plots.plot_history(odd([np.nan] * 4)), "none of the 4 candidates has a score"),
        (lambda: search_plots.plot_parameter(odd(), "Gamma"), "unknown parameter 'Gamma'; .*xpected one of: ker"),
        (lambda: search_plots.plot_heatmap(odd(), "C", "C"), "expected two different ones"),
        (lambda: search_plots.plot_importances({}), "no parameter was searched"),
        (lambda: results_table([{"rank": 1}], [1.0], [0.0], [1.0]), "'rank' cannot be searched"),
    ],
    ids=["scores", "parameter", "heatmap", "importances", "column"],
)
def test_what_cannot_be_drawn_is_refused(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


def test_one_candidate_is_enough():
    single = results_table([{"C": 1.0, "k": "rbf"}], [0.5], [np.nan], [1.0])
    assert drawn(search_plots.plot_history(single))
    assert drawn(search_plots.plot_parallel_coordinates(single))
    assert drawn(search_plots.plot_heatmap(single, "C", "k"))
