from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fault_server import FaultServer

from innerlingua.data import PACK_VARIABLE
from innerlingua.data.asking import ModelSpec, Sampling
from innerlingua.data.languages import LANGUAGES
from innerlingua.data.questions import read_questions
from innerlingua.data.sources import open_sources
from innerlingua.data.verify import Verified, verify
from innerlingua.errors import DataError

Write = Callable[..., Path]

QUESTIONS = [
    {"id": "1", "language": "eng_Latn", "prompt": "What is 2 + 2?", "answer": "4", "group": "g"},
    {"id": "2", "language": "eng_Latn", "prompt": "What is half of 1?", "answer": "0.5"},
    {"id": "3", "language": "eng_Latn", "prompt": "What is 9 + 1?", "answer": "10"},
    {"id": "4", "language": "eng_Latn", "prompt": "Say nothing", "answer": "1"},
    {"id": "1", "language": "swh_Latn", "prompt": "2 + 2 ni ngapi?", "answer": "4"},
    {"id": "3", "language": "swh_Latn", "prompt": "9 + 1 ni ngapi?", "answer": "10"},
]
SAYS = {
    "What is 2 + 2?": r"It is \boxed{4}.",
    "What is half of 1?": r"It is \boxed{\frac{1}{2}}.",
    "What is 9 + 1?": r"It is \boxed{11}.",
    "Say nothing": "I will not.",
    "2 + 2 ni ngapi?": r"Ni \boxed{5}.",
    "9 + 1 ni ngapi?": r"Ni \boxed{10}.",
}


def answer(body: dict[str, Any]) -> str:
    asked = body["messages"][0]["content"]
    return next(said for question, said in SAYS.items() if question in asked)


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def run(server: FaultServer, source: Path, out: Path, **options: Any) -> Verified:
    return verify([source], out, model=ModelSpec("tiny", url=server.url, attempts=3), quiet=True, **options)


def test_right_answers_are_kept_and_the_rest_is_set_apart_with_the_reason(write: Write, tmp_path: Path) -> None:
    with FaultServer(answer=answer) as server:
        done = run(server, write(QUESTIONS), tmp_path / "v.jsonl")
    kept = rows_of(done.path)
    assert [row["id"] for row in kept] == ["1", "2"]
    assert kept[0]["completion"] == r"It is \boxed{4}."
    assert kept[0]["prompt"].startswith("What is 2 + 2?\n\nReason step by step")
    assert (kept[0]["answer"], kept[0]["group"]) == ("4", "g")
    rejected = {(row["id"], row["language"]): row["reason"] for row in rows_of(done.rejected)}
    assert rejected == {("3", "eng_Latn"): "wrong", ("4", "eng_Latn"): "no_answer", ("1", "swh_Latn"): "wrong"}
    assert done.counts["asked"] == 6 == sum(v for k, v in done.counts.items() if k not in ("asked", "kept"))


def test_labels_say_in_which_of_the_two_languages_it_is_right(write: Write, tmp_path: Path) -> None:
    with FaultServer(answer=answer) as server:
        done = run(server, write(QUESTIONS), tmp_path / "v.jsonl")
    labels = {(row["id"], row["language"]): row.get("label") for row in rows_of(done.labels)}
    assert labels[("1", "swh_Latn")] == "correct-incorrect"
    assert labels[("3", "swh_Latn")] == "incorrect-correct"
    assert labels[("1", "eng_Latn")] is None
    assert done.label_counts == {"correct-incorrect": 1, "incorrect-correct": 1}


def test_every_row_says_where_it_came_from_and_a_card_is_written(write: Write, tmp_path: Path) -> None:
    with FaultServer(answer=answer) as server:
        done = run(server, write(QUESTIONS), tmp_path / "v.jsonl")
    made = rows_of(done.path)[0]["provenance"]
    assert made["model"] == "tiny"
    assert made["reply_model"] == "tiny@main"
    assert made["template"]["name"] == "reasoning"
    assert made["settings"]["temperature"] == 0
    assert made["question"] == {"file": "pairs.jsonl", "line": 1}
    assert made["date"].startswith("20")
    card = done.card.read_text(encoding="utf-8")
    assert "| kept | 2 |" in card
    assert "pairs.jsonl" in card


