from .averaging import (
    EMA as EMA,
)
from .averaging import (
    SWA as SWA,
)
from .best_weights import BestWeights as BestWeights
from .callbacks import (
    Callback as Callback,
)
from .callbacks import (
    EarlyStopping as EarlyStopping,
)
from .callbacks import (
    LearningRateScheduler as LearningRateScheduler,
)
from .callbacks import (
    MLflowLogger as MLflowLogger,
)
from .callbacks import (
    ModelCheckpoint as ModelCheckpoint,
)
from .callbacks import (
    TensorBoardLogger as TensorBoardLogger,
)
from .cnn_callbacks import (
    CallbackList as CallbackList,
)
from .cnn_callbacks import (
    EarlyStoppingCallback as EarlyStoppingCallback,
)
from .cnn_callbacks import (
    GradientMonitor as GradientMonitor,
)
from .cnn_callbacks import (
    LearningRateMonitor as LearningRateMonitor,
)
from .cnn_callbacks import (
    MetricLogger as MetricLogger,
)
from .cnn_callbacks import (
    ModelCheckpointCallback as ModelCheckpointCallback,
)
from .cnn_callbacks import (
    TimingCallback as TimingCallback,
)
from .profiler import Profiler as Profiler
from .unfreezing import GradualUnfreezing as GradualUnfreezing
from .wandb_logger import (
    WandbLogger as WandbLogger,
)
