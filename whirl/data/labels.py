"""Labels in several languages and spellings."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable

# Names of classes in several languages and spellings, in lower case without separators.
_CLASSES = {
    "healthy": "healthy normal good ok nofault nofailure faultfree baseline reference undamaged intact gesund gut "
    "normalzustand fehlerfrei sain bon normale sano sane saudavel bueno 正常 健康",
    "inner_race": "innerrace inner ir innerring innenring innenringschaden baguainterne bagueinterieure pistainterna "
    "anellointerno innerracefault innerracedefect anelinterno 内圈",
    "outer_race": "outerrace outer or outerring aussenring außenring aussenringschaden bagueexterne bagueexterieure "
    "pistaexterna outerracefault outerracedefect anelexterno 外圈",
    "ball": "ball balls rollingelement roller rollers wälzkörper waelzkoerper kugel rolle bille bola esfera ballfault "
    "balldefect 滚动体",
    "cage": "cage retainer käfig kaefig jaula gaiola gabbia 保持架",
    "imbalance": "imbalance unbalance unwucht balourd desequilibrio desbalanceo desbalance desbalanceamento squilibrio "
    "不平衡",
    "misalignment": "misalignment misaligned ausrichtfehler fehlausrichtung desalignement désalignement desalineacion "
    "desalineación desalinhamento disallineamento 不对中",
    "clearance": "looseness clearance lose spiel lockerung jeu holgura folga",
    "bent_shaft": "bentshaft wellenbiegung bowedshaft arbretordu ejedoblado",
    "wear": "wear worn verschleiss verschleiß usure desgaste usura",
}  # fmt: skip
_KNOWN = {spelling: name for name, spellings in _CLASSES.items() for spelling in spellings.split()}


def known_class(label: str) -> str | None:
    """Return the class that a label means in one of several languages and spellings; None if it is unknown.

    Example:
        >>> known_class("Unwucht"), known_class("Inner-Race"), known_class("pump 3")
        ('imbalance', 'inner_race', None)
    """
    return _KNOWN.get(re.sub(r"[\W_]", "", label).lower())


def similar_labels(labels: Iterable[str]) -> list[str]:
    """Return a sentence for each label that is probably another spelling of a more frequent one.

    Labels that differ in a digit are different classes.

    Example:
        >>> similar_labels(["ball"] * 3 + ["Ball", "bal", "outer"])
        ["'Ball' (1 file): did you mean 'ball'?", "'bal' (1 file): did you mean 'ball'?"]
    """
    counts = Counter(labels)
    ordered = [label for label, _ in counts.most_common()]
    sentences = []
    for position, label in enumerate(ordered):
        near = next((other for other in ordered[:position] if _is_spelling(label, other)), None)
        if near is not None:
            n_files = f"{counts[label]} file" + "s" * (counts[label] > 1)
            sentences.append(f"{label!r} ({n_files}): did you mean {near!r}?")
    return sentences


def _is_spelling(label: str, other: str) -> bool:
    first, second = (re.sub(r"[\W_]", "", text).lower() for text in (label, other))
    if first == second:
        return True
    if known_class(label) and known_class(other):
        return known_class(label) == known_class(other)
    if re.findall(r"\d", first) != re.findall(r"\d", second):
        return False
    return len(first) > 2 and difflib.SequenceMatcher(None, first, second).ratio() > 0.8
