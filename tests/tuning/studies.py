"""A search space with an objective, and a dead process, for tests of studies."""

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from whirl.tuning.process import this_process

SPACE = {
    "x": FloatDistribution(-5, 5),
    "kind": CategoricalDistribution(["a", "b", None]),
    "n": IntDistribution(1, 64, log=True),
}
DEAD = {**this_process(), "started": 1}  # a process of this machine that has exited


def score(trial):
    return -((trial.params["x"] - 1) ** 2) + (trial.params["kind"] == "a")


def params(trials):
    return [trial.params for trial in trials]
