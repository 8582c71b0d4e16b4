"""Options of commands, made from descriptions of settings, and the settings of commands that do not train."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from inspect import Parameter, Signature, signature
from typing import Annotated, Any, Literal, TypeVar

import typer
from pydantic import create_model, model_validator

from whirl.runs.config import Config, parse_config
from whirl.runs.descriptions import About, Names, Section, setting
from whirl.runs.flat import FlatSetting, flat_settings, settings_of_section
from whirl.runs.methods import Kind

AnySection = TypeVar("AnySection", bound=Section)


def make_options(section: type[AnySection], settings: Mapping[str, Any]) -> AnySection:
    """Make the options of a command from values by name.

    Raises:
        ValueError: a name is unknown or a value is out of range.

    Example:
        >>> make_options(InspectSection, {"sampling_rate_hz": "-1"})
        Traceback (most recent call last):
        ...
        ValueError: options: sampling_rate_hz is '-1', expected a number > 0 and <= 1e+09
    """
    holder: Any = create_model("Holder", __base__=Section, options=(section, ...))
    return parse_config({"options": settings}, "options", holder).options


def options_of(
    sources: Sequence[str], config_class: type[Config] = Config
) -> tuple[list[Parameter], Callable[[dict[str, Any]], Any]]:
    """Return the options of a command as typer's parameters, and a function that converts their values.

    Args:
        sources: sections of the configuration, whose values remain a mapping by flat name, or module and name of
            another section.
        config_class: the configuration.

    Example:
        >>> parameters, make = options_of(["whirl.runs.command_options.CompareSection"])
        >>> parameters[0].name, make({"device": "cuda"}).device
        ('device', 'cuda')
    """
    module, _, name = sources[0].rpartition(".")
    section = getattr(import_module(module), name) if module else None
    settings = flat_settings(config_class).values() if section is None else settings_of_section("options", section)
    offered = {flat.name: flat for flat in settings if flat.flag and (section or flat.path[0] in sources)}

    def make(values: Mapping[str, Any]) -> Any:
        given = {name: offered[name].parse(value) for name, value in values.items() if value is not None}
        return given if section is None else make_options(section, given)

    return [_parameter(flat) for flat in offered.values()], make


def add_options(
    command: Callable[..., None], parameters: Sequence[Parameter], make: Callable[[dict[str, Any]], Any]
) -> Callable[..., None]:
    """Add options to a command.

    Args:
        command: function with typer's annotations and a parameter `options`.
        parameters: the options.
        make: makes the argument `options` from their values by name; those that are not given are None.
    """

    def run(**values: Any) -> None:
        given = {parameter.name: values.pop(parameter.name) for parameter in parameters}
        command(**values, options=make(given))

    own = [p for p in signature(command, eval_str=True).parameters.values() if p.name != "options"]
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = Signature([*own, *parameters])  # type: ignore[attr-defined]
    return run


def _parameter(flat: FlatSetting) -> Parameter:
    is_switch = flat.info.annotation is bool
    off = f"/--no-{flat.flag.removeprefix('--')}" if is_switch and not flat.about.flag else ""
    option = typer.Option(
        flat.flag + off,
        help=f"{flat.text} {flat.default_text}".rstrip().replace("[", "\\["),  # Rich would read brackets as markup
        metavar=None if is_switch else flat.metavar,
        rich_help_panel=flat.group,
    )
    kind: Any = bool if is_switch else list[str] if flat.about.kind == "NAME=VALUE" else str
    annotation = Annotated[kind | None, option]
    return Parameter(flat.name, Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _sampling_rate() -> Any:
    return setting(
        None, "Sampling rate of files that state none.", About(flag="--sampling-rate", unit="Hz"), gt=0, le=1e9
    )


class InspectSection(Section):
    """Options."""

    channels: Names = setting(None, "Channels to inspect, e.g. DE,FE.", About(auto="all", kind="names"))
    classes: Names = setting(None, "Classes to inspect.", About(auto="all", kind="names"))
    sampling_rate_hz: float = _sampling_rate()
    write_manifest: str = setting(
        None,
        "New file for a first manifest from folders, names and files, to be corrected by hand.",
        About(auto="none is written", kind="path"),
    )
    pattern: str = setting(
        None,
        'Columns in file names for --write-manifest, e.g. "{label}_{specimen}_{load}.csv".',
        About(auto="found in the names"),
    )


class ShowSection(Section):
    """Options."""

    representation: Kind = setting("cwt", "Representation.")
    out: str = setting(
        None,
        "Image file: .png, .svg or .pdf.",
        About(auto="name of the recording with the representation", kind="path"),
    )
    bearing: str = setting(
        None, "Rolling bearing, for its fault lines, e.g. 6205.", About(auto="that of the manifest", kind="bearing")
    )
    rpm: float = setting(None, "Shaft speed.", About(unit="rpm", auto="as stated by manifest or file"))
    channel: str = setting(None, "Channel to draw.", About(auto="the first"))
    tachometer: str = setting(None, "Channel with one pulse per revolution.")
    start_s: float = setting(0.0, "Start of the drawn part.", About(flag="--start", unit="s"))
    duration_s: float = setting(None, "Length of the drawn part.", About(flag="--seconds", unit="s", auto="to the end"))
    low: float = setting(None, "Lowest frequency; requires --high.", About(unit="Hz or orders"))
    high: float = setting(None, "Highest frequency; requires --low.", About(unit="Hz or orders"))
    sampling_rate_hz: float = _sampling_rate()

    @model_validator(mode="after")
    def _range_is_complete(self) -> ShowSection:
        if (self.low is None) != (self.high is None):
            raise ValueError("--low and --high require each other: give both or none")
        return self

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of `show_recording`."""
        frequency_range = None if self.low is None else (self.low, self.high)
        return self.model_dump(exclude={"low", "high"}) | {"frequency_range": frequency_range}


