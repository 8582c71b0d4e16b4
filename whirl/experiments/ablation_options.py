"""Options of `whirl ablation physics`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from whirl.runs.descriptions import About, Names, Section, setting


class AblationOptions(Section):
    """Options."""

    arms: list[str] = setting(
        ["physics", "unlabeled", "random_bands", "scrambled", "features", "features+physics", "evidence", "rule"],
        "Arms to run in addition to ce.",
        About(kind="names"),
    )
    conditions: list[str] = setting(
        ["few"], "Conditions of simulated bearings: few, speed_shift, noise.", About(kind="names")
    )
    labels: int = setting(5, "Labeled windows per class; 0 for all.", ge=0, le=10**9)
    seeds: int = setting(10, "Number of runs per arm.", ge=1, le=10**6)
    first_seed: int = setting(0, "Seed of the first run.", ge=0, lt=2**63)
    epochs: int = setting(10, "Passes over the unlabeled windows.", ge=1, le=10**6)
    weight: float = setting(1.0, "Weight lambda of the frequency term.", ge=0, le=1e6)
    form: str = setting("log", "Form of the frequency term: log, linear, set or kl.", About(kind="name"))
    trust: bool = setting(True, "Correct the physics by the labeled windows.")
    network: str = setting("wdcnn", "Network, or backbone of arms with evidence or orders.", About(kind="name"))
    bearing: str = setting(None, "Rolling bearing of DATA, e.g. 6205.", About(kind="designation"))
    channels: Names = setting(None, "Channels to use, e.g. DE.", About(auto="all", kind="names"))
    classes: Names = setting(None, "Classes to use.", About(auto="all", kind="names"))
    sampling_rate_hz: float = setting(
        None, "Sampling rate of files that state none.", About(flag="--sampling-rate", unit="Hz"), gt=0, le=1e9
    )
    without: list[str] = setting([], "Specimens of DATA to omit.", About(kind="names"))
    window_s: float = setting(1.0, "Window length of DATA.", About(unit="s"), gt=0, le=3600)
    device: str = setting("auto", "Device: auto, cpu, cuda, ...")
    out: str = setting(
        "ablation", "Folder for the results; an interrupted ablation is resumed there.", About(kind="path")
    )

    def arguments(self, data: Path | None) -> dict[str, Any]:
        """Return the arguments of `run_physics_ablation` for a folder of recordings, or for simulated ones."""
        from whirl.experiments.ablation_tasks import AblationSetting, folder_tasks, load_known, simulated_tasks
        from whirl.runs.fingerprint import fingerprint_inputs

        names = {"labels", "epochs", "weight", "form", "trust", "network", "bearing", "device"}
        chosen = self.model_dump(include=names)
        if data is None:
            setting = AblationSetting(**chosen)
            tasks = simulated_tasks(setting)
        else:
            selection = self.model_dump(include={"channels", "classes", "sampling_rate_hz", "without"})
            recordings = load_known(data, self.bearing, **selection)
            described = f"{data.resolve()}: windows of {self.window_s:g} s"
            setting = AblationSetting(**chosen, data=described, recordings=fingerprint_inputs(recordings))
            tasks = folder_tasks(recordings, self.labels, self.window_s)
        return {
            "tasks": tasks,
            "conditions": ["recordings"] if data else self.conditions,
            "arms": self.arms,
            "seeds": range(self.first_seed, self.first_seed + self.seeds),
            "setting": setting,
            "out": self.out,
        }
