"""Options, YAML, schema and page are generated from one description of each setting."""

import json

import pytest
import typer
import yaml
from typer.testing import CliRunner

from whirl.cli.main import app, main
from whirl.runs.command_options import add_options, options_of
from whirl.runs.config import Config, ResolvedConfig, make_config, parse_config, resolve, with_settings
from whirl.runs.config_files import load_config, to_yaml
from whirl.runs.descriptions import About, setting
from whirl.runs.flat import flat_settings, from_flat, to_flat, walk
from whirl.runs.sections import TrainingSection
from whirl.runs.settings_page import json_schema, settings_page


class _ExtendedTraining(TrainingSection):
    """Training."""

    momentum_decay: float = setting(0.9, "Decay of the momentum.", About(unit="1/step", synonyms=("mu",)), ge=0, lt=1)


class _ExtendedConfig(Config):
    training: _ExtendedTraining = _ExtendedTraining()


def test_new_setting_appears_in_all_forms():
    configs = []
    cli = typer.Typer()

    def train(options: dict) -> None:
        """Train."""
        configs.append(make_config(options, config_class=_ExtendedConfig))

    cli.command()(add_options(train, *options_of(["training"], _ExtendedConfig)))

    output = CliRunner().invoke(cli, ["--help"], env={"COLUMNS": "200", "TERM": "dumb"}).output
    assert "--momentum-decay" in output
    assert "Decay of the momentum (1/step). [default: 0.9]" in " ".join(output.replace("│", "").split())
    assert CliRunner().invoke(cli, ["--momentum-decay", "0.5"]).exit_code == 0
    (config,) = configs
    assert config.training.momentum_decay == 0.5
    assert yaml.safe_load(to_yaml(config))["training"]["momentum_decay"] == 0.5
    schema = json_schema(_ExtendedConfig)["$defs"]["_ExtendedTraining"]["properties"]["momentum_decay"]
    assert (schema["default"], schema["exclusiveMaximum"], schema["unit"]) == (0.9, 1, "1/step")
    row = "| `--momentum-decay` | `momentum_decay` | `training.momentum_decay` | FLOAT |"
    assert row in settings_page(_ExtendedConfig)
    with pytest.raises(ValueError, match="did you mean 'momentum_decay'"):
        make_config({"mu": 0.5}, config_class=_ExtendedConfig)


def test_every_setting_has_a_description():
    for flat in flat_settings(Config).values():
        assert flat.name == "trainer" or flat.info.description.endswith("."), flat.name
        if flat.info.default is None:
            assert flat.about.auto, f"{flat.name}: how is it chosen?"


def test_page_of_settings_is_up_to_date(request):
    page = request.config.rootpath / "docs" / "settings.md"
    assert page.read_text(encoding="utf-8") == settings_page(), "run: whirl config page > docs/settings.md"


def test_flat_and_nested_forms_are_equivalent():
    config = make_config({"lr": 0.1, "representation": ["stft", "cwt"], "channels": ["DE"]})
    assert parse_config(config.model_dump(exclude_none=True)) == config
    assert make_config(to_flat(config)) == config


def test_schema_has_no_null_defaults():
    schema = json_schema()
    assert None not in [info.get("default", 0) for info in schema["$defs"]["InputSection"]["properties"].values()]
    json.dumps(schema)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("learning_rate", "lr"), ("n_epochs", "epochs"), ("network", "model"), ("fs", "sampling_rate_hz"),
        ("stride", "hop"), ("random_state", "seed"), ("epoch", "epochs"), ("criterion", "loss"),
    ],
)  # fmt: skip
def test_suggests_the_nearest_setting_by_synonym_or_spelling(given, expected):
    with pytest.raises(ValueError, match=f"unknown setting '{given}'; did you mean '{expected}'"):
        make_config({given: 1})


def test_misplaced_key_names_its_section():
    with pytest.raises(ValueError, match="unknown key 'lr'; it belongs in section training"):
        parse_config({"lr": 1})
    with pytest.raises(ValueError, match="unknown section 'trainin'; did you mean 'training'"):
        parse_config({"trainin": {}})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 1.5}, "epochs is 1.5, expected an integer >= 1 and <= 1000000"),
        ({"band_limit_hz": "x"}, "band_limit_hz is 'x', expected a number or 'off'"),
        ({"band_limit_hz": -1.0}, "band_limit_hz is -1.0, expected a frequency > 0 or off"),
        ({"rpm_range": ["a", 3]}, "rpm_range is ['a', 3], expected two numbers or 'unknown'"),
        ({"test_specimens": 3}, "test_specimens is 3, expected a list of names or 'drawn'"),
        ({"split": "foo"}, "unknown split 'foo'; expected one of: specimen, recording, time"),
        ({"sync_batchnorm": "maybe"}, "sync_batchnorm is 'maybe', expected true or false"),
        ({"progressive": [[1]]}, "progressive is [[1]], expected a list of pairs"),
        ({"trainer": 3}, "trainer is 3, expected the name of a trainer"),
        ({"simulation": 3}, "simulation is 3, expected a mapping of settings"),
        ({"simulation": {"n_machines": "x"}}, "simulation.n_machines is 'x', expected an integer >= 3 and <= 100000"),
        ({"checkpoint_every": -3}, "checkpoint_every is -3, expected a number of batches >= 1 or a time"),
        ({"teacher": None, "alpha": 0.5}, "teacher is required"),
        ({"trainer": "plain", "trainer_options": {"a": 1}}, "trainer_options requires a trainer that a plug-in"),
    ],
)
def test_message_states_the_value_and_what_was_expected(settings, message):
    with pytest.raises(ValueError) as caught:
        make_config(settings)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"teacher": "a", "representation": "stft"}, "mutually exclusive"),
        ({"alpha": 0.3, "trainer": "pinn"}, "alpha requires trainer 'distilled' (got 'pinn')"),
        ({"alpha": 0.3}, "teacher is required"),
        ({"trainer": "plian"}, "unknown trainer 'plian'; did you mean 'plain'"),
    ],
)
def test_rejects_settings_of_several_training_methods(settings, message):
    with pytest.raises(ValueError) as caught:
        make_config(settings)
    assert message in str(caught.value)


