"""What the fuzzing tests share: how inputs are made from valid ones, how many were tried, and what counts as a fault.

An input is drawn by hypothesis as one number, which seeds the changes to a valid file: its bytes (flipped, cut,
doubled, replaced by what readers stumble over) or its JSON values. The same number makes the same input everywhere.
"""

from __future__ import annotations

import json
import random
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

from hostile_rig import Done, census
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from soak_record import record

from innerlingua.errors import InnerlinguaError

LONGEST = 300
"""Seconds after which an input counts as a hang; most take milliseconds, the first one may load libraries."""

TOKENS: tuple[bytes, ...] = (
    *(b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xff", b"\r", b"\r\n", b"\n\n", b"\xe2\x80\xa8"),
    *(b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-0", b"9" * 5000, b"18446744073709551616", b"-1", b"0.5", b"null"),
    *(b"true", b'""', b'"', b"'", b"\\", b"\\ud800", b"\\u0000", b"\x1a", b"[", b"]", b"{", b"}"),
    *(b"[" * 3000, b'{"a":' * 3000, b"!!python/name:os.system ", b"%YAML 1.1\n", b"---\n", b"|", b"- "),
    *(b",", b":", b"\t", b"#", b"&a ", b"*a", b"<<: ", b"../../x", b"/etc/passwd", b"\x1f\x8b", b"PAR1", b"PK\x03\x04"),
    *(b"id", b"language", b"swh_Latn", b"anchor_"),
)

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**63, 10**30, -0.0, 0.5, 1e308, float("nan"), float("inf"), -float("inf")),
    *("", " ", "x", "\ud800", "\x00", "\x1b[2J", "../../x", "/x", "é" * 1000, "7-34", "auto", "1e-5", "no", "[/b]"),
    *([], {}, [[]], [None], [0], [1, 2, 3], ["x"], {"a": 1}, {"": None}, [{}], [[0]] * 3),
)


def mutated(rng: random.Random, base: bytes) -> bytes:
    """`base` with one to four changes to its bytes."""
    data = bytearray(base)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 4))):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.choice((1, 1, 2, 4, 8, 30, 200)))
        kind = rng.randrange(8)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[at:end]
        elif kind == 2:
            data[at:at] = rng.choice(TOKENS)
        elif kind == 3:
            data[at:end] = rng.choice(TOKENS)
        elif kind == 4:
            data[at:at] = data[at:end]
        elif kind == 5:
            del data[at:]
        elif kind == 6:
            data[at:end] = bytes(rng.randrange(256) for _ in range(end - at))
        else:
            other = rng.randrange(len(data) + 1)
            data[other:other] = data[at:end]
    return bytes(data)


def changed(rng: random.Random, values: Any) -> Any:
    """JSON `values` with one to three values replaced by odd ones, removed, doubled, or put under another key."""
    values = deepcopy(values)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = list(_places(values))
        if not places:
            return rng.choice(ODD)
        holder, key = rng.choice(places)
        kind = rng.randrange(8)
        if kind < 5:
            holder[key] = deepcopy(rng.choice(ODD))
        elif kind == 5:
            del holder[key]
        elif kind == 6 and isinstance(holder, dict):
            holder[rng.choice(("x", "", "id", "../x", "\ud800", "n", "schema"))] = holder.pop(key)
        elif isinstance(holder, list):
            holder.insert(rng.randrange(len(holder) + 1), deepcopy(holder[key]))
        else:
            holder[key] = [holder[key]]
    return values


def _places(values: Any) -> Iterator[tuple[Any, Any]]:
    inside = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in inside:
        yield values, key
        yield from _places(value)


def dumped(values: Any) -> bytes:
    """JSON as Python writes it, NaN and halves of surrogate pairs included."""
    return json.dumps(values, ensure_ascii=True).encode()


def lines_changed(rng: random.Random, rows: Sequence[Any]) -> bytes:
    """JSON Lines of `rows`, most often with one of them changed, sometimes all."""
    chosen = range(len(rows)) if rng.random() < 0.1 else [rng.randrange(len(rows))]
    return b"".join(dumped(changed(rng, row) if place in chosen else row) + b"\n" for place, row in enumerate(rows))


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    """A hang becomes an error, with the place where it hangs."""

    def hung(*_: object) -> None:
        raise AssertionError(f"no end after {seconds} s")

    before = signal.signal(signal.SIGALRM, hung)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def explore(check: Callable[[random.Random], bool], examples: int) -> Counter[str]:
    """Try `examples` inputs; `check` makes one, and says whether it was taken or refused by a message of ours.

    Whatever else it raises is a fault, which hypothesis reports with the number that makes it again.
    """
    tally: Counter[str] = Counter()

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(min_value=0, max_value=2**64 - 1))
    def one(number: int) -> None:
        tally["tried"] += 1
        with limited(LONGEST):
            tally["taken" if check(random.Random(number)) else "refused"] += 1

    one()
    return tally


def refuses(read: Callable[[], Any]) -> bool:
    """Whether `read` takes its input; an error for the user is a refusal, any other error a fault."""
    try:
        read()
    except InnerlinguaError as error:
        if not str(error).strip():
            raise AssertionError("a refusal without a word") from error
        return False
    return True


def ends_well(done: Done, room: Path, before: dict[str, bytes | str]) -> bool:
    """Whether a command did its work; one that refused says so in one message, and has left all files as they were."""
    assert done.code in (0, 2), f"exit code {done.code}\n{done.err}"
    assert "Traceback" not in done.err, done.err
    if done.code == 2:
        assert "error" in done.err.lower(), done.err
        assert census(room) == before, sorted(set(census(room)) ^ set(before))
    return done.code == 0


def keep(
    target: str, tallies: Sequence[Counter[str]], *, through: str, takes: bool = True, writes: bool = False
) -> None:
    """Hold that both outcomes were seen (one, where no input `takes`), and write the row of a soak.

    `writes` says that the files before and after each input were compared, too.
    """
    total = sum(tallies, Counter[str]())
    assert total["taken"] > 0 or not takes
    assert total["refused"] > 0
    record(
        f"Fuzzing: {target}",
        f"valid files with changed bytes and values, through {through}",
        total["tried"],
        "inputs",
        f"no traceback, no hang{', no half-written file' if writes else ''}; "
        f"{total['taken']:,} taken, {total['refused']:,} refused",
    )
