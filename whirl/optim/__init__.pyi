from .cnn_optimizer import (
    OptimizerConfig as OptimizerConfig,
)
from .cnn_optimizer import (
    create_adamw_optimizer as create_adamw_optimizer,
)
from .cnn_optimizer import (
    create_rmsprop_optimizer as create_rmsprop_optimizer,
)
from .cnn_optimizer import (
    create_sgd_optimizer as create_sgd_optimizer,
)
from .cnn_optimizer import (
    get_parameter_groups as get_parameter_groups,
)
from .cnn_optimizer import (
    optimizer_names as optimizer_names,
)
from .cnn_schedulers import (
    PolynomialLRScheduler as PolynomialLRScheduler,
)
from .cnn_schedulers import (
    WarmupScheduler as WarmupScheduler,
)
from .cnn_schedulers import (
    create_cosine_scheduler as create_cosine_scheduler,
)
from .cnn_schedulers import (
    create_cosine_warmrestarts_scheduler as create_cosine_warmrestarts_scheduler,
)
from .cnn_schedulers import (
    create_exponential_scheduler as create_exponential_scheduler,
)
from .cnn_schedulers import (
    create_multistep_scheduler as create_multistep_scheduler,
)
from .cnn_schedulers import (
    create_onecycle_scheduler as create_onecycle_scheduler,
)
from .cnn_schedulers import (
    create_plateau_scheduler as create_plateau_scheduler,
)
from .cnn_schedulers import (
    create_step_scheduler as create_step_scheduler,
)
from .layer_decay import get_layer_decay_groups as get_layer_decay_groups
from .optimizers import (
    create_optimizer as create_optimizer,
)
from .optimizers import (
    create_scheduler as create_scheduler,
)
from .sam import SAM as SAM
from .schedule_simulation import (
    format_schedule as format_schedule,
)
from .schedule_simulation import (
    plot_curve as plot_curve,
)
from .schedule_simulation import (
    simulate_schedule as simulate_schedule,
)
from .scheduler_factory import (
    create_training_scheduler as create_training_scheduler,
)
from .scheduler_factory import (
    join_schedulers as join_schedulers,
)
from .scheduler_factory import (
    register_schedule as register_schedule,
)
from .scheduler_factory import (
    schedule_names as schedule_names,
)
from .transformer_schedulers import (
    WarmupCosineScheduler as WarmupCosineScheduler,
)
from .transformer_schedulers import (
    create_constant_schedule as create_constant_schedule,
)
from .transformer_schedulers import (
    create_inverse_sqrt_schedule as create_inverse_sqrt_schedule,
)
from .transformer_schedulers import (
    create_noam_schedule as create_noam_schedule,
)
from .transformer_schedulers import (
    create_warmup_cosine_schedule as create_warmup_cosine_schedule,
)
from .transformer_schedulers import (
    create_warmup_linear_schedule as create_warmup_linear_schedule,
)