def test_option_overrides_the_training_method_of_a_file(tmp_path):
    (tmp_path / "c.yaml").write_text("training: {lr: 0.5, method: {kind: pinn, lambda_freq: 2}}\n")
    assert load_config(tmp_path / "c.yaml", {}).training.method.kind == "pinn"
    changed = load_config(tmp_path / "c.yaml", {"representation": "stft"})
    assert (changed.training.method.kind, changed.training.lr) == ("maps", 0.5)


CHOICES = {
    "model": "wdcnn", "window": 1024, "hop": 512, "epochs": 1, "classes": ["a", "b"], "channels": ["DE"],
    "sampling_rate_hz": 12_000, "band_limit_hz": "off", "rpm_range": "unknown", "precision": "32", "bearing": "unknown",
    "threads": 1, "descriptors": "off",
}  # fmt: skip


def test_resolved_configuration_is_complete_and_frozen():
    resolved = resolve(make_config({}), **CHOICES)
    assert isinstance(resolved, ResolvedConfig)
    assert not [flat.name for flat, value in walk(resolved) if value is None and flat.path[0] != "search"]
    with pytest.raises(Exception, match="frozen"):
        resolved.training.lr = 1.0
    with pytest.raises(ValueError, match="window is not set"):
        resolve(make_config({}), **{name: value for name, value in CHOICES.items() if name != "window"})


def test_changed_settings_are_validated():
    resolved = resolve(make_config({}), **CHOICES)
    assert with_settings(resolved, lr=0.5).training.lr == 0.5
    with pytest.raises(ValueError, match="lr is -1, expected a number > 0"):
        with_settings(resolved, lr=-1)
    with pytest.raises(ValueError, match="unknown setting 'something'"):
        from_flat({"something": 1}, Config)


INVALID = {
    "hop": "input: {hop: 1e30}",
    "n_machines": "data: {simulation: {n_machines: 1e12}}",
    "threads": "run: {threads: 100000}",
    "num_workers": "run: {num_workers: 100000}",
    "temperature": "training: {method: {kind: distilled, teacher: x, temperature: 1e300}}",
    "maps": "training: {method: {kind: maps, representation: stft, maps: {stft: {n_frequencies: x}}}}",
    "rpm_range": "physics: {rpm_range: [1e-300, 1e300]}",
    "lr": "training: {lr: .nan}",
    "seed": "run: {seed: -1}",
    "epochs": "training: {epochs: 1e400}",
    "window": "input: {window: 99999999999}",
    "classes": "data: {classes: []}",
    "imports": "run: {imports: [no.such.module]}",
    "log": "run: {log: [nothing]}",
    "checkpoint_every": "run: {checkpoint_every: -3}",
    "sampling_rate_hz": "data: {sampling_rate_hz: 1e300}",
    "stages": "training: {method: {kind: progressive, stages: [[1e9, 1]]}}",
}


@pytest.mark.parametrize(("name", "text"), INVALID.items(), ids=INVALID)
def test_rejects_invalid_files_in_one_line_before_any_work(name, text, tmp_path):
    (tmp_path / "c.yaml").write_text(text)
    done = CliRunner().invoke(app, ["train", "--config", str(tmp_path / "c.yaml"), "--out", str(tmp_path / "out")])
    assert done.exit_code == 2, done.output
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert done.stderr.startswith("whirl: ")
    assert "Traceback" not in done.output
    assert not (tmp_path / "out").exists()


def test_rejects_invalid_options_in_one_line(tmp_path):
    for options in (["--maps", "{stft: [1"], ["--rpm-range", "a,b"], ["--channels", ","], ["--augment", "[light"]):
        done = CliRunner().invoke(app, ["train", *options, "--out", str(tmp_path / "out")])
        assert done.exit_code == 2, done.output
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--learning-rate", "1"], "no such option: --learning-rate; did you mean --lr?"),
        (["search", "--n-epochs", "1"], "no such option: --n-epochs; did you mean --epochs?"),
        (["show", "--bearnig", "6205", "a.mat"], "no such option: --bearnig; did you mean --bearing?"),
        (["train", "--quasar", "1"], "no such option: --quasar"),
        (["train", "--seed"], "Option '--seed' requires an argument."),
        (["trian"], "No such command 'trian'. Did you mean 'train'?"),
    ],
)
def test_wrong_usage_names_the_nearest_option(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["whirl", *arguments])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert capsys.readouterr().err == f"whirl: {message}\n"


HOSTILE = [
    "",
    "[",
    "{a: [",
    "1e300",
    "-1",
    "nan",
    "\x00",
    "512:99999999999999999999",
    -1,
    10**400,
    [[]],
    {1: 2},
    [None],
    b"x",
]
REQUIRED = {"maps": {"representation": "stft"}, "alpha": {"teacher": "a"}, "trainer_options": {"trainer": "a"}}


def message_for(flat, value):
    try:
        make_config({flat.name: flat.parse(value), **REQUIRED.get(flat.name, {})})
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("flat", flat_settings(Config).values(), ids=lambda flat: flat.name)
def test_hostile_values_are_accepted_or_rejected_in_one_line(flat):
    assert not [value for value in HOSTILE if "\n" in message_for(flat, value)]
