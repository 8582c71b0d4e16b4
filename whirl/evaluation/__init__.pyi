from .export import (
    export_onnx as export_onnx,
)
from .export import (
    export_program as export_program,
)
from .figures import (
    plot_confusion_matrix as plot_confusion_matrix,
)
from .figures import (
    plot_learning_curve as plot_learning_curve,
)
from .figures import (
    plot_reliability_diagram as plot_reliability_diagram,
)
from .figures import (
    plot_spectrum as plot_spectrum,
)
from .figures import (
    to_svg as to_svg,
)
from .hard_cases import hardest_recordings as hardest_recordings
from .metrics import (
    bootstrap_intervals as bootstrap_intervals,
)
from .metrics import (
    compute_metrics as compute_metrics,
)
from .metrics import (
    condition_accuracies as condition_accuracies,
)
from .metrics import (
    evaluate_predictions as evaluate_predictions,
)
from .metrics import (
    expected_calibration_error as expected_calibration_error,
)
from .metrics import (
    reliability_curve as reliability_curve,
)
from .paired import (
    compare_arms as compare_arms,
)
from .paired import (
    paired_difference as paired_difference,
)
from .prediction import (
    Predictions as Predictions,
)
from .prediction import (
    aggregate_by_recording as aggregate_by_recording,
)
from .prediction import (
    predict_windows as predict_windows,
)
from .report import (
    Report as Report,
)
from .report import (
    render_report as render_report,
)
from .significance import mcnemar as mcnemar
from .time_frequency_plot import (
    plot_time_frequency as plot_time_frequency,
)
from .time_frequency_plot import (
    show_recording as show_recording,
)
from .values import (
    ValuePredictions as ValuePredictions,
)
from .values import (
    predict_values as predict_values,
)
from .values import (
    value_metrics as value_metrics,
)