def test_draws_must_agree(write: Write, tmp_path: Path) -> None:
    """One draw in four is right: by seed, so that the server's answers stay a function of the request."""

    def by_seed(body: dict[str, Any]) -> str:
        return r"\boxed{4}" if body["seed"] == 43 else r"\boxed{5}"

    source = write(QUESTIONS[:1])
    for agreement, kept in ((0.25, 1), (0.5, 0)):
        with FaultServer(answer=by_seed) as server:
            done = run(server, source, tmp_path / f"{agreement}.jsonl", samples=4, agreement=agreement)
            assert server.requests == 4
            assert all("n" not in body for body in server.bodies)
        assert done.counts["kept"] == kept
    assert done.counts["unsettled"] == 1


@pytest.mark.parametrize(
    ("before", "echo"), [("", True), ("<|user|>\n", True), ("You ask: What is 2 + 2? Reason: two and two.", False)]
)
def test_an_answer_that_repeats_the_prompt_is_no_anchor(write: Write, tmp_path: Path, before: str, echo: bool) -> None:
    def answered(body: dict[str, Any]) -> str:
        return before + (body["messages"][0]["content"] + "<|assistant|>") * echo + r"\boxed{4}"

    with FaultServer(answer=answered) as server:
        done = run(server, write(QUESTIONS[:1]), tmp_path / "v.jsonl")
    assert (done.counts["kept"], done.counts.get("echo", 0)) == ((0, 1) if echo else (1, 0))


def test_a_function_of_ones_own_takes_the_answer(write: Write, tmp_path: Path) -> None:
    with FaultServer(answer=lambda body: "RESULT=4;") as server:
        done = run(server, write(QUESTIONS[:1]), tmp_path / "v.jsonl", extract=lambda text: text[7:-1])
    assert done.counts["kept"] == 1


def test_judging_anew_asks_nothing(write: Write, tmp_path: Path) -> None:
    source = write(QUESTIONS)
    with FaultServer(answer=answer) as server:
        run(server, source, tmp_path / "v.jsonl")
        asked = server.requests
        done = run(server, source, tmp_path / "v.jsonl", extract="number", overwrite=True)
        assert server.requests == asked == 6
    assert done.counts["kept"] == 1  # the number in the other box is that of a denominator


def test_failed_requests_write_nothing_unless_asked(write: Write, tmp_path: Path) -> None:
    source = write(QUESTIONS)

    with FaultServer(answer=answer, script=lambda number, seen: "400" if number == 2 else None) as server:
        with pytest.raises(DataError, match=r"1 of 6 requests failed \(1 time status 400"):
            run(server, source, tmp_path / "v.jsonl")
        assert not (tmp_path / "v.jsonl").exists()
    with FaultServer(answer=answer, script=lambda number, seen: "400") as server:
        done = run(server, source, tmp_path / "v.jsonl", partial=True)
        assert done.counts["unanswered"] == 1
    with FaultServer(answer=answer) as server:
        done = run(server, source, tmp_path / "v.jsonl", overwrite=True)
        assert server.requests == 1
    assert "unanswered" not in done.counts


def test_another_setting_is_not_mixed_in(write: Write, tmp_path: Path) -> None:
    source = write(QUESTIONS)
    with FaultServer(answer=answer) as server:
        run(server, source, tmp_path / "v.jsonl")
        with pytest.raises(
            DataError, match=r"begun with other settings \(sampling\.temperature: 0\.0 then, 1\.0 now\)"
        ):
            run(server, source, tmp_path / "v.jsonl", overwrite=True, sampling=Sampling(temperature=1.0))
        source.write_text(source.read_text().replace("half", "the half"))
        with pytest.raises(DataError, match="inputs"):
            run(server, source, tmp_path / "v.jsonl", overwrite=True)


