"""The study's tables in Markdown, from its result."""

from collections.abc import Mapping, Sequence
from typing import Any

from corpus import ANCHOR, TARGETS

from innerlingua.data import LANGUAGES


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are aligned right."""
    lines = [head, ["---", *(["---:"] * (len(head) - 1))], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def ranged(value: float, bounds: Sequence[float], digits: int) -> str:
    """A value with its interval."""
    return f"{value:.{digits}f} [{bounds[0]:.{digits}f}, {bounds[1]:.{digits}f}]"


def tables(result: Mapping[str, Any]) -> str:
    """All tables of the result: divergence in the aligned layers, its controls, and the loss, for each measured set."""
    runs = result["runs"]
    parts = []
    for name, title in (("held_out", "NTREX, held-out documents"), ("sib200", "SIB-200")):
        n = runs["base"][name][ANCHOR]["n"]
        parts.append(f"### {title} ({n} sentences)\n\nJS to English in the aligned layers, nats\n")
        parts.append(
            table(
                ["", *(LANGUAGES[language] for language in TARGETS)],
                [
                    [
                        run,
                        *(
                            ranged(found[name][x]["js_aligned"], found[name][x]["js_aligned_interval"], 4)
                            for x in TARGETS
                        ),
                    ]
                    for run, found in runs.items()
                ],
            )
        )
        parts.append("JS to the own English less JS to the English of another sentence, same layers\n")
        parts.append(
            table(
                ["", *(LANGUAGES[language] for language in TARGETS)],
                [
                    [
                        run,
                        *(
                            ranged(
                                found[name][x]["js_aligned"] - found[name][x]["js_aligned_mismatched"],
                                found[name][x]["matched_minus_mismatched_interval"],
                                4,
                            )
                            for x in TARGETS
                        ),
                    ]
                    for run, found in runs.items()
                ],
            )
        )
        parts.append(
            "JS to the English of another sentence, same layers; entropy of the pooled routing, target / English\n"
        )
        parts.append(
            table(
                ["", *(LANGUAGES[language] for language in TARGETS)],
                [
                    [
                        run,
                        *(
                            f"{found[name][x]['js_aligned_mismatched']:.4f}; {found[name][x]['entropy_aligned']:.2f} / "
                            f"{found[name][ANCHOR]['entropy_aligned']:.2f}"
                            for x in TARGETS
                        ),
                    ]
                    for run, found in runs.items()
                ],
            )
        )
        for measure, digits in (("nats_per_token", 3), ("nats_per_byte", 4)):
            parts.append(f"Loss, {measure.replace('_', ' ')}\n")
            parts.append(
                table(
                    ["", *(LANGUAGES[language] for language in (*TARGETS, ANCHOR))],
                    [
                        [
                            run,
                            *(
                                ranged(found[name][x][measure], found[name][x][f"{measure}_interval"], digits)
                                for x in (*TARGETS, ANCHOR)
                            ),
                        ]
                        for run, found in runs.items()
                    ],
                )
            )
        parts.append("Loss less that of plain tuning, nats per token, paired\n")
        parts.append(
            table(
                ["", *(LANGUAGES[language] for language in (*TARGETS, ANCHOR))],
                [
                    [
                        run,
                        *(
                            ranged(
                                found[name][x]["nats_per_token_minus_sft"],
                                found[name][x]["nats_per_token_minus_sft_interval"],
                                4,
                            )
                            for x in (*TARGETS, ANCHOR)
                        ),
                    ]
                    for run, found in runs.items()
                    if "nats_per_token_minus_sft" in found[name][ANCHOR]
                ],
            )
        )
    return "\n".join(parts)
