"""Let a model answer questions whose answer is known, keep what is right, and label where it is right.

This is stage 1 of SARA: the model is its own teacher, and only answers that reach the right result become anchors. The
same run may ask the same ids in other languages; the labels then say in which of the two a model is right, which
methods that select data need.

Every draw is one request. All draws are in the journal before any is judged, so judging anew costs no request.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from innerlingua.data.answers import Extractor, extract_boxed, extract_choice, extractor, same_answer, same_text
from innerlingua.data.asking import ModelSpec, Sampling, first_rows, require_whole
from innerlingua.data.card import LICENCE_NOTE, beside, today, write_card
from innerlingua.data.files import check_beside, check_output, put_rows, replaced, write_rows
from innerlingua.data.hashes import hash_of
from innerlingua.data.languages import ENGLISH, check_language, known_languages
from innerlingua.data.licences import Licences
from innerlingua.data.questions import Question, read_questions
from innerlingua.data.sources import open_sources
from innerlingua.data.templates import ANSWER_TEMPLATES, Template, load_template
from innerlingua.data.work import Journal, Task, run_tasks
from innerlingua.data.work.progress import WorkProgress, counted_off
from innerlingua.errors import DataError

__all__ = ["LABELS", "Verified", "verify"]

LABELS: Final = ("correct-correct", "correct-incorrect", "incorrect-correct", "incorrect-incorrect")
"""Right in the anchor's language, then right in the target's."""
_BESIDE: Final = ("labels.jsonl", "rejected.jsonl", "card.md")


@dataclass(frozen=True)
class Verified:
    """What was written, and counts: asked = right + wrong + no_answer + cut_off + echo + unsettled + unanswered.

    Beside these: `kept`, and where there are any `replies_without_model` and `left_out_non_commercial`.
    """

    path: Path
    labels: Path
    rejected: Path
    card: Path
    journal: Path
    counts: dict[str, int]
    label_counts: dict[str, int]


@dataclass(frozen=True)
class _Verdict:
    """The judgement of one question: the reason (`right` or why not), how many draws were right, and the best text."""

    reason: str
    right: int
    draws: int
    found: str | None
    text: str | None
    replied: dict[str, Any] | None


def verify(
    paths: Sequence[str | Path],
    output: str | Path,
    *,
    model: ModelSpec,
    sampling: Sampling | None = None,
    template: str | None = None,
    extract: str | Extractor | None = None,
    anchor_language: str = ENGLISH,
    languages: Sequence[str] | None = None,
    language_names: Mapping[str, str] | None = None,
    samples: int = 1,
    agreement: float = 0.5,
    non_commercial: str = "error",
    limit: int | None = None,
    partial: bool = False,
    restart: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
) -> Verified:
    """Ask, judge, keep.

    Writes `output` (right answers in the anchor's language: id, language, prompt, completion, answer, provenance), and
    beside it `.labels.jsonl` (per id and language), `.rejected.jsonl` (what was not kept, and why), `.card.md` and
    `.journal`, by which the same call continues after a kill.

    Args:
        paths: instruction sets in any layout of `questions.py`.
        output: a `.jsonl` or `.jsonl.gz` file.
        model: who is asked.
        sampling: how text is drawn; greedy unless given, or temperature 0.7 for several samples.
        template: name or file; `choice` for questions with choices and `reasoning` for others unless given.
        extract: an extractor's name, or a function from a text to its answer. Unless given: the letter for questions
            with choices, the box for others.
        anchor_language: the language whose right answers are kept.
        languages: languages to ask in; all that the sets hold unless given.
        language_names: `{code: English name}` for languages outside FLORES-200.
        samples: draws per question.
        agreement: share of a question's draws that must be right for it to count as right; guesses rarely agree.
        non_commercial: rows whose licence allows no commercial use: `error`, `drop` or `keep`.
        limit: ask only the questions of the first so many ids.
        partial: write although some requests failed.
        restart: forget what an earlier run has done.
        overwrite: replace outputs that exist.
        quiet: no progress.

    Raises:
        DataError: bad input, another job's journal, requests that failed to the last (unless `partial`).
    """
    out = check_output(output, overwrite=overwrite, inputs=paths)
    if not out.name.endswith((".jsonl", ".jsonl.gz")):
        raise DataError(f"{output}: verify writes JSON Lines; give a name that ends with .jsonl or .jsonl.gz")
    journal_path = out.with_name(f"{out.name}.journal")
    # A journal says that what lies beside is an earlier run's.
    own = overwrite or journal_path.exists()
    check_beside([beside(out, ending) for ending in _BESIDE], overwrite=own, inputs=paths)
    if samples < 1 or not 0 < agreement <= 1:
        raise DataError(
            f"--samples {samples}, --agreement {agreement}: at least one sample, and a share above 0, up to 1"
        )
    sampling = sampling or Sampling(temperature=0.7 if samples > 1 else 0.0)
    known = known_languages(language_names)
    check_language(anchor_language, "--anchor-language", known=known)
    for code in languages or []:
        check_language(code, "--language", known=known)
    take, chosen = _extractor(extract), _Templates(template)
    sources = open_sources(list(paths))
    licences = Licences(non_commercial)
    questions = list(read_questions([licences.admit(s) for s in sources], known=known, languages=languages))
    ids = frozenset(first_rows(dict.fromkeys(question.id for question in questions), limit))
    questions = [question for question in questions if question.id in ids]
    if not questions:
        among = " in the languages asked for" if languages else ""
        raise DataError(f"{', '.join(s.name for s in sources)}: no question{among}")
    # What decides an answer; which questions and how many draws are asked for may grow from run to run.
    job = {
        "command": "verify",
        "model": model.model,
        "revision": model.revision,
        "sampling": asdict(sampling),
        "template": chosen.digests(),
        "inputs": hash_of(sources),
    }
    settings = {
        **job,
        "samples": samples,
        "agreement": agreement,
        "answer": extract if isinstance(extract, str) else "by the layout" if extract is None else "a function",
        "anchor_language": anchor_language,
        "languages": list(languages) if languages is not None else None,
        "non_commercial": non_commercial,
        "limit": limit,
    }
    with Journal(journal_path, job, restart=restart) as journal:
        _ask(questions, chosen, journal, model, sampling, samples, partial, quiet)
        judged = [
            (q, _verdict(q, chosen.prompt(q), journal, sampling, samples, agreement, take))
            for q in counted_off(questions, "verify: judging", total=len(questions), quiet=quiet)
        ]
        made = {"model": model.model, "revision": model.revision, "settings": asdict(sampling), "samples": samples}
        return _write(out, judged, chosen, made, settings, licences, journal.path, quiet)


class _Templates:
    def __init__(self, name: str | None) -> None:
        self._given = None if name is None else load_template(name, ANSWER_TEMPLATES, needs="question")
        self._own = {n: Template(n, text) for n, text in ANSWER_TEMPLATES.items()}

    def of(self, question: Question) -> Template:
        return self._given or self._own["choice" if question.choices else "reasoning"]

    def digests(self) -> dict[str, str]:
        return {t.name: t.digest for t in ([self._given] if self._given else self._own.values())}

    def prompt(self, question: Question) -> str:
        template = self.of(question)
        text = question.text
        if question.choices and "{choices}" not in template.text:
            text = f"{text}\n\n{question.lettered}"
        return template.fill({"question": text, "choices": question.lettered})


def _key(question: Question, draw: int) -> str:
    return f"{question.id}|{question.language}|{draw}"


def _ask(
    questions: Sequence[Question],
    templates: _Templates,
    journal: Journal,
    model: ModelSpec,
    sampling: Sampling,
    samples: int,
    partial: bool,
    quiet: bool,
) -> None:
    tasks = [Task(_key(question, draw), (question, draw)) for question in questions for draw in range(samples)]
    held = sum(task.key in journal for task in tasks)
    if held == len(tasks):
        return  # all asked already; nothing is loaded or connected
    backend = model.open()

    async def work(task: Task) -> dict[str, Any]:
        question, draw = task.payload
        messages = [{"role": "user", "content": templates.prompt(question)}]
        reply = await backend.complete(messages, sampling.fields(draw))
        return {"text": reply.text, "finish": reply.finish, "model": reply.model, "date": today()}

    with WorkProgress("verify", total=len(tasks), done=held, quiet=quiet) as progress:
        outcome = run_tasks(
            tasks,
            work,
            journal,
            limit=model.at_once,
            attempts=model.attempts,
            patience=model.patience,
            done=held,
            monitor=progress,
            around=backend,
        )
    require_whole(outcome, len(tasks), partial=partial)


def _extractor(extract: str | Extractor | None) -> Extractor | None:
    return extractor(extract) if isinstance(extract, str) else extract


def _echoes(text: str, prompt: str, question: Question) -> bool:
    """Whether a server returned the prompt with the answer, or the model copied it: twice the prompt is no anchor.

    An answer may well quote its question; it may not begin with it, nor hold the question with our instruction.
    """
    return text.lstrip().startswith(question.text) or (prompt != question.text and prompt in text)


def _right(question: Question, found: str) -> bool:
    if not question.accepted:
        return same_answer(found, question.answer)
    return any(same_text(found, gold, question.language) or same_answer(found, gold) for gold in question.accepted)


def _verdict(
    question: Question,
    prompt: str,
    journal: Journal,
    sampling: Sampling,
    samples: int,
    agreement: float,
    extract: Extractor | None,
) -> _Verdict:
    take = extract or (extract_choice if question.choices else extract_boxed)
    keys = ((_key(question, draw), draw) for draw in range(samples))
    replies = [{**journal.reply(key), "seed": sampling.seed + draw} for key, draw in keys if key in journal]
    if not replies:
        return _Verdict("unanswered", 0, 0, None, None, None)
    reasons: Counter[str] = Counter()
    best: tuple[dict[str, Any], str] | None = None
    other: tuple[dict[str, Any], str | None] = (replies[0], None)
    for reply in replies:
        found = take(reply["text"]) if reply["finish"] != "length" else None
        if reply["finish"] == "length":
            reasons["cut_off"] += 1
        elif _echoes(reply["text"], prompt, question):
            reasons["echo"] += 1
        elif found is None:
            reasons["no_answer"] += 1
        elif _right(question, found):
            reasons["right"] += 1
            best = best or (reply, found)
        else:
            reasons["wrong"] += 1
            other = (reply, found)
    right = reasons["right"]
    if best is not None and right >= agreement * len(replies):
        return _Verdict("right", right, len(replies), best[1], best[0]["text"], best[0])
    reason = "unsettled" if right else reasons.most_common(1)[0][0]
    return _Verdict(reason, right, len(replies), other[1], other[0]["text"], other[0])


def _write(
    out: Path,
    judged: Sequence[tuple[Question, _Verdict]],
    templates: _Templates,
    made: dict[str, Any],
    settings: dict[str, Any],
    licences: Licences,
    journal: Path,
    quiet: bool,
) -> Verified:
    anchor_language = settings["anchor_language"]
    labels, rejected = (beside(out, ending) for ending in _BESIDE[:2])

    def row(question: Question, verdict: _Verdict) -> dict[str, Any]:
        template = templates.of(question)
        replied = verdict.replied or {}
        return {
            "id": question.id,
            "language": question.language,
            "group": question.group,
            "prompt": templates.prompt(question),
            "completion": verdict.text,
            "answer": question.answer,
            "accepted": list(question.accepted) or None,
            "choices": list(question.choices) or None,
            **{name: question.origin.get(name) for name in ("source", "license")},
            "provenance": {
                **made,
                "reply_model": replied.get("model"),
                "seed": replied.get("seed"),
                "template": {"name": template.name, "sha256_16": template.digest},
                "date": replied.get("date"),
                "right": f"{verdict.right}/{verdict.draws}",
                "question": question.origin,
            },
        }

    def rows() -> Iterator[dict[str, Any]]:
        for q, v in counted_off(judged, "verify: writing", total=len(judged), quiet=quiet):
            if v.reason == "right" and q.language == anchor_language:
                yield row(q, v)

    with replaced(out) as written:
        kept = put_rows(written, out, rows())
        write_rows(
            rejected, ({**row(q, v), "reason": v.reason, "found": v.found} for q, v in judged if v.reason != "right")
        )
        labelled = list(_labels(judged, anchor_language))
        write_rows(labels, labelled)
        label_counts = Counter(str(entry["label"]) for entry in labelled if "label" in entry)
        counts = {"asked": len(judged), **Counter(v.reason for _, v in judged), "kept": kept}
        nameless = sum(v.replied is not None and v.replied["model"] is None for _, v in judged)
        extra = {"replies_without_model": nameless, "left_out_non_commercial": licences.dropped}
        counts |= {name: count for name, count in extra.items() if count}
        card = write_card(
            out,
            written=written,
            title="Answers that a model gave itself and that reach the right result, kept by `innerlingua data verify`",
            languages={anchor_language: kept},
            counts={**counts, **label_counts},
            sources=settings["inputs"],
            licences=licences.counts,
            settings=settings,
            notes=[
                "Keeping only right answers leans towards easy questions, and with choices towards lucky guesses; "
                "several samples with a high agreement lean less.",
                LICENCE_NOTE,
            ],
        )
    return Verified(out, labels, rejected, card, journal, counts, dict(label_counts))


def _labels(judged: Sequence[tuple[Question, _Verdict]], anchor_language: str) -> Iterator[dict[str, Any]]:
    """Per id and language: right or not, and beside the anchor's language one of `LABELS`."""
    anchors = {q.id: v for q, v in judged if q.language == anchor_language}
    for question, verdict in judged:
        entry: dict[str, Any] = {
            "id": question.id,
            "language": question.language,
            "right": verdict.reason == "right",
            "right_draws": verdict.right,
            "draws": verdict.draws,
        }
        anchor = anchors.get(question.id)
        if question.language != anchor_language and anchor is not None and anchor.draws and verdict.draws:
            words = ["correct" if v.reason == "right" else "incorrect" for v in (anchor, verdict)]
            entry |= {"anchor_language": anchor_language, "label": "-".join(words)}
        yield entry
