from .arrays import (
    WindowArrays as WindowArrays,
)
from .arrays import (
    window_arrays as window_arrays,
)
from .dataset import (
    list_dataset as list_dataset,
)
from .dataset import (
    load_dataset as load_dataset,
)
from .dataset import (
    save_dataset as save_dataset,
)
from .draft import (
    draft_manifest as draft_manifest,
)
from .feature_transformer import SignalFeatures as SignalFeatures
from .features import (
    Feature as Feature,
)
from .features import (
    evidence_features as evidence_features,
)
from .features import (
    feature_table as feature_table,
)
from .features import (
    signal_features as signal_features,
)
from .inspection import (
    ClassSummary as ClassSummary,
)
from .inspection import (
    Inspection as Inspection,
)
from .inspection import (
    inspect_dataset as inspect_dataset,
)
from .inspection import (
    inspect_recordings as inspect_recordings,
)
from .leakage import (
    Leak as Leak,
)
from .leakage import (
    LeakageError as LeakageError,
)
from .leakage import (
    check_leakage as check_leakage,
)
from .leakage import (
    find_leaks as find_leaks,
)
from .levels import (
    VibrationLevels as VibrationLevels,
)
from .levels import (
    iso_20816_zone as iso_20816_zone,
)
from .levels import (
    vibration_levels as vibration_levels,
)
from .loaders import (
    BatchSampler as BatchSampler,
)
from .loaders import (
    balanced_weights as balanced_weights,
)
from .loaders import (
    make_loader as make_loader,
)
from .manifest import (
    Entry as Entry,
)
from .manifest import (
    read_listed as read_listed,
)
from .manifest import (
    read_manifest as read_manifest,
)
from .manifest import (
    write_manifest as write_manifest,
)
from .map_store import MapDataset as MapDataset
from .memmap import to_mmap as to_mmap
from .public_sets import (
    list_public as list_public,
)
from .public_sets import (
    public_entries as public_entries,
)
from .quality_checks import (
    Finding as Finding,
)
from .quality_checks import (
    run_checks as run_checks,
)
from .reading import (
    Content as Content,
)
from .reading import (
    UnreadableError as UnreadableError,
)
from .reading import (
    read as read,
)
from .reading import (
    read_all as read_all,
)
from .reading import (
    readable_suffixes as readable_suffixes,
)
from .reading import (
    register_reader as register_reader,
)
from .recording import Recording as Recording
from .resampling import (
    band_limit as band_limit,
)
from .resampling import (
    common_band_hz as common_band_hz,
)
from .resampling import (
    resample as resample,
)
from .resampling import (
    to_common_rate as to_common_rate,
)
from .simulation import (
    iter_simulated as iter_simulated,
)
from .simulation import (
    simulate as simulate,
)
from .splits import (
    Split as Split,
)
from .splits import (
    kfold as kfold,
)
from .splits import (
    split_recordings as split_recordings,
)
from .value_windows import ValueWindows as ValueWindows
from .windows import (
    WindowDataset as WindowDataset,
)
from .windows import (
    Windows as Windows,
)
from .windows import (
    choose_window as choose_window,
)
from .windows import (
    known_quantities as known_quantities,
)
from .windows import (
    standardize as standardize,
)
