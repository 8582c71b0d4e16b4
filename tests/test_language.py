"""Wording: American spelling, the field's standard terms, and no identifier that was replaced by one of them."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("whirl", "packages", "tests", "benchmarks", "examples", "docs")
TEXTS = sorted(
    path
    for path in [*ROOT.glob("*.md"), *(p for folder in FOLDERS for p in (ROOT / folder).rglob("*"))]
    if path.suffix in (".md", ".py", ".pyi") and path != Path(__file__)
)

REPLACED_PHRASES = re.compile(
    r"told_plainly|admits\(|_heed_votes|foreign_part|patiently|feign|go on with", re.IGNORECASE
)
BRITISH_SPELLING = re.compile(
    r"labell|colour|behaviour|neighbour|favour|honour|\bcentre|modell|"
    r"(harmon|standard|normal|recogn|summar|vector|quant|penal|synchron|initial|serial|regular|random|visual|organ)"
    r"is(e|ing|ation)|(optim|minim|maxim)is(e|ing|ation)",
    re.IGNORECASE,
)
REPLACED_NAMES = {
    # engine
    "told_plainly", "_heed_votes", "_save_or_leave", "_votes", "foreign_part", "is_whole", "_check_whole", "host_copy",
    "is_over", "listens_to", "joined_processes", "any_of", "wait_for_all", "is_writer", "mean_over_processes", "ECHO_S",
    "is_watched", "_unchanged", "MOST_UNREAD", "MOST_SHOWN",
    # optim, losses and training
    "LEAST_CYCLE", "schedule_training", "describe_curve", "_HoldsItsEnd", "own_class_weights", "check_factor",
    "_whole_numbers", "_ask_once", "_check_apart", "require_live_terms", "InertTermError", "allow_inert", "_agree",
    "_surprise", "_sureness", "KEPT_BYTES", "_refusal", "way_out", "_knows_rate", "_bare", "_begun", "after_mixing",
    "_impatient_mlflow", "_generators_left_alone", "_refused",
    # tuning
    "given_back", "_revive", "_give_back", "_lineages", "_from_first", "without_password", "is_gone",
    "mend_last_line", "_take_away",
    # data and physics
    "_obey_the_training_alone", "_leave_when_told", "_as_it_is", "_is_meant", "find_suspicious", "suspicions",
    "_telling", "_told_by_setting", "_having", "spill", "LineSearch", "warn_of_unknown",
    # runs, evaluation and cli
    "FREE_ON_RESUME", "as_seen", "try_physics", "use_threads", "_taken_up", "Examination", "own_examination",
    "physics_alone", "PhysicsAlone", "_quietly", "left_by", "noted_envelope", "distil", "MUST_FIT", "seen_of_test",
    "try_files", "_enqueue_usual", "usual_candidate", "kept_accuracy", "maps_of", "settled_maps", "_MAX_LETTERS",
    "_let_the_first_process_tell", "BAD_INPUT", "one_line_errors", "physics_says", "_judging", "ToRows", "ToMaps",
}  # fmt: skip


def names_in(path: Path) -> set[str]:
    """Every name that a module defines or uses."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    found = (getattr(node, attribute, None) for node in nodes for attribute in ("id", "attr", "name", "arg"))
    return {name for name in found if isinstance(name, str)}


def matches(pattern: re.Pattern[str]) -> dict[str, list[str]]:
    found = {path: [m.group() for m in pattern.finditer(path.read_text(encoding="utf-8"))] for path in TEXTS}
    return {str(path.relative_to(ROOT)): words for path, words in found.items() if words}


def test_replaced_phrases_are_gone():
    assert matches(REPLACED_PHRASES) == {}


def test_spelling_is_american():
    assert matches(BRITISH_SPELLING) == {}


def test_replaced_names_are_gone():
    found = {str(path.relative_to(ROOT)): names_in(path) & REPLACED_NAMES for path in TEXTS if path.suffix != ".md"}
    assert {path: names for path, names in found.items() if names} == {}
