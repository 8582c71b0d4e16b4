# The names that the reference documents, each in one module; those of two modules are in `__init__.py`.
from .advanced_augmentation import (
    AutoAugment as AutoAugment,
)
from .advanced_augmentation import (
    MixupAugmentation as MixupAugmentation,
)
from .advanced_augmentation import (
    adversarial_augmentation as adversarial_augmentation,
)
from .advanced_augmentation import (
    amplitude_scaling as amplitude_scaling,
)
from .advanced_augmentation import (
    cutmix as cutmix,
)
from .advanced_augmentation import (
    cutmix_batch as cutmix_batch,
)
from .advanced_augmentation import (
    gaussian_noise_augmentation as gaussian_noise_augmentation,
)
from .advanced_augmentation import (
    time_masking as time_masking,
)
from .advanced_augmentation import (
    time_shift as time_shift,
)
from .bayesian_optimizer import (
    BayesianOptimizer as BayesianOptimizer,
)
from .bayesian_optimizer import (
    get_model_search_space as get_model_search_space,
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
from .cnn_losses import (
    SupConLoss as SupConLoss,
)
from .cnn_losses import (
    create_criterion as create_criterion,
)
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
    create_onecycle_scheduler as create_onecycle_scheduler,
)
from .cnn_schedulers import (
    create_plateau_scheduler as create_plateau_scheduler,
)
from .cnn_schedulers import (
    create_step_scheduler as create_step_scheduler,
)
from .cnn_trainer import CNNTrainer as CNNTrainer
from .grid_search import (
    GridSearchOptimizer as GridSearchOptimizer,
)
from .grid_search import (
    get_default_param_grid as get_default_param_grid,
)
from .knowledge_distillation import (
    DistillationLoss as DistillationLoss,
)
from .knowledge_distillation import (
    DistillationTrainer as DistillationTrainer,
)
from .knowledge_distillation import (
    compare_teacher_student as compare_teacher_student,
)
from .losses import (
    PhysicsInformedLoss as PhysicsInformedLoss,
)
from .losses import (
    compute_class_weights as compute_class_weights,
)
from .metrics import (
    MetricsTracker as MetricsTracker,
)
from .metrics import (
    compute_accuracy as compute_accuracy,
)
from .metrics import (
    compute_confusion_matrix as compute_confusion_matrix,
)
from .metrics import (
    compute_f1_score as compute_f1_score,
)
from .metrics import (
    compute_per_class_metrics as compute_per_class_metrics,
)
from .metrics import (
    compute_top_k_accuracy as compute_top_k_accuracy,
)
from .mixed_precision import (
    MixedPrecisionTrainer as MixedPrecisionTrainer,
)
from .mixed_precision import (
    check_mixed_precision_support as check_mixed_precision_support,
)
from .mixed_precision import (
    enable_mixed_precision as enable_mixed_precision,
)
from .optimizers import create_scheduler as create_scheduler
from .physics_loss_functions import (
    FrequencyConsistencyLoss as FrequencyConsistencyLoss,
)
from .physics_loss_functions import (
    PhysicalConstraintLoss as PhysicalConstraintLoss,
)
from .physics_loss_functions import (
    SommerfeldConsistencyLoss as SommerfeldConsistencyLoss,
)
from .physics_loss_functions import (
    TemporalSmoothnessLoss as TemporalSmoothnessLoss,
)
from .pinn_trainer import (
    PINNTrainer as PINNTrainer,
)
from .pinn_trainer import (
    PINNTrainingState as PINNTrainingState,
)
from .progressive_resizing import (
    ProgressiveResizingTrainer as ProgressiveResizingTrainer,
)
from .progressive_resizing import (
    ResizableSignalDataset as ResizableSignalDataset,
)
from .random_search import (
    RandomSearchOptimizer as RandomSearchOptimizer,
)
from .random_search import (
    get_default_param_distributions as get_default_param_distributions,
)
from .spectrogram_trainer import (
    MultiTFRTrainer as MultiTFRTrainer,
)
from .spectrogram_trainer import (
    SpectrogramTrainer as SpectrogramTrainer,
)
from .trainer import (
    Trainer as Trainer,
)
from .trainer import (
    TrainingState as TrainingState,
)
from .transformer_augmentation import (
    PatchAugmentation as PatchAugmentation,
)
from .transformer_augmentation import (
    get_heavy_augmentation as get_heavy_augmentation,
)
from .transformer_augmentation import (
    get_light_augmentation as get_light_augmentation,
)
from .transformer_augmentation import (
    get_medium_augmentation as get_medium_augmentation,
)
from .transformer_augmentation import (
    patch_cutout as patch_cutout,
)
from .transformer_augmentation import (
    patch_dropout as patch_dropout,
)
from .transformer_augmentation import (
    patch_jitter as patch_jitter,
)
from .transformer_augmentation import (
    patch_mixup as patch_mixup,
)
from .transformer_augmentation import (
    patch_permutation as patch_permutation,
)
from .transformer_augmentation import (
    temporal_shift_patches as temporal_shift_patches,
)
from .transformer_schedulers import (
    WarmupCosineScheduler as WarmupCosineScheduler,
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
