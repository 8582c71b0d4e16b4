from .physics_ablation import (
    StudySetting as StudySetting,
)
from .physics_ablation import (
    study_folder as study_folder,
)
from .physics_ablation import (
    study_simulated as study_simulated,
)
