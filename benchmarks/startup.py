"""Processor time of `whirl --help`, and of the help of a command.

Why: a command that is slow to start is unpleasant to use, and shell completion runs it for every suggestion.

What: new processes, from start to end, in alternation.

- `help`: `whirl --help` over `python -c 'import typer, rich, pydantic, yaml'`, the packages that the command uses.
- `train_help`: `whirl train --help`, which makes an option for every setting, over the same.

    python benchmarks/startup.py
"""

from __future__ import annotations

import resource
import subprocess
import sys

from _harness import configure, make_parser, measure, median_ratio, print_medians, print_results

GOALS = {"help": "<= 1.2"}
COMMANDS = {
    "imports": ["-c", "import typer, rich, pydantic, yaml"],
    "help": ["-m", "whirl", "--help"],
    "train_help": ["-m", "whirl", "train", "--help"],
}


def processor_time() -> float:
    """Return the seconds that the ended child processes have taken."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def start(arguments: list[str]) -> None:
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    arguments = make_parser(__doc__, rounds=15).parse_args()
    configure()
    variants = {name: lambda words=words: start(words) for name, words in COMMANDS.items()}
    seconds = measure(variants, arguments.rounds, clock=processor_time)
    print_medians(seconds, per="start")
    ratios = {name: median_ratio(seconds[name], seconds["imports"]) for name in ("help", "train_help")}
    print_results(ratios, GOALS)


if __name__ == "__main__":
    main()
