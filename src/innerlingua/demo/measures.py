"""What the demo measures on one model: JS to the anchor on held-out pairs, and closed questions of three kinds.

- `held_out`: facts that only English states, asked in a target language;
- `english`: the same facts, asked in English;
- `trained`: facts that a target language states, asked in that language (at most 100 for each, evenly spread).

JS is the mean over pairs of the divergence between the pooled routing of the target and that of its anchor, in nats,
both under the model that is measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from datasets import Dataset
from transformers import PreTrainedTokenizerFast, Qwen3MoeForCausalLM

from innerlingua.anatomy import find_moe_layers
from innerlingua.demo.accuracy import Question, Score, ask
from innerlingua.demo.languages import ANCHOR, TARGETS
from innerlingua.demo.world import Fact, World, candidates, question
from innerlingua.routing import mean_divergence, pair_divergence

__all__ = ["Measures", "measure", "total"]

TRAINED_LIMIT = 100


@dataclass(frozen=True)
class Measures:
    """JS by language and layer; scores by language. `english` has one language, the anchor's."""

    js: dict[str, dict[int, float]]
    held_out: dict[str, Score]
    english: dict[str, Score]
    trained: dict[str, Score]

    def mean_js(self, layers: list[int]) -> float:
        """The mean over languages and `layers`."""
        return sum(self.js[code][layer] for code in self.js for layer in layers) / (len(self.js) * len(layers))


def total(scores: dict[str, Score]) -> Score:
    """All languages together."""
    return sum(scores.values(), start=Score(0, 0, 0.0))


def measure(
    model: Qwen3MoeForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    world: World,
    held_out_pairs: Dataset,
    *,
    on_part: Callable[[], None] = lambda: None,
) -> Measures:
    """All measures of one model in eval mode; `on_part` is called after each of the 12 parts."""
    layers = [layer.index for layer in find_moe_layers(model)]
    js = mean_divergence(pair_divergence(model, held_out_pairs, tokenizer, layers=layers, batch_size=64), layers)
    on_part()

    def scores(code: str, facts: list[Fact]) -> Score:
        score = ask(model, tokenizer, [_ask_for(fact, code) for fact in facts])
        on_part()
        return score

    return Measures(
        js={code: js[code] for code in TARGETS},
        held_out={code: scores(code, world.held_out) for code in TARGETS},
        english={ANCHOR: scores(ANCHOR, world.held_out)},
        trained={code: scores(code, _some_trained(world, code)) for code in TARGETS},
    )


def _some_trained(world: World, language: str) -> list[Fact]:
    facts = [fact for fact in world.trained if language in fact.languages]
    return facts[:: -(-len(facts) // TRAINED_LIMIT)]


def _ask_for(fact: Fact, language: str) -> Question:
    return Question(question(fact, language), candidates(fact, language), fact.answer)
