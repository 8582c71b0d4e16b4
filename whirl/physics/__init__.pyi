from .bearings import (
    Bearing as Bearing,
)
from .bearings import (
    UnknownBearingError as UnknownBearingError,
)
from .bearings import (
    parse_bearing as parse_bearing,
)
from .bearings import (
    parse_bearings as parse_bearings,
)
from .chance_combs import (
    ChanceScores as ChanceScores,
)
from .chance_combs import (
    chance_of as chance_of,
)
from .chance_combs import (
    chance_scores as chance_scores,
)
from .comb_search import (
    Comb as Comb,
)
from .compatibility import (
    class_probabilities as class_probabilities,
)
from .compatibility import (
    expectation_table as expectation_table,
)
from .compatibility import (
    fit_calibration as fit_calibration,
)
from .compatibility import (
    log_compatibility as log_compatibility,
)
from .compatibility import (
    presence_probability as presence_probability,
)
from .evidence import OrderEvidence as OrderEvidence
from .expected_lines import expectations as expectations
from .fault_families import (
    FaultFamily as FaultFamily,
)
from .fault_families import (
    usable_lines as usable_lines,
)
from .faults import signature as signature
from .features import (
    Feature as Feature,
)
from .features import (
    LateralInhibition as LateralInhibition,
)
from .features import (
    journal_features as journal_features,
)
from .features import (
    rolling_features as rolling_features,
)
from .journal_bearing import (
    eccentricity_ratio as eccentricity_ratio,
)
from .journal_bearing import (
    film_thickness_ratio as film_thickness_ratio,
)
from .journal_bearing import (
    minimum_film_thickness as minimum_film_thickness,
)
from .journal_bearing import (
    sommerfeld_number as sommerfeld_number,
)
from .journal_bearing import (
    walther_viscosity_pa_s as walther_viscosity_pa_s,
)
from .journal_bearing import (
    whirl_frequency_hz as whirl_frequency_hz,
)
from .knocks import limit_knocks as limit_knocks
from .order_levels import level_names as level_names
from .order_levels import relative_order_levels as relative_order_levels
from .rolling_bearing import (
    BEARING_SOURCES as BEARING_SOURCES,
)
from .rolling_bearing import (
    BEARINGS as BEARINGS,
)
from .rolling_bearing import (
    BearingGeometry as BearingGeometry,
)
from .rolling_bearing import (
    FaultOrders as FaultOrders,
)
from .rolling_bearing import (
    fault_orders as fault_orders,
)
from .shaft_speed import SpeedEstimate as SpeedEstimate
from .shaft_speed import estimate_rpm as estimate_rpm
from .shaft_speed import estimate_speed as estimate_speed
from .spectral_lines import SpectralLineDetector as SpectralLineDetector