SEVERAL = [
    {
        "id": "1",
        "items": {
            "eng_Latn": {
                "context": "It has 35 steps.",
                "question": "How many?",
                "answers": ["35", "thirty-five"],
            },
            "swh_Latn": {"context": "Mnara una ngazi 35.", "question": "Ngapi?", "answers": ["35"]},
        },
    },
    {
        "id": "2",
        "question": {"eng_Latn": "Who built the tower?", "fra_Latn": "Qui a construit la tour ?"},
        "answers": {"eng_Latn": ["the mason Juma"], "fra_Latn": ["le maçon Juma"]},
    },
    {
        "id": "3",
        "context": "It is red.",
        "question": "Which colour?",
        "answers": {"text": ["red"], "answer_start": [6]},
    },
]


def test_any_of_several_answers_is_right(write: Write, tmp_path: Path) -> None:
    """The layouts of XQuAD, AfriQA and SQuAD."""
    says = {
        "How many?": r"\boxed{Thirty-five.}",
        "Ngapi?": r"\boxed{36}",
        "Who built": r"\boxed{\text{Mason Juma}}",
        "Qui a": r"\boxed{Juma}",
        "Which colour?": r"\boxed{Red}",
    }
    with FaultServer(answer=lambda b: next(v for k, v in says.items() if k in str(b["messages"]))) as server:
        done = run(server, write(SEVERAL), tmp_path / "v.jsonl")
        asked = [body["messages"][0]["content"] for body in server.bodies]
    assert any(text.startswith("It is red.\n\nWhich colour?") for text in asked)
    assert any(text.startswith("It has 35 steps.\n\nHow many?") for text in asked)
    kept = rows_of(done.path)
    assert [(row["id"], row["answer"], row["accepted"]) for row in kept] == [
        ("1", "35", ["35", "thirty-five"]),
        ("2", "the mason Juma", ["the mason Juma"]),
        ("3", "red", ["red"]),
    ]
    assert {(row["id"], row["language"]) for row in rows_of(done.rejected)} == {("1", "swh_Latn"), ("2", "fra_Latn")}


def test_source_and_licence_go_into_the_row_its_provenance_and_the_card(write: Write, tmp_path: Path) -> None:
    rows = [{**QUESTIONS[0], "source": "MGSM"}, {**QUESTIONS[1], "source": "x", "license": "CC BY-NC 4.0"}]
    with FaultServer(answer=answer) as server:
        with pytest.raises(DataError, match="line 2: a row for non-commercial use only"):
            run(server, write(rows), tmp_path / "v.jsonl")
        done = run(server, write(rows), tmp_path / "v.jsonl", non_commercial="keep")
    first, second = rows_of(done.path)
    assert (first["source"], first["license"], second["license"]) == ("MGSM", "CC-BY-4.0", "CC BY-NC 4.0")
    assert first["provenance"]["question"]["license"] == "CC-BY-4.0"
    assert "| x | CC BY-NC 4.0 | 1 |" in done.card.read_text(encoding="utf-8")


