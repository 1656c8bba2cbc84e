"""A run that is killed again and again, and goes on each time, ends where it would have ended, to the last bit.

Compared are the prior, and of every checkpoint on the way the weights, both moments of Adam, the schedule, the random
state of every process and the log of every step (the loss of a step names the rows that were in it).
"""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from killed_runs import (
    SAVE_STEPS,
    After,
    At,
    Moment,
    Seen,
    command,
    make_world,
    run_and_kill,
    run_to_end,
    unequal,
    way_on,
    whole_here,
)
from soak_record import record
from transformers import PreTrainedTokenizerFast

LORA = ["--peft.r", "4", "--peft.alpha", "8", "--peft.parts", "[attention, experts]", "--peft.router", "train"]
LOGGED = "'loss'"
COMPUTES = "alignment.layers: auto is"  # said right before the anchors go through the model


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    return make_world(tmp_path_factory.mktemp("world"), tokenizer)


def checkpoint(number: int) -> str:
    """The path of the `number`-th checkpoint of a run, from 1."""
    return f"killed/checkpoint-{number * SAVE_STEPS}/"


def later(random_: random.Random, count: int) -> After:
    """A moment of the step after `count` more of them were logged. A step takes some tens of milliseconds."""
    return After(LOGGED, count, random_.uniform(0.0, 0.1))


def killed_run(
    world: Path, folder: Path, moments: list[Moment], *options: str, processes: int = 1
) -> tuple[list[str], Path]:
    """Kill the run at each moment and go on each time; let it end. Where it was at each kill, and its folder."""
    output = folder / "killed"
    places = []
    for moment in moments:
        words = command(world, output, *options, *way_on(output), processes=processes)
        places.append(run_and_kill(words, output, moment, world))
    run_to_end(command(world, output, *options, *way_on(output), processes=processes))
    return places, output


def whole_run(world: Path, folder: Path, *options: str, processes: int = 1) -> Path:
    run_to_end(command(world, folder / "whole", *options, processes=processes))
    return folder / "whole"


def test_three_kills(world: Path, tmp_path: Path) -> None:
    steps = ["--trainer.max-steps", "9"]
    moments = [
        later(random.Random(8), 4),
        At("open", f"{checkpoint(2)}trainer_state.json"),
        At("os.rename", "killed/.saving/model.safetensors"),
    ]
    places, output = killed_run(world, tmp_path, moments, *steps)
    assert places[1].startswith("writing a checkpoint")
    assert places[2] == "saving the model"
    assert list(unequal(output, whole_here(world, tmp_path / "whole", *steps))) == []


SETTINGS = {
    "full": (
        [],
        1,
        [
            After(COMPUTES, 1, 0.0),
            At("os.rename", "killed/.prior."),
            At("os.rename", "killed/run.json"),
            At("open", f"{checkpoint(1)}tokenizer_config.json"),  # no checkpoint yet: the run begins again
            later(random.Random(1), 4),
            Seen("model.safetensors"),
            At("open", f"{checkpoint(3)}trainer_state.json"),
            later(random.Random(2), 5),
            At("os.rename", "killed/.saving/model.safetensors"),
        ],
    ),
    "lora": (
        LORA,
        1,
        [
            At("os.mkdir", "killed/.prior."),
            At("os.rename", "killed/recipe.resolved.yaml"),
            later(random.Random(3), 2),
            At("open", f"{checkpoint(1)}adapter_config.json"),
            later(random.Random(4), 7),
            Seen("optimizer.pt"),
            later(random.Random(5), 3),
            At("open", f"{checkpoint(6)}trainer_state.json"),
            At("os.rename", "killed/.train_result.json."),
        ],
    ),
    "two processes": ([], 2, [later(random.Random(6), 5), Seen("model.safetensors")]),
}


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS)
def test_twenty_kills(setting: str, world: Path, tmp_path: Path) -> None:
    options, processes, moments = SETTINGS[setting]
    places, output = killed_run(world, tmp_path, moments, *options, processes=processes)
    whole = whole_run(world, tmp_path, *options, processes=processes)
    found = list(unequal(output, whole))
    record(
        f"a killed run ends where it would have ended ({setting})",
        "`innerlingua train` killed by SIGKILL and gone on with; prior, weights, Adam's moments, schedule, random "
        "state and the log of each step compared at every checkpoint",
        len(moments),
        "kills",
        f"{'equal to the last bit' if not found else f'{len(found)} differences, the first: {found[0]}'}; killed while "
        + ", ".join(
            f"{place} ({count})" if count > 1 else place for place, count in Counter(map(short, places)).items()
        ),
    )
    assert found == []
    # What comes from inside comes exactly there; the others are where they are.
    for moment, place in zip(moments, places, strict=True):
        if isinstance(moment, At) and "checkpoint-" in moment.needle:
            assert place.startswith("writing a checkpoint"), (moment, place)
        if isinstance(moment, At) and ".prior." in moment.needle and moment.event == "os.rename":
            assert place == "storing the prior"


def short(place: str) -> str:
    return place.partition(" (")[0]


def test_the_kills_are_twenty() -> None:
    assert sum(len(moments) for _, _, moments in SETTINGS.values()) == 20
