from .cnn1d import CNN1d as CNN1d
from .cnn2d import CNN2d as CNN2d
from .heads import (
    CompoundFaults as CompoundFaults,
)
from .heads import (
    OneLogit as OneLogit,
)
from .heads import (
    OrdinalLevels as OrdinalLevels,
)
from .heads import (
    ScaledOutput as ScaledOutput,
)
from .hybrid_pinn import HybridPINN as HybridPINN
from .multi_tfr import MultiTFR as MultiTFR
from .order_cnn import OrderCNN as OrderCNN
from .patch_transformer import PatchTransformer as PatchTransformer
from .registry import (
    create_model as create_model,
)
from .registry import (
    list_models as list_models,
)
from .registry import (
    register_model as register_model,
)
from .resnet18_1d import ResNet18 as ResNet18
from .resnet18_2d import ResNet18Maps as ResNet18Maps
from .time_frequency import TimeFrequencyNetwork as TimeFrequencyNetwork
from .wdcnn import WDCNN as WDCNN
