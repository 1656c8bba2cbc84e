"""Translate prompts and verified reasoning, keep what survived, set aside what did not, with the reason.

This is stage 2 of SARA. Every text (prompt, completion, a message) is one task. A translation that loses its final
answer, a number, code, LaTeX or a placeholder, or that is in the wrong script or language, is asked for again at a
higher temperature; after the last try the row is set aside. A row is written only when all of its texts passed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from innerlingua.data.asking import Backend, ModelSpec, Sampling, first_rows, require_whole
from innerlingua.data.card import LICENCE_NOTE, beside, today, write_card
from innerlingua.data.files import check_beside, check_output, put_rows, replaced, write_rows
from innerlingua.data.hashes import hash_of
from innerlingua.data.identify import Identifier, load_identifier
from innerlingua.data.languages import ENGLISH, check_language, known_languages
from innerlingua.data.licences import Licences
from innerlingua.data.lines import Row
from innerlingua.data.quality import Quality, QualityClient
from innerlingua.data.sources import open_sources
from innerlingua.data.survival import Limits, faults, kept_pieces
from innerlingua.data.templates import TRANSLATE_TEMPLATES, Template, load_template
from innerlingua.data.texts import Translatable, read_texts, translated_row
from innerlingua.data.work import Journal, Task, run_tasks
from innerlingua.data.work.progress import WorkProgress, counted_off
from innerlingua.errors import DataError

__all__ = ["Quality", "Translated", "translate"]

_WARMER: Final = 0.7
_ALWAYS: Final = ("rows", "asked", "translated", "set_aside", "unanswered")


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
    non_commercial: str = "error",
    limit: int | None = None,
    retry_failed: bool = False,
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
        non_commercial: rows whose licence allows no commercial use: `error`, `drop` or `keep`.
        limit: only the first so many rows.
        retry_failed: ask anew for the texts that an earlier run set aside, with draws that it did not make; the
            outputs of that run are replaced.
        partial: write although some requests failed.
        restart: forget what an earlier run has done.
        overwrite: replace outputs that exist.
        quiet: no progress.

    Raises:
        DataError: bad input, another job's journal, requests that failed to the last (unless `partial`).
    """
    journal_path = Path(f"{output}.journal")
    out = check_output(output, overwrite=overwrite or (retry_failed and journal_path.exists()), inputs=paths)
    if not out.name.endswith((".jsonl", ".jsonl.gz")):
        raise DataError(f"{output}: translate writes JSON Lines; give a name that ends with .jsonl or .jsonl.gz")
    # A journal says that what lies beside is an earlier run's.
    own = overwrite or journal_path.exists()
    check_beside([beside(out, "set_aside.jsonl"), beside(out, "card.md")], overwrite=own, inputs=paths)
    if tries < 1:
        raise DataError(f"--tries {tries}: at least 1")
    if restart and retry_failed:
        raise DataError("--restart and --retry-failed: one forgets what the other goes on from; give one of them")
    known = known_languages(language_names)
    targets = list(dict.fromkeys(to))
    if not targets:
        raise DataError("--to: name at least one target language, such as swh_Latn")
    for code in targets:
        check_language(code, "--to", known=known)
    check_language(source_language, "--source-language", known=known)
    sources = open_sources(list(paths))
    licences = Licences(non_commercial)
    rows = first_rows(read_texts([licences.admit(s) for s in sources], source_language, known), limit)
    names = ", ".join(source.name for source in sources)
    if not rows:
        raise DataError(f"{names}: no rows to translate")
    if all([row.language] == targets for row in rows):
        raise DataError(f"{names}: all rows are in {targets[0]} already")
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
        unidentified=not identify,
    )
    # What decides an answer; which rows and languages are asked for may grow from run to run.
    job = {
        "command": "translate",
        "model": model.model,
        "revision": model.revision,
        "sampling": asdict(run.sampling),
        "template": run.template_digests(),
        "tries": tries,
        "limits": asdict(run.limits),
        "quality": quality.settings() if quality else None,
        "identifier": identifier.name if identifier else None,
        "inputs": hash_of(sources),
    }
    settings = {**job, "to": targets, "limit": limit, "non_commercial": non_commercial}
    with Journal(journal_path, job, restart=restart) as journal:
        if retry_failed:
            journal.reopen(run.set_aside(journal))
        _ask(run, journal, partial=partial, quiet=quiet)
        return _write(run, journal, out, settings, licences, quiet)