def test_a_run_can_grow_by_questions_and_draws(write: Write, tmp_path: Path) -> None:
    source, out = write(QUESTIONS), tmp_path / "v.jsonl"
    hot = Sampling(temperature=0.7)
    with FaultServer(answer=answer) as server:
        assert run(server, source, out, limit=1, sampling=hot).counts["asked"] == 2  # one id, in two languages
        run(server, source, out, sampling=hot, overwrite=True)
        assert server.requests == 6
        run(server, source, out, samples=2, sampling=hot, overwrite=True)
        assert server.requests == 12
    assert rows_of(out)[0]["provenance"]["right"] == "2/2"
    assert rows_of(out)[0]["provenance"]["seed"] == 42


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"question": {"eng_Latn": "?"}, "answers": {"swh_Latn": ["a"]}},
            "answers in eng_Latn must be a list of texts",
        ),
        ({"question": "?", "answers": []}, "answers in eng_Latn must be a list of texts"),
        ({"items": {"eng_Latn": "?"}}, r"items\['eng_Latn'\] must be an object"),
        ({"prompt": "?"}, "no right answer to compare with"),
        ({"answer": "4"}, "no question"),
        ({"prompt": "?", "choices": ["a", "b"], "answer": 2}, "answer 2 where the choices are numbered 0 to 1"),
        ({"prompt": "?", "choices": ["a", "b"], "answer": "z"}, "neither a choice nor the letter"),
        ({"prompt": " ", "answer": "4"}, "the question in eng_Latn is empty"),
        ({"prompt": "?", "answer": "4", "language": "xx"}, "unknown language 'xx'"),
    ],
)
def test_bad_questions_are_named_with_their_line(write: Write, row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=rf"line 1.*{message}"):
        list(read_questions(open_sources(write([{"id": "1", **row}])), known=LANGUAGES))


def test_an_id_that_collides_is_named(write: Write) -> None:
    twice = [QUESTIONS[0], {**QUESTIONS[1], "id": "1"}]
    with pytest.raises(DataError, match=r"line 2 \(id '1'\): the id occurs twice in eng_Latn, first at .*line 1"):
        list(read_questions(open_sources(write(twice)), known=LANGUAGES))


def test_choices_are_lettered_and_the_answer_is_a_letter(write: Write, tmp_path: Path) -> None:
    row = {"id": "1", "lang": "eng_Latn", "question": "Which?", "choices": ["sun", "moon"], "answer": 1}
    with FaultServer(answer=lambda body: r"\boxed{B}") as server:
        done = run(server, write([row]), tmp_path / "v.jsonl")
        assert "A. sun\nB. moon" in server.bodies[0]["messages"][0]["content"]
    (kept,) = rows_of(done.path)
    assert (kept["answer"], kept["choices"]) == ("B", ["sun", "moon"])


@pytest.mark.parametrize(
    ("file", "languages", "least"),
    [
        ("instruct/gsm8k_en.jsonl.gz", {"eng_Latn"}, 4000),
        ("mcq/mgsm.jsonl.gz", {"eng_Latn", "swh_Latn", "tha_Thai"}, 1000),
        ("mcq/belebele.jsonl.gz", {"eng_Latn", "zul_Latn"}, 4000),
        ("mcq/mmlu_en.jsonl.gz", {"eng_Latn"}, 7000),
        ("mcq/xcopa.jsonl.gz", {"eng_Latn", "swh_Latn"}, 3000),
        ("mcq/winogrande_african.jsonl.gz", {"eng_Latn", "amh_Ethi"}, 20000),
        ("mcq/mmlu_clinical_african.jsonl.gz", {"eng_Latn", "zul_Latn"}, 4000),
        ("mcq/truthfulqa_mc1_en.jsonl.gz", {"eng_Latn"}, 400),
        ("mcq/xquad.jsonl.gz", {"eng_Latn", "hin_Deva", "tha_Thai"}, 7000),
        ("mcq/afriqa.jsonl.gz", {"eng_Latn", "swh_Latn", "fra_Latn"}, 8000),
    ],
)
def test_the_packs_layouts_are_read(file: str, languages: set[str], least: int) -> None:
    if PACK_VARIABLE not in os.environ:
        pytest.skip(f"{PACK_VARIABLE} is not set")
    questions = list(read_questions(open_sources(Path(os.environ[PACK_VARIABLE]) / file), known=LANGUAGES))
    assert len(questions) >= least
    assert languages <= {question.language for question in questions}
    assert all(question.answer for question in questions)
