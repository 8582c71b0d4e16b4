from .calibration import (
    PredictionSets as PredictionSets,
)
from .calibration import (
    fit_temperature as fit_temperature,
)
from .calibration import (
    scale_temperature as scale_temperature,
)
from .descriptors import family_evidence as family_evidence
from .front_end import (
    EnvelopeOrders as EnvelopeOrders,
)
from .front_end import (
    analysis_bands as analysis_bands,
)
from .front_end import (
    envelope_orders as envelope_orders,
)
from .novelty import NoveltyDetector as NoveltyDetector
from .results import (
    BearingDiagnosis as BearingDiagnosis,
)
from .results import (
    FamilyEvidence as FamilyEvidence,
)
from .results import (
    RecordingDiagnosis as RecordingDiagnosis,
)
from .rule import (
    Thresholds as Thresholds,
)
from .rule import (
    apply_rule as apply_rule,
)
from .spectral import (
    SpectralDiagnoser as SpectralDiagnoser,
)
from .spectral import (
    diagnose as diagnose,
)
from .waveform_features import (
    describe_waveform as describe_waveform,
)
from .waveform_features import (
    is_noise as is_noise,
)
