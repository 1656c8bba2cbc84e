"""The rows of the study: which sets are read, how they are split, how many rows each language gives.

The data pack is read where it lies (`INNERLINGUA_DATA`), kept in memory, and never written anywhere. A row of the
pack is `{"id", "group", "text": {language: sentence}}`. Everything is split by `group` before anything else: of the
documents of NTREX a third, chosen by the seed, is held out; no other set is split, and SIB-200 is held out whole. A
training row whose English sentence is also a held-out English sentence is dropped, because a few short sentences
recur between sets.
"""

import gzip
import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

ANCHOR = "eng_Latn"
TARGETS = ("hin_Deva", "npi_Deva", "ben_Beng", "tel_Telu", "swh_Latn")
TRAINING_SETS = ("ntrex", "bible", "flores_v1", "tatoeba", "storybooks", "xc_translate")
NON_COMMERCIAL_SETS = ("lafand_mafand",)
UNSEEN_SET = "sib200"


@dataclass(frozen=True)
class Sentence:
    """One row of the pack, cut down to the anchor language and the targets; `id` is `set/id`, unique over all sets."""

    id: str
    source: str
    group: str
    text: dict[str, str]


@dataclass(frozen=True)
class Corpus:
    """The three parts of the study and the counts of what was left out, by reason."""

    train: list[Sentence]
    held_out: list[Sentence]
    unseen: list[Sentence]
    left_out: dict[str, int]
    held_out_groups: int
    train_groups: int


@dataclass(frozen=True)
class Pair:
    """A target sentence and its English translation: one row of tuning or of measuring."""

    id: str
    source: str
    language: str
    text: str
    anchor_text: str


def read_set(folder: Path, name: str, *, non_commercial: bool) -> tuple[list[Sentence], int]:
    """Read one set of the pack; also returns how many rows were left out because their licence is non-commercial."""
    path = folder / "parallel" / f"{name}.jsonl.gz"
    sentences = []
    refused = 0
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if not non_commercial and "NC" in row.get("license", ""):
                refused += 1
                continue
            text = {language: row["text"][language] for language in (ANCHOR, *TARGETS) if language in row["text"]}
            sentences.append(Sentence(f"{name}/{row['id']}", name, row["group"], text))
    return sentences, refused


def split_groups(groups: Iterable[str], *, seed: int, share: float = 1 / 3) -> set[str]:
    """Choose the held-out groups: `share` of the distinct groups, in the order of a hash of the seed and the name."""
    ordered = sorted(set(groups), key=lambda group: hashlib.sha256(f"{seed}:{group}".encode()).hexdigest())
    return set(ordered[: round(len(ordered) * share)])


def read_corpus(folder: Path, *, seed: int, non_commercial: bool = False) -> Corpus:
    """Read the pack and split it; see the module's words for the rule.

    Args:
        folder: the data pack, with its `parallel/`.
        seed: chooses the held-out documents of NTREX.
        non_commercial: also take the sets and rows whose licence forbids commercial use.
    """
    names = TRAINING_SETS + (NON_COMMERCIAL_SETS if non_commercial else ())
    left_out: Counter[str] = Counter()
    pool: list[Sentence] = []
    for name in names:
        sentences, refused = read_set(folder, name, non_commercial=non_commercial)
        left_out["non-commercial licence"] += refused
        pool.extend(sentences)
    unseen, _ = read_set(folder, UNSEEN_SET, non_commercial=non_commercial)
    documents = {sentence.group for sentence in pool if sentence.source == "ntrex"}
    held_groups = split_groups(documents, seed=seed)
    held_out = [sentence for sentence in pool if sentence.group in held_groups]
    known = {sentence.text[ANCHOR].strip().casefold() for sentence in (*held_out, *unseen)}
    train = []
    for sentence in pool:
        if sentence.group in held_groups:
            continue
        if sentence.text[ANCHOR].strip().casefold() in known:
            left_out["English sentence is also held out"] += 1
            continue
        train.append(sentence)
    held_out = [sentence for sentence in held_out if sentence.source == "ntrex"]
    return Corpus(train, held_out, unseen, dict(left_out), len(held_groups), len(documents) - len(held_groups))


def pairs_of(sentences: Sequence[Sentence], language: str) -> list[Pair]:
    """The pairs of one target language; a row whose target equals the English text is no translation, and left out."""
    return [
        Pair(sentence.id, sentence.source, language, sentence.text[language], sentence.text[ANCHOR])
        for sentence in sentences
        if language in sentence.text and sentence.text[language] != sentence.text[ANCHOR]
    ]


def equal_pairs(pairs: dict[str, list[Pair]], *, count: int, seed: int) -> list[Pair]:
    """Sample `count` pairs of every language without replacement: NTREX first, the rest by the seed.

    NTREX is preferred because all languages have it, so that the languages differ in as few sets as possible. `count`
    is lowered to what the poorest language has. The result is in random order, the same for every run.
    """
    count = min([count, *(len(rows) for rows in pairs.values())])
    chosen: list[Pair] = []
    for language in sorted(pairs):
        shuffled = sorted(pairs[language], key=lambda pair: pair.id)
        random.Random(f"{seed}:{language}").shuffle(shuffled)
        shuffled.sort(key=lambda pair: pair.source != "ntrex")
        chosen.extend(shuffled[:count])
    random.Random(seed).shuffle(chosen)
    return chosen


def count_table(pairs: Iterable[Pair]) -> dict[str, dict[str, int]]:
    """Rows per language and set."""
    table: dict[str, Counter[str]] = {}
    for pair in pairs:
        table.setdefault(pair.language, Counter())[pair.source] += 1
    return {language: dict(sorted(table[language].items())) for language in sorted(table)}