class DiagnoseSection(Section):
    """Options."""

    bearing: str = setting(
        None,
        "Bearings near the sensor, e.g. 6205, or '9, 7.94, 39.04' (elements, diameters), or orders.",
        About(auto="that of the manifest"),
    )
    rpm: float = setting(None, "Shaft speed.", About(unit="rpm", auto="as stated by manifest or file"))
    channels: Names = setting(None, "Channels to evaluate, e.g. DE,FE.", About(auto="all", kind="names"))
    sampling_rate_hz: float = _sampling_rate()
    csv: str = setting(None, "CSV file to write, with a line for each file and channel.", About(kind="path"))
    plot: str = setting(
        None, "Image file (.png, .svg, .pdf) of one recording, or a folder for several.", About(kind="path")
    )
    as_json: bool = setting(False, "Print JSON.", About(flag="--json"))


class PredictSection(Section):
    """Options."""

    bearing: str = setting(None, "Bearing of the files, e.g. 6205.", About(auto="that of the manifest", kind="bearing"))
    rpm: float = setting(None, "Shaft speed.", About(unit="rpm", auto="as stated by manifest or file"))
    channels: Names = setting(None, "Names of the files' channels, in order, e.g. DE,FE.", About(kind="names"))
    sampling_rate_hz: float = _sampling_rate()
    csv: str = setting(None, "CSV file to write, with a line for each file.", About(kind="path"))
    append: bool = setting(False, "Continue the CSV file: judge only files that it lacks.", About(flag="--append"))
    report: str = setting(None, "HTML page to write, with figures.", About(kind="path"))
    as_json: bool = setting(False, "Print JSON.", About(flag="--json"))

    @property
    def batch(self) -> Any:
        """What to write, see `whirl.runs.batch_prediction.BatchOptions`."""
        from whirl.runs.batch_prediction import BatchOptions

        return BatchOptions(self.csv, self.append, self.report)


