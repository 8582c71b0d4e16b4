from .batch import (
    Batch as Batch,
)
from .batch import (
    as_batch as as_batch,
)
from .batch import (
    call_model as call_model,
)
from .callbacks import (
    Callback as Callback,
)
from .callbacks import (
    CallbackList as CallbackList,
)
from .checkpoint import (
    load_training as load_training,
)
from .checkpoint import (
    load_weights as load_weights,
)
from .checkpoint import (
    save_training as save_training,
)
from .device import resolve_device as resolve_device
from .distributed import (
    all_reduce_any as all_reduce_any,
)
from .distributed import (
    all_reduce_mean as all_reduce_mean,
)
from .distributed import (
    barrier as barrier,
)
from .distributed import (
    is_main_process as is_main_process,
)
from .distributed import (
    process_group as process_group,
)
from .distributed import (
    rank as rank,
)
from .distributed import (
    world_size as world_size,
)
from .files import (
    atomic_write as atomic_write,
)
from .files import (
    write_json as write_json,
)
from .files import (
    write_text as write_text,
)
from .fine_tuning import (
    freeze as freeze,
)
from .fine_tuning import (
    load_features as load_features,
)
from .history import History as History
from .interrupt import finish_batch_on_interrupt as finish_batch_on_interrupt
from .loop import (
    StepResult as StepResult,
)
from .loop import (
    Tally as Tally,
)
from .loop import (
    fit_epochs as fit_epochs,
)
from .loop import (
    run_epoch as run_epoch,
)
from .loss_guard import (
    LossGuard as LossGuard,
)
from .loss_guard import (
    NonFiniteLossError as NonFiniteLossError,
)
from .modes import (
    eval_mode as eval_mode,
)
from .modes import (
    preserve_modes as preserve_modes,
)
from .monitor import Improvement as Improvement
from .precision import choose_precision as choose_precision
from .replay import EpochReplay as EpochReplay
from .state import TrainingState as TrainingState
from .updater import Updater as Updater
