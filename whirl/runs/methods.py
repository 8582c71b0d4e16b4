"""The settings of each training method; combinations of methods that are invalid cannot be written."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Tag, field_validator

from whirl.runs.descriptions import OFF, About, Folder, Section, not_empty, one_of, setting

MAX_WINDOW = 2**28
Kind = Literal["stft", "cwt", "wvd", "envelope", "order"]


class PlainMethod(Section):
    """Training with labels only."""

    kind: Literal["plain"] = "plain"


class PhysicsMethod(Section):
    """Training with a physics-informed loss."""

    kind: Literal["pinn"] = "pinn"
    lambda_freq: float = setting(1.0, "Weight of the expected fault lines in the loss.", ge=0, le=1e6)
    lambda_sommerfeld: float = setting(0.0, "Weight of ranking severities by Sommerfeld number.", ge=0, le=1e6)
    lambda_temporal: float = setting(0.0, "Weight of steady predictions within a recording.", ge=0, le=1e6)
    lambda_schedule: str = setting(
        "constant",
        "How these weights increase over the epochs.",
        About(choices=lambda: ("linear", "cosine", "exponential", "step", "constant")),
    )
    unlabeled: Folder = setting(OFF, "Folder of unlabeled recordings for the physics terms.", About(kind="folder"))

    @field_validator("lambda_schedule")
    @classmethod
    def _known_schedule(cls, name: str) -> str:
        from whirl.losses.balancing import LAMBDA_SCHEDULES

        return one_of("lambda_schedule", name, LAMBDA_SCHEDULES)


class MapsMethod(Section):
    """Training on time-frequency maps."""

    kind: Literal["maps"] = "maps"
    representation: Kind | Literal["multi"] | list[Kind] = setting(
        ...,
        "Kinds of maps: stft, cwt, wvd, envelope, order, several of them, or multi.",
        About(synonyms=("spectrogram", "tfr", "transform"), kind="names"),
    )
    maps: dict[Kind, dict[str, Any]] = setting(
        None, "Arguments of the maps by kind, e.g. {stft: {n_frequencies: 128}}.", About(auto="defaults", kind="YAML")
    )
    specaugment: bool = setting(True, "Mask time and frequency bands in training.")
    map_cache: Folder = setting(
        OFF,
        "Store the maps in this folder, for all runs on the same windows.",
        About(flag="--cache-maps", kind="folder"),
    )

    @property
    def kinds(self) -> list[str]:
        """The kinds of maps."""
        if self.representation == "multi":
            from whirl.models.multi_tfr import DEFAULT_KINDS

            return list(DEFAULT_KINDS)
        return [self.representation] if isinstance(self.representation, str) else list(self.representation)

    @field_validator("representation", mode="before")
    @classmethod
    def _known_kinds(cls, kinds: Any) -> Any:
        for kind in kinds if isinstance(kinds, list) else [kinds]:
            one_of("representation", kind, (*Kind.__args__, "multi"))  # type: ignore[attr-defined]
        return not_empty(kinds)


class DistilledMethod(Section):
    """Training with a teacher network."""

    kind: Literal["distilled"] = "distilled"
    teacher: Folder = setting(..., "Run folder of the teacher network.", About(kind="folder"))
    temperature: float = setting(4.0, "Divisor of the logits of teacher and student.", gt=0, le=1e3)
    alpha: float = setting(
        0.7, "Weight of the distillation term; the term of the labels has weight 1 - alpha.", ge=0, le=1
    )


def _stages(stages: Any) -> Any:
    if isinstance(stages, str):
        from whirl.training.progressive_resizing import parse_schedule

        return parse_schedule(stages)
    return stages


class ProgressiveMethod(Section):
    """Training on windows of increasing length."""

    kind: Literal["progressive"] = "progressive"
    stages: Annotated[list[tuple[int, int]], BeforeValidator(_stages)] = setting(
        ..., "Stages LENGTH:EPOCHS, e.g. 512:5,1024:5,2048:10.", About("progressive", kind="stages")
    )
    resize: Literal["crop", "interpolate", "truncate"] = setting(
        "crop", "How windows are shortened in early stages.", About("progressive_method")
    )

    @field_validator("stages")
    @classmethod
    def _growing(cls, stages: list[tuple[int, int]]) -> list[tuple[int, int]]:
        lengths = [length for length, _ in stages]
        is_growing = stages and min(lengths) >= 16 and lengths == sorted(set(lengths)) and lengths[-1] <= MAX_WINDOW
        if not is_growing or min(n for _, n in stages) < 1:
            raise ValueError("expected stages (length, epochs) of increasing length >= 16, each of at least 1 epoch")
        return stages


METHODS = {
    "plain": PlainMethod,
    "pinn": PhysicsMethod,
    "maps": MapsMethod,
    "distilled": DistilledMethod,
    "progressive": ProgressiveMethod,
}


class RegisteredMethod(Section):
    """Training with a trainer that a plug-in has registered."""

    kind: str
    options: dict[str, Any] = setting(
        {}, "Keyword arguments of the registered trainer.", About("trainer_options", kind="YAML")
    )

    @field_validator("kind")
    @classmethod
    def _known(cls, name: str) -> str:
        from whirl.training.registry import TRAINERS

        return one_of("trainer", name, [*METHODS, *TRAINERS.names()])


def _tag(method: Any) -> str:
    kind = method.get("kind", "plain") if isinstance(method, dict) else getattr(method, "kind", "plain")
    return kind if isinstance(kind, str) and kind in METHODS else "registered"


Method = Annotated[
    Annotated[PlainMethod, Tag("plain")]
    | Annotated[PhysicsMethod, Tag("pinn")]
    | Annotated[MapsMethod, Tag("maps")]
    | Annotated[DistilledMethod, Tag("distilled")]
    | Annotated[ProgressiveMethod, Tag("progressive")]
    | Annotated[RegisteredMethod, Tag("registered")],
    Discriminator(_tag),
]
