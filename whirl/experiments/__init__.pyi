from .ablation_arms import ARMS as ARMS
from .ablation_report import format_table as format_table
from .ablation_tasks import AblationSetting as AblationSetting
from .ablation_tasks import Task as Task
from .ablation_tasks import folder_tasks as folder_tasks
from .ablation_tasks import simulated_tasks as simulated_tasks
from .physics_ablation import run_physics_ablation as run_physics_ablation
