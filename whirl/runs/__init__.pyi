from .comparison import compare_runs as compare_runs
from .config import (
    Config as Config,
)
from .config import (
    ResolvedConfig as ResolvedConfig,
)
from .config import (
    make_config as make_config,
)
from .evaluation import evaluate as evaluate
from .export import (
    export_bundle as export_bundle,
)
from .export import (
    export_graph as export_graph,
)
from .export import (
    export_run as export_run,
)
from .export import (
    load_bundle as load_bundle,
)
from .prediction import (
    Diagnosis as Diagnosis,
)
from .prediction import (
    predict as predict,
)
from .prediction import (
    predict_files as predict_files,
)
from .run_folder import RunFolder as RunFolder
from .search import search_run as search_run
from .training import (
    TrainResult as TrainResult,
)
from .training import (
    train as train,
)
from .training import (
    train_run as train_run,
)
