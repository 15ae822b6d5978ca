"""The mould of a caption: what is left when all that it states is replaced by its kind.

"a red boat at sea" and "a green tent on a beach" have the same mould, "COUNT COLOUR THING PLACE".
A captioner that has few moulds writes one safe sentence about everything.
"""

from training.scenes.language import lexicon
from training.scenes.language.statements import tokens

#: Kind of a token -> its placeholder.
_PLACEHOLDERS = {"noun": "THING", "worn": "COLOUR", "known": "COUNT"}
_VERBS = frozenset(verb for verbs in lexicon.DOING.values() for verb in verbs)


def mould(caption: str) -> str:
    """The words of a caption, with placeholders for those that state something of a picture."""
    words = []
    for token in tokens(caption.lower()):
        if token.kind != "word":
            words.append(_PLACEHOLDERS.get(token.kind, token.kind.upper()))
        elif token.value in _VERBS:
            words.append("DOING")
        else:
            words.append(str(token.value))
    return " ".join(words)
