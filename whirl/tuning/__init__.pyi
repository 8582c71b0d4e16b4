from .augmentation_policy import search_policy as search_policy
from .bayesian_optimizer import (
    BayesianOptimizer as BayesianOptimizer,
)
from .bayesian_optimizer import (
    get_model_search_space as get_model_search_space,
)
from .estimator import SignalClassifier as SignalClassifier
from .grid_search import (
    GridSearchOptimizer as GridSearchOptimizer,
)
from .grid_search import (
    get_default_param_grid as get_default_param_grid,
)
from .nested import nested_scores as nested_scores
from .pareto import ParetoOptimizer as ParetoOptimizer
from .pareto import latency_s as latency_s
from .plots import plot_heatmap as plot_heatmap
from .plots import plot_history as plot_history
from .plots import plot_importances as plot_importances
from .plots import plot_parallel_coordinates as plot_parallel_coordinates
from .plots import plot_parameter as plot_parameter
from .plots import plot_pareto as plot_pareto
from .random_search import (
    RandomSearchOptimizer as RandomSearchOptimizer,
)
from .random_search import (
    get_default_param_distributions as get_default_param_distributions,
)
from .results import results_table as results_table
from .spaces import (
    Choice as Choice,
)
from .spaces import (
    IntRange as IntRange,
)
from .spaces import (
    Range as Range,
)
from .spaces import new_model as new_model
from .study import open_study as open_study
from .trial import ReportToTrial as ReportToTrial
from .trial import Trial as Trial
from .worker import run_trials as run_trials
