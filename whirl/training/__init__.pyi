from .cnn_trainer import CNNTrainer as CNNTrainer
from .knowledge_distillation import (
    DistillationLoss as DistillationLoss,
)
from .knowledge_distillation import (
    DistillationTrainer as DistillationTrainer,
)
from .knowledge_distillation import (
    compare_teacher_student as compare_teacher_student,
)
from .lr_range import (
    LearningRateRange as LearningRateRange,
)
from .lr_range import (
    find_learning_rate as find_learning_rate,
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
from .model_cost import count_parameters as count_parameters
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
