from .angular import to_orders as to_orders
from .envelope import (
    analytic as analytic,
)
from .envelope import (
    envelope_spectrum as envelope_spectrum,
)
from .envelope import (
    squared_envelope as squared_envelope,
)
from .envelope_orders import (
    above_floor as above_floor,
)
from .envelope_orders import (
    modulation_power as modulation_power,
)
from .envelope_orders import (
    running_median as running_median,
)
from .interpolation import interpolate as interpolate
from .masks import (
    draw_spans as draw_spans,
)
from .masks import (
    mask_bands as mask_bands,
)
from .masks import (
    mask_out as mask_out,
)
from .masks import (
    span_mask as span_mask,
)
from .prewhitening import (
    prewhiten as prewhiten,
)
from .prewhitening import (
    prewhitened_envelope as prewhitened_envelope,
)
from .resizing import resize as resize
from .shaft_angle import (
    at_constant_speed as at_constant_speed,
)
from .shaft_angle import (
    order_frames as order_frames,
)
from .shaft_angle import (
    order_spectrum as order_spectrum,
)
from .shaft_angle import (
    turns_from_speed as turns_from_speed,
)
from .shaft_angle import (
    turns_from_tachometer as turns_from_tachometer,
)
from .short_time_fourier import stft as stft
from .spectra import (
    amplitude_spectrum as amplitude_spectrum,
)
from .spectra import (
    most_impulsive_band as most_impulsive_band,
)
from .spectra import (
    squared_envelope_spectrum as squared_envelope_spectrum,
)
from .speed_track import (
    SpeedTrack as SpeedTrack,
)
from .speed_track import (
    track_speed as track_speed,
)
from .time_frequency import TimeFrequency as TimeFrequency
from .turn_segments import (
    overlapping_segments as overlapping_segments,
)
from .turn_segments import (
    segment_length as segment_length,
)
from .turn_segments import (
    taper_ends as taper_ends,
)
from .wavelets import (
    cwt as cwt,
)
from .wavelets import (
    cwt_power as cwt_power,
)
from .wigner import wigner_ville as wigner_ville
