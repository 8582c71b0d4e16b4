from . import (
    augment as augment,
)
from . import (
    callbacks as callbacks,
)
from . import (
    data as data,
)
from . import (
    diagnosis as diagnosis,
)
from . import (
    dsp as dsp,
)
from . import (
    engine as engine,
)
from . import (
    evaluation as evaluation,
)
from . import (
    experiments as experiments,
)
from . import (
    losses as losses,
)
from . import (
    metrics as metrics,
)
from . import (
    models as models,
)
from . import (
    optim as optim,
)
from . import (
    physics as physics,
)
from . import (
    runs as runs,
)
from . import (
    training as training,
)
from . import (
    tuning as tuning,
)
from .callbacks.callbacks import (
    Callback as Callback,
)
from .callbacks.callbacks import (
    EarlyStopping as EarlyStopping,
)
from .callbacks.callbacks import (
    ModelCheckpoint as ModelCheckpoint,
)
from .data.dataset import (
    load_dataset as load_dataset,
)
from .data.dataset import (
    save_dataset as save_dataset,
)
from .data.inspection import inspect_dataset as inspect_dataset
from .data.leakage import check_leakage as check_leakage
from .data.loaders import make_loader as make_loader
from .data.reading import (
    read as read,
)
from .data.reading import (
    register_reader as register_reader,
)
from .data.recording import Recording as Recording
from .data.simulation import simulate as simulate
from .data.splits import split_recordings as split_recordings
from .data.windows import WindowDataset as WindowDataset
from .diagnosis.spectral import diagnose as diagnose
from .models.registry import (
    create_model as create_model,
)
from .models.registry import (
    list_models as list_models,
)
from .models.registry import (
    register_model as register_model,
)
from .runs.comparison import compare_runs as compare_runs
from .runs.evaluation import evaluate as evaluate
from .runs.prediction import predict as predict
from .runs.training import train as train
from .training.cnn_trainer import CNNTrainer as CNNTrainer
from .training.knowledge_distillation import DistillationTrainer as DistillationTrainer
from .training.mixed_precision import MixedPrecisionTrainer as MixedPrecisionTrainer
from .training.pinn_trainer import PINNTrainer as PINNTrainer
from .training.progressive_resizing import ProgressiveResizingTrainer as ProgressiveResizingTrainer
from .training.spectrogram_trainer import (
    MultiTFRTrainer as MultiTFRTrainer,
)
from .training.spectrogram_trainer import (
    SpectrogramTrainer as SpectrogramTrainer,
)
from .training.trainer import Trainer as Trainer
from .tuning.bayesian_optimizer import BayesianOptimizer as BayesianOptimizer
from .tuning.estimator import SignalClassifier as SignalClassifier
from .tuning.grid_search import GridSearchOptimizer as GridSearchOptimizer
from .tuning.random_search import RandomSearchOptimizer as RandomSearchOptimizer
