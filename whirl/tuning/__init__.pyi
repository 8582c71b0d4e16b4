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
from .random_search import (
    RandomSearchOptimizer as RandomSearchOptimizer,
)
from .random_search import (
    get_default_param_distributions as get_default_param_distributions,
)
from .spaces import (
    Choice as Choice,
)
from .spaces import (
    IntRange as IntRange,
)
from .spaces import (
    Range as Range,
)
