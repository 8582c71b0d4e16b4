from .balancing import (
    GradNorm as GradNorm,
)
from .balancing import (
    ReLoBRaLo as ReLoBRaLo,
)
from .balancing import (
    SoftAdapt as SoftAdapt,
)
from .balancing import (
    create_balancer as create_balancer,
)
from .class_weights import (
    class_priors as class_priors,
)
from .class_weights import (
    effective_number_weights as effective_number_weights,
)
from .cnn_losses import (
    SupConLoss as SupConLoss,
)
from .cnn_losses import (
    create_criterion as create_criterion,
)
from .contrastive import supervised_contrastive_loss as supervised_contrastive_loss
from .evidence_consistency import EvidenceConsistencyLoss as EvidenceConsistencyLoss
from .imbalanced import (
    LogitAdjustedCrossEntropy as LogitAdjustedCrossEntropy,
)
from .imbalanced import (
    logit_adjusted_cross_entropy as logit_adjusted_cross_entropy,
)
from .losses import (
    FocalLoss as FocalLoss,
)
from .losses import (
    LabelSmoothingCrossEntropy as LabelSmoothingCrossEntropy,
)
from .losses import (
    PhysicsInformedLoss as PhysicsInformedLoss,
)
from .losses import (
    compute_class_weights as compute_class_weights,
)
from .losses import (
    focal_loss as focal_loss,
)
from .losses import (
    smoothed_cross_entropy as smoothed_cross_entropy,
)
from .multilabel import (
    MultilabelBCELoss as MultilabelBCELoss,
)
from .multilabel import (
    multilabel_loss as multilabel_loss,
)
from .ordinal import (
    RankedProbabilityLoss as RankedProbabilityLoss,
)
from .ordinal import (
    ranked_probability_loss as ranked_probability_loss,
)
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
from .registry import register_loss as register_loss
from .values import StandardizedLoss as StandardizedLoss