@dataclass(frozen=True)
class _Run:
    rows: Sequence[Translatable]
    targets: Sequence[str]
    known: Mapping[str, str]
    model: ModelSpec
    sampling: Sampling
    template: Template | None
    tries: int
    limits: Limits
    quality: Quality | None
    identifier: Identifier | None
    unidentified: bool

    def template_of(self, row: Translatable) -> Template:
        if self.template is not None:
            return self.template
        answered = "mathematics" if row.row.get("answer") is not None else "general"
        name = "choice" if row.row.get("choices") is not None else answered
        return Template(name, TRANSLATE_TEMPLATES[name])

    def template_digests(self) -> dict[str, str]:
        own = (Template(name, text) for name, text in TRANSLATE_TEMPLATES.items())
        return {template.name: template.digest for template in ([self.template] if self.template else own)}

    def made(self, row: Translatable) -> dict[str, Any]:
        """What decided the translations of a row, for its provenance."""
        template = self.template_of(row)
        return {
            "model": self.model.model,
            "revision": self.model.revision,
            "template": {"name": template.name, "sha256_16": template.digest},
            "settings": asdict(self.sampling),
        }

    def wanted(self) -> Iterator[tuple[Translatable, str]]:
        for row in self.rows:
            for target in self.targets:
                if target != row.language:
                    yield row, target

    def tasks(self) -> Iterator[Task]:
        """Every text that is wanted; the payload is row, target language and field."""
        for row, target in self.wanted():
            for field in row.texts:
                yield Task(_key(row, target, field), (row, target, field))

    def set_aside(self, journal: Journal) -> dict[str, Any]:
        """The keys of texts that were asked for and did not pass, with the number of tries that were made."""
        results = ((task.key, journal.reply(task.key)) for task in self.tasks() if task.key in journal)
        return {key: {"tries": result["tries"]} for key, result in results if result["reasons"]}

    async def text(
        self, backend: Backend, judge: QualityClient | None, wanted: tuple[Translatable, str, str], before: int
    ) -> dict[str, Any]:
        """Translate one text until it passes or the tries are used up; `before` tries were made by earlier rounds."""
        row, target, field = wanted
        source = row.texts[field]
        names = {"source_language": self.known[row.language], "target_language": self.known[target], "text": source}
        messages = [{"role": "user", "content": self.template_of(row).fill(names)}]
        result: dict[str, Any] = {}
        for draw in range(before, before + self.tries):
            # The first try as asked; each further one warmer and with a seed of its own.
            warm = max(self.sampling.temperature, _WARMER) if draw else self.sampling.temperature
            settings = replace(self.sampling, temperature=warm).fields(draw)
            languages = {"source": row.language, "target": target} if self.model.url is None else {}
            reply = await backend.complete(messages, {**settings, **languages})
            text = reply.text.strip()
            result = {
                "text": text,
                "tries": draw + 1,
                "drawn": {name: settings[name] for name in ("temperature", "seed")},
                "reasons": self.reasons(source, text, row.language, target, cut=reply.finish == "length"),
                "model": reply.model,
                "date": today(),
            }
            if self.identifier is not None:
                result["language_check"] = self.identifier.status(kept_pieces(text), target)
            if not result["reasons"] and self.quality is not None and judge is not None:
                result["score"] = score = await judge.score(source, text, row.language, target)
                if score < self.quality.least:
                    result["reasons"] = [f"quality: {score:.3f}, below {self.quality.least}"]
            if not result["reasons"]:
                break
        return result

    def reasons(self, source: str, text: str, source_language: str, target: str, *, cut: bool) -> list[str]:
        """Why a translation does not pass; empty when it does."""
        if cut:
            return ["cut off by the limit of tokens"]
        return faults(
            source,
            text,
            source_language=source_language,
            language=target,
            limits=self.limits,
            identify=self.identifier,
        )


def _key(row: Translatable, target: str, field: str) -> str:
    return f"{row.id}|{target}|{field}"


