"""Translate prompts and verified reasoning, keep what survived, set aside what did not, with the reason.

This is stage 2 of SARA. Every text (prompt, completion, a message) is one task. A translation that loses its final
answer, a number, code, LaTeX or a placeholder, or that is in the wrong script or language, is asked for again at a
higher temperature; after the last try the row is set aside. A row is written only when all of its texts passed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

from innerlingua.data.asking import Backend, ModelSpec, Sampling, hash_of, require_whole
from innerlingua.data.card import card_path, today, write_card
from innerlingua.data.files import check_output, write_rows
from innerlingua.data.identify import Identifier, load_identifier
from innerlingua.data.languages import ENGLISH, check_language, known_languages
from innerlingua.data.rows import KINDS
from innerlingua.data.sources import Row, Source, open_sources
from innerlingua.data.survival import Limits, faults, kept_pieces
from innerlingua.data.templates import TRANSLATE_TEMPLATES, Template, load_template
from innerlingua.data.work import ChatClient, Endpoint, Journal, Retryable, Task, run_tasks
from innerlingua.data.work.progress import WorkProgress
from innerlingua.errors import DataError

__all__ = ["Quality", "Translated", "translate"]

_WARMER: Final = 0.7
_CARRIED: Final = ("group", "answer", "choices", "label")


@dataclass(frozen=True)
class Quality:
    """A server that estimates translations: POST {src, mt, source_language, target_language}, reply {score: number}.

    Args:
        url: of the request itself.
        least: the least score that passes.
    """

    url: str
    least: float


@dataclass(frozen=True)
class Translated:
    """What was written, and counts: rows x languages asked for = translated + set_aside + unanswered."""

    path: Path
    set_aside: Path
    card: Path
    journal: Path
    counts: dict[str, int]
    languages: dict[str, int]
    reasons: dict[str, int]
    identifier: str


@dataclass(frozen=True)
class _Text:
    """One text of a row: which, and what it says."""

    row: int
    field: str
    text: str


def translate(
    paths: Sequence[str | Path],
    output: str | Path,
    *,
    to: Sequence[str],
    model: ModelSpec,
    sampling: Sampling | None = None,
    template: str | None = None,
    source_language: str = ENGLISH,
    language_names: Mapping[str, str] | None = None,
    tries: int = 3,
    limits: Limits | None = None,
    quality: Quality | None = None,
    identify: bool = True,
    limit: int | None = None,
    partial: bool = False,
    restart: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
) -> Translated:
    """Translate rows and write the targets that passed; `pair` joins them with their anchors.

    Writes `output` (id, language, the content columns, provenance), and beside it `.set_aside.jsonl`, `.card.md` and
    `.journal`, by which the same call continues after a kill.

    Args:
        paths: rows with id and prompt and completion, messages, or text, such as `verify` writes.
        output: a `.jsonl` or `.jsonl.gz` file.
        to: target languages.
        model: who translates.
        sampling: of the first try; greedy unless given. Later tries are at temperature 0.7 at least.
        template: name or file. Unless given: `choice` for rows with choices, `mathematics` for rows with an answer,
            `general` for others. `bare` for models that translate without being told.
        source_language: the language of rows that do not name theirs.
        language_names: `{code: English name}` for languages outside FLORES-200.
        tries: translations of one text before its row is set aside.
        limits: bounds of script, copying and length.
        quality: a server that estimates quality, and the least score.
        identify: check the language where the optional library is installed.
        limit: only the first so many rows.
        partial: write although some requests failed.
        restart: forget what an earlier run has done.
        overwrite: replace outputs that exist.
        quiet: no progress.

    Raises:
        DataError: bad input, another job's journal, requests that failed to the last (unless `partial`).
    """
    out = check_output(output, overwrite=overwrite)
    if not out.name.endswith((".jsonl", ".jsonl.gz")):
        raise DataError(f"{output}: translate writes JSON Lines; give a name that ends with .jsonl or .jsonl.gz")
    if tries < 1:
        raise DataError(f"--tries {tries}: at least 1")
    known = known_languages(language_names)
    targets = list(dict.fromkeys(to))
    if not targets:
        raise DataError("--to: name at least one target language, such as swh_Latn")
    for code in (*targets, source_language):
        check_language(code, "--to", known=known)
    sources = open_sources(list(paths))
    rows = list(_rows(sources, source_language, known))[:limit]
    identifier = load_identifier() if identify else None
    run = _Run(
        rows=rows,
        targets=targets,
        known=known,
        model=model,
        sampling=sampling or Sampling(),
        template=None if template is None else load_template(template, TRANSLATE_TEMPLATES, needs="text"),
        tries=tries,
        limits=limits or Limits(),
        quality=quality,
        identifier=identifier,
    )
    job = {
        "command": "translate",
        "model": model.model,
        "revision": model.revision,
        "to": targets,
        "sampling": asdict(run.sampling),
        "templates": run.template_digests(),
        "tries": tries,
        "limits": asdict(run.limits),
        "quality": asdict(quality) if quality else None,
        "identifier": identifier.name if identifier else None,
        "limit": limit,
        "inputs": hash_of(sources),
    }
    journal_path = out.with_name(f"{out.name}.journal")
    with Journal(journal_path, job, restart=restart) as journal:
        _ask(run, journal, partial=partial, quiet=quiet)
        return _write(run, journal, out, job)


@dataclass(frozen=True)
class _Input:
    """A row to translate: its id, language, texts by field, what goes along, and where it stood."""

    id: str
    language: str
    texts: dict[str, str]
    row: Row
    origin: dict[str, Any]


def _rows(sources: Sequence[Source], language: str, known: Mapping[str, str]) -> Iterator[_Input]:
    seen: dict[str, str] = {}
    for source in sources:
        for number, row in source.rows():
            where = source.place(number)
            if row.get("id") is None or not str(row["id"]).strip():
                raise DataError(
                    f"{where}: no column 'id' (or it is null). A translation is joined to its anchor by it."
                )
            row_id = str(row["id"])
            where = f"{where} (id {row_id!r})"
            if seen.setdefault(row_id, where) != where:
                raise DataError(
                    f"{where}: the id occurs twice, first at {seen[row_id]}. Rename or remove one of the two."
                )
            code = str(row.get("language") or row.get("lang") or language)
            check_language(code, where, known=known)
            texts = dict(_texts(row, where))
            if not texts or any(not text.strip() for text in texts.values()):
                raise DataError(
                    f"{where}: {'an empty text' if texts else 'no text to translate'}. Fill it in, or drop it."
                )
            yield _Input(row_id, code, texts, row, {"file": Path(source.name).name, source.unit: number})


def _texts(row: Row, where: str) -> Iterator[tuple[str, str]]:
    """The texts of a row by field: `prompt`, `completion`, `text`, or `messages.0` and so on."""
    for column in (column for columns in KINDS.values() for column in columns):
        value = row.get(column)
        if isinstance(value, str):
            yield column, value
        elif isinstance(value, list):
            for index, message in enumerate(value):
                if not isinstance(message, dict) or not isinstance(message.get("content"), str):
                    raise DataError(f"{where}: {column}[{index}] must be an object with role and content")
                yield f"{column}.{index}", message["content"]
        elif value is not None:
            raise DataError(f"{where}: {column} must be text or a list of messages")


@dataclass(frozen=True)
class _Run:
    rows: Sequence[_Input]
    targets: Sequence[str]
    known: Mapping[str, str]
    model: ModelSpec
    sampling: Sampling
    template: Template | None
    tries: int
    limits: Limits
    quality: Quality | None
    identifier: Identifier | None

    def template_of(self, row: _Input) -> Template:
        if self.template is not None:
            return self.template
        answered = "mathematics" if row.row.get("answer") is not None else "general"
        name = "choice" if row.row.get("choices") is not None else answered
        return Template(name, TRANSLATE_TEMPLATES[name])

    def template_digests(self) -> dict[str, str]:
        return {t.name: t.digest for t in {self.template_of(row) for row in self.rows}}

    def wanted(self) -> Iterator[tuple[_Input, str]]:
        for row in self.rows:
            for target in self.targets:
                if target != row.language:
                    yield row, target

    async def text(self, backend: Backend, judge: _Judge, row: _Input, target: str, field: str) -> dict[str, Any]:
        """Translate one text until it passes or the tries are used up."""
        source = row.texts[field]
        template = self.template_of(row)
        names = {"source_language": self.known[row.language], "target_language": self.known[target], "text": source}
        messages = [{"role": "user", "content": template.fill(names)}]
        result: dict[str, Any] = {}
        for draw in range(self.tries):
            warm = (
                self.sampling
                if draw == 0
                else replace(self.sampling, temperature=max(self.sampling.temperature, _WARMER))
            )
            settings = warm.fields(draw)
            if self.model.url is None:
                settings |= {"source": row.language, "target": target}
            reply = await backend.complete(messages, settings)
            text = reply.text.strip()
            reasons = ["cut off by the limit of tokens"] if reply.finish == "length" else []
            reasons = reasons or faults(
                source,
                text,
                source_language=row.language,
                language=target,
                limits=self.limits,
                identify=self.identifier,
            )
            result = {"text": text, "tries": draw + 1, "reasons": reasons, "model": reply.model, "date": today()}
            if self.identifier is not None:
                result["language_check"] = self.identifier.status(kept_pieces(text), target)
            if not reasons and self.quality is not None:
                result["score"] = score = await judge.score(source, text, row.language, target)
                if score < self.quality.least:
                    result["reasons"] = [f"quality: {score:.3f}, below {self.quality.least}"]
            if not result["reasons"]:
                break
        return result


class _Judge:
    """The backend and the quality server together, as one asynchronous context."""

    def __init__(self, backend: Backend, model: ModelSpec, quality: Quality | None) -> None:
        self._backend = backend
        self._stack = AsyncExitStack()
        self._quality = quality
        self._client: ChatClient | None = None
        if quality is not None:
            endpoint = Endpoint(quality.url, "quality", model.key, model.timeout)
            self._client = ChatClient(endpoint, limit=model.concurrency)

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._backend)
        if self._client is not None:
            await self._stack.enter_async_context(self._client)
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._stack.__aexit__(*error)

    async def score(self, source: str, text: str, language: str, target: str) -> float:
        assert self._client is not None
        assert self._quality is not None
        body = {"src": source, "mt": text, "source_language": language, "target_language": target}
        answer = await self._client.post(self._quality.url, body)
        value = answer.get("score") if isinstance(answer, dict) else None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Retryable(f"{self._quality.url}: the answer holds no number 'score'")
        return float(value)


def _key(row: _Input, target: str, field: str) -> str:
    return f"{row.id}|{target}|{field}"


def _ask(run: _Run, journal: Journal, *, partial: bool, quiet: bool) -> None:
    total = sum(len(row.texts) for row, _ in run.wanted())
    if len(journal) >= total:
        return
    backend = run.model.open()
    judge = _Judge(backend, run.model, run.quality)

    def tasks() -> Iterator[Task]:
        for row, target in run.wanted():
            for field in row.texts:
                yield Task(_key(row, target, field), (row, target, field))

    async def work(task: Task) -> dict[str, Any]:
        row, target, field = task.payload
        return await run.text(backend, judge, row, target, field)

    with WorkProgress("translate", total=total, done=len(journal), quiet=quiet) as progress:
        outcome = run_tasks(
            tasks(),
            work,
            journal,
            limit=run.model.at_once,
            attempts=run.model.attempts,
            patience=run.model.patience,
            monitor=progress,
            around=judge,
        )
    require_whole(outcome, total, partial=partial)


def _write(run: _Run, journal: Journal, out: Path, job: dict[str, Any]) -> Translated:
    stem = card_path(out).name.removesuffix(".card.md")
    aside_path = out.with_name(f"{stem}.set_aside.jsonl")
    counts: Counter[str] = Counter(rows=len(run.rows), asked=0, translated=0, set_aside=0, unanswered=0)
    languages: Counter[str] = Counter(dict.fromkeys(run.targets, 0))
    reasons: Counter[str] = Counter()

    def judged() -> Iterator[tuple[_Input, str, dict[str, dict[str, Any]]]]:
        for row, target in run.wanted():
            keys = {field: _key(row, target, field) for field in row.texts}
            if all(key in journal for key in keys.values()):
                yield row, target, {field: journal.result(key) for field, key in keys.items()}

    def kept() -> Iterator[Row]:
        for row, target, results in judged():
            for result in results.values():
                if "language_check" in result:
                    counts[f"language_{result['language_check']}"] += 1
                counts["tries"] += result["tries"]
            if not any(result["reasons"] for result in results.values()):
                counts["translated"] += 1
                languages[target] += 1
                yield _target_row(run, row, target, results)

    def aside() -> Iterator[Row]:
        for row, target, results in judged():
            failed = {field: result["reasons"] for field, result in results.items() if result["reasons"]}
            if failed:
                counts["set_aside"] += 1
                for kind in {reason.split(":")[0] for told in failed.values() for reason in told}:
                    reasons[kind] += 1
                texts = {field: result["text"] for field, result in results.items()}
                yield {"id": row.id, "language": target, "reasons": failed, "source": row.texts, "translation": texts}

    counts["asked"] = sum(1 for _ in run.wanted())
    write_rows(out, kept())
    write_rows(aside_path, aside())
    counts["unanswered"] = counts["asked"] - counts["translated"] - counts["set_aside"]
    identifier = run.identifier.name if run.identifier else "none installed"
    card = write_card(
        out,
        title="Translations that kept answers, numbers, code, LaTeX and placeholders, by `innerlingua data translate`",
        languages=languages,
        counts={**counts, **{f"set aside for {kind}": n for kind, n in sorted(reasons.items())}},
        sources=list(job["inputs"]),
        settings=job,
        notes=[
            f"Language identifier: {identifier}.",
            "The checks see what was lost or changed, not whether a translation is good.",
            "Licences are those of the sources and of the model; look them up there.",
        ],
    )
    path = out.with_name(f"{out.name}.journal")
    return Translated(out, aside_path, card, path, dict(counts), dict(languages), dict(reasons), identifier)


def _target_row(run: _Run, row: _Input, target: str, results: Mapping[str, Mapping[str, Any]]) -> Row:
    made: Row = {"id": row.id, "language": target}
    for field, result in results.items():
        column, _, index = field.partition(".")
        if index:
            message = {**row.row[column][int(index)], "content": result["text"]}
            made.setdefault(column, []).append(message)
        else:
            made[column] = result["text"]
    made |= {name: row.row[name] for name in _CARRIED if row.row.get(name) is not None}
    template = run.template_of(row)
    given = row.row.get("provenance")
    made["provenance"] = {
        "model": run.model.model,
        "revision": run.model.revision,
        "reply_model": next(iter(results.values()))["model"],
        "template": {"name": template.name, "sha256_16": template.digest},
        "settings": asdict(run.sampling),
        "tries": {field: result["tries"] for field, result in results.items()},
        "scores": {field: result["score"] for field, result in results.items() if "score" in result} or None,
        "date": max(result["date"] for result in results.values()),
        "translated_from": {"language": row.language, **row.origin},
        "source_provenance": json.loads(given) if isinstance(given, str) and given.startswith("{") else given,
    }
    return made