class WatchSection(Section):
    """Options."""

    run: str = setting(..., "Run folder, or a bundle.", About(flag="--run", kind="path"))
    log: str = setting(..., "CSV file with a line for each judged file; continued if it exists.", About(kind="path"))
    on: int = setting(3, "Recordings among the last --of that begin or end an alarm.")
    of: int = setting(5, "Recordings that are looked back on.")
    every_s: float = setting(10.0, "Time between two looks at the folder.", About(flag="--every", unit="s"))
    page: str = setting(None, "HTML page to write, with all machines and their trends.", About(kind="path"))
    webhook: str = setting(None, "Address that gets each change of an alarm as JSON.", About(kind="URL"))
    once: bool = setting(False, "Judge what is there, and end.", About(flag="--once"))
    acknowledge: str = setting(None, "Acknowledge the alarms of this machine, and end.", About(kind="machine"))
    bearing: str = setting(None, "Bearing of the files, e.g. 6205.", About(auto="that of the manifest", kind="bearing"))
    rpm: float = setting(None, "Shaft speed.", About(unit="rpm", auto="as stated by manifest or file"))
    channels: Names = setting(None, "Names of the files' channels, in order, e.g. DE,FE.", About(kind="names"))
    sampling_rate_hz: float = _sampling_rate()


class LevelsSection(Section):
    """Options."""

    unit: str = setting(None, "Unit of files that state none, e.g. g or m/s^2.")
    machine_group: Literal["group1", "group2"] = setting(
        None, "Machine group of ISO 20816-3: group1 above 300 kW, group2 from 15 kW.", About(auto="no zone")
    )
    support: Literal["rigid", "flexible"] = setting("rigid", "Support of the machine, for the zone.")
    sampling_rate_hz: float = _sampling_rate()
    csv: str = setting(None, "CSV file to write, with a line for each file.", About(kind="path"))
    as_json: bool = setting(False, "Print JSON.", About(flag="--json"))


class EvaluateSection(Section):
    """Options."""

    data: str = setting(None, "Folder of other labeled recordings.", About(auto="the test part", kind="path"))
    out: str = setting(None, "Folder for metrics.json and report.html.", About(kind="path"))
    bearing: str = setting(None, "Bearing of DATA, e.g. 6205.", About(auto="that of the manifest", kind="bearing"))
    rpm: float = setting(None, "Shaft speed of DATA.", About(unit="rpm", auto="as stated by manifest or file"))


class CompareSection(Section):
    """Options."""

    device: str = setting("cpu", "Device on which the latency of the networks is measured.")


class ExportSection(Section):
    """Options."""

    bundle: bool = setting(False, "Weights and facts, safe to exchange; the default.", About(flag="--bundle"))
    onnx: bool = setting(False, "ONNX graph.", About(flag="--onnx"))
    torch: bool = setting(False, "torch.export program.", About(flag="--torch"))
    out: str = setting(None, "Folder or file to write.", About(auto="in the run folder", kind="path"))

    @model_validator(mode="after")
    def _one_kind(self) -> ExportSection:
        if self.bundle + self.onnx + self.torch > 1:
            raise ValueError("--bundle, --onnx and --torch are mutually exclusive")
        return self

    @property
    def kind(self) -> Literal["bundle", "onnx", "torch"]:
        """Kind of the export."""
        return "onnx" if self.onnx else "torch" if self.torch else "bundle"


class RunsSection(Section):
    """Options."""

    sort: str = setting("finished", "Column to sort by, e.g. model, macro_f1.")
    as_csv: bool = setting(False, "Print CSV.", About(flag="--csv"))
    latex: bool = setting(False, "Print a LaTeX table.", About(flag="--latex"))

    @model_validator(mode="after")
    def _one_format(self) -> RunsSection:
        if self.as_csv and self.latex:
            raise ValueError("--csv and --latex are mutually exclusive")
        return self


class ScheduleSection(Section):
    """Options."""

    epochs: int = setting(..., "Length of the training.", About(unit="epochs"))
    lr: float = setting(1e-3, "Learning rate of the optimizer.", allow_inf_nan=True)  # the schedule validates it
    steps_per_epoch: int = setting(100, "Optimizer steps in each epoch.")
    option: list[str] = setting(
        [], "A setting of the schedule, e.g. min_lr=1e-5; may be repeated.", About(kind="NAME=VALUE")
    )
    out: str = setting(None, "File to save to (.csv, .png, .svg, .pdf) instead of printing.", About(kind="path"))