def _ask(run: _Run, journal: Journal, *, partial: bool, quiet: bool) -> None:
    held = [task.key in journal for task in run.tasks()]
    if all(held):
        return
    backend, model = run.model.open(), run.model
    judge: QualityClient | None = None
    if run.quality is not None:
        judge = QualityClient(run.quality, timeout=model.timeout, connect=model.connect, limit=model.at_once)

    @asynccontextmanager
    async def opened() -> AsyncIterator[None]:
        async with backend:
            if judge is None:
                yield
            else:
                async with judge:
                    yield

    async def work(task: Task) -> dict[str, Any]:
        past = journal.past.get(task.key)
        return await run.text(backend, judge, task.payload, past["tries"] if past else 0)

    with WorkProgress("translate", total=len(held), done=sum(held), quiet=quiet) as progress:
        outcome = run_tasks(
            run.tasks(),
            work,
            journal,
            limit=model.at_once,
            attempts=model.attempts,
            patience=model.patience,
            done=sum(held),
            monitor=progress,
            around=opened(),
        )
    require_whole(outcome, len(held), partial=partial)


def _write(
    run: _Run, journal: Journal, out: Path, settings: dict[str, Any], licences: Licences, quiet: bool
) -> Translated:
    aside_path = beside(out, "set_aside.jsonl")
    counts: Counter[str] = Counter(rows=len(run.rows), asked=0, translated=0, set_aside=0, unanswered=0)
    languages: Counter[str] = Counter(dict.fromkeys(run.targets, 0))
    reasons: Counter[str] = Counter()

    def judged(doing: str) -> Iterator[tuple[Translatable, str, dict[str, dict[str, Any]]]]:
        for row, target in counted_off(run.wanted(), f"translate: {doing}", total=counts["asked"], quiet=quiet):
            keys = {field: _key(row, target, field) for field in row.texts}
            if all(key in journal for key in keys.values()):
                yield row, target, {field: journal.reply(key) for field, key in keys.items()}

    def kept() -> Iterator[Row]:
        for row, target, results in judged("writing what passed"):
            for result in results.values():
                if "language_check" in result:
                    counts[f"language_{result['language_check']}"] += 1
                counts["tries"] += result["tries"]
                counts["replies_without_model"] += result["model"] is None
            if not any(result["reasons"] for result in results.values()):
                counts["translated"] += 1
                languages[target] += 1
                yield translated_row(row, target, results, run.made(row))

    def aside() -> Iterator[Row]:
        for row, target, results in judged("writing what is set aside"):
            failed = {field: result["reasons"] for field, result in results.items() if result["reasons"]}
            if failed:
                counts["set_aside"] += 1
                for kind in {reason.split(":")[0] for told in failed.values() for reason in told}:
                    reasons[kind] += 1
                texts = {field: result["text"] for field, result in results.items()}
                yield {"id": row.id, "language": target, "reasons": failed, "source": row.texts, "translation": texts}

    identifier = run.identifier.name if run.identifier else "not asked for" if run.unidentified else "none installed"
    counts["asked"] = sum(1 for _ in run.wanted())
    counts["in_the_target_language_already"] = len(run.rows) * len(run.targets) - counts["asked"]
    counts["left_out_non_commercial"] = licences.dropped
    with replaced(out) as written:
        put_rows(written, out, kept())
        write_rows(aside_path, aside())
        counts["unanswered"] = counts["asked"] - counts["translated"] - counts["set_aside"]
        told = {name: count for name, count in counts.items() if count or name in _ALWAYS}
        card = write_card(
            out,
            written=written,
            title="Translations that kept answers, numbers, code, LaTeX and placeholders, by `innerlingua data "
            "translate`",
            languages=languages,
            counts={**told, **{f"set aside for {kind}": n for kind, n in sorted(reasons.items())}},
            sources=settings["inputs"],
            licences=licences.counts,
            settings=settings,
            notes=[
                f"Language identifier: {identifier}.",
                "The checks see what was lost or changed, not whether a translation is good.",
                LICENCE_NOTE,
            ],
        )
    return Translated(out, aside_path, card, journal.path, told, dict(languages), dict(reasons), identifier)
