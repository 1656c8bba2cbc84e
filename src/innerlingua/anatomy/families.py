"""What single model families do differently. The one place in the package where a family is named.

A family needs no row when it follows the common contract of transformers: the router module returns `(logits, weights,
indices)`, states `num_experts` and `top_k`, and stands beside a module `experts`; the k experts with the largest
logits are used, and their weights are proportional to a softmax of the logits. A row states a deviation. The
self-check (`innerlingua.anatomy.check`) recomputes the choice and the proportions from it, so a family that deviates
without a row, or with a wrong one, is refused by name and not aligned to something that it does not do.

`score` is the routing distribution that is aligned, a probability over all routed experts before top-k:

- `softmax`: `p = softmax(z)`. Also for routers that take their softmax after top-k (gpt-oss, Granite) and for sampling
  routers (PhiMoE): the weights of the chosen experts are not a distribution over all experts, and a distribution that
  is zero almost everywhere gives almost no gradient. Among the chosen experts both have the same proportions.
- `sigmoid_normalised`: `p = sigmoid(z) / sum sigmoid(z)`, for routers that score every expert by itself. A softmax of
  the same logits would keep the order but not the proportions in which the experts are used.
- `sqrtsoftplus_normalised`: the same with `sqrt(softplus(z))`, as DeepSeek-V4 scores.

What is never in the distribution: a correction bias (it balances the load and is no part of what the router says
about a token), group limits, and the factor that scales all weights. Experts that compute nothing (identity, skip)
are in
it: whether a token is sent to them is routing.

The rows were read from the sources of transformers 5.17 and 5.23 and are checked by `make families`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

__all__ = ["COMMON", "FAMILIES", "Family", "Score", "family_of"]

Score = Literal["softmax", "sigmoid_normalised", "sqrtsoftplus_normalised"]


@dataclass(frozen=True)
class Family:
    """How one family routes. The defaults are the common contract. Paths are dotted attributes.

    What is scored and chosen:
        score: the routing distribution; see the module.
        score_by: a configuration attribute that names it, and what its values mean.
        bias: path from the router, or from its MoE block, of a correction that is added before the choice. A model
            whose configuration turns it off does not have it.
        bias_on: what the bias is added to, the scores or the logits.
        groups: experts are chosen within the best groups only, a group being as good as its best or its two best
            experts together. The router states `num_group` (None or 1: no groups) and `topk_group`.
        groups_when: a router attribute and the value with which the groups are in use.
        masked: score of the experts outside the best groups.
        samples: experts are drawn at random in training mode, so a prior must be taken in evaluation mode.
        last_skips: the last expert means "skip": the router gives index 0 and weight 0 in its place.
        expert_scale: path from the router of a factor per expert that is multiplied to the weights after scoring.

    Where it stands:
        router: path from the module that transformers records to the router itself.
        logits: path from the router to a part of it that gives the logits, when the router itself does not return them.
        logits_at: position of the logits in the router's output, when it is not the one that transformers records.
        num_experts, top_k: paths from the router, or from its MoE block or its experts.
        experts: names in the MoE block of the modules that hold the routed experts.
        chosen: where the indices of the chosen experts stand: `indices` (an integer tensor that the router returns,
            or, when it returns logits alone, one that only the experts are given), `sorted` (a sorting of the tokens
            by expert), `scores` (zero for all others).
        ignored: levels of a path below which routers are none of the language model's feed-forward layers.
        no_adapters: parts of the model (or `all`) on which LoRA cannot act or be loaded again, and why.
        unsupported: why routing alignment is refused.
    """

    score: Score = "softmax"
    score_by: tuple[str, Mapping[str, Score]] | None = None
    bias: str | None = None
    bias_on: Literal["score", "logits"] = "score"
    groups: Literal["best", "two_best"] | None = None
    groups_when: tuple[str, str] | None = None
    masked: float = float("-inf")
    samples: bool = False
    last_skips: bool = False
    expert_scale: str | None = None
    router: str = ""
    logits: str = ""
    logits_at: int | None = None
    num_experts: str = "num_experts"
    top_k: str = "top_k"
    experts: tuple[str, ...] = ("experts",)
    chosen: Literal["indices", "sorted", "scores"] = "indices"
    ignored: tuple[str, ...] = ()
    no_adapters: Mapping[str, str] = field(default_factory=dict)
    unsupported: str | None = None

    @property
    def kind(self) -> str:
        """What sets this router apart, in words for the documentation."""
        words = [self.score if self.score_by is None else f"score by `{self.score_by[0]}`"]
        if self.bias is not None:
            words.append("correction bias" if self.bias_on == "score" else "correction bias on the logits")
        if self.groups is not None:
            words.append("groups")
        if self.samples:
            words.append("samples in training")
        if self.last_skips:
            words.append("skip expert")
        if self.expert_scale is not None:
            words.append("scale per expert")
        if self.router or self.logits:
            words.append("logits inside a submodule")
        if self.chosen != "indices":
            words.append(f"choice as {self.chosen}")
        return ", ".join(words)


COMMON = Family()
_SIGMOID = Family(score="sigmoid_normalised")
_BIASED = replace(_SIGMOID, bias="e_score_correction_bias")
_GROUPED = replace(_BIASED, groups="two_best")
_SOFTMAX_BEST_GROUP = Family(groups="best", groups_when=("topk_method", "group_limited_greedy"), masked=0.0)
_SOFTMAX_TWO_BEST = Family(groups="two_best", masked=0.0)
_BY_SCORING_FUNC: tuple[str, Mapping[str, Score]] = (
    "scoring_func",
    {"softmax": "softmax", "sigmoid": "sigmoid_normalised", "sqrtsoftplus": "sqrtsoftplus_normalised"},
)
_RENAMED_ADAPTERS = {
    "all": "PEFT renames the weights of this family when it loads an adapter, so what was trained would be lost "
    "without an error"
}
_ERNIE_BIAS = "moe_statics.e_score_correction_bias"
_PROJECTED = Family(
    # The router returns probabilities, and scales the weights expert by expert.
    logits="proj",
    num_experts="proj.out_features",
    top_k="config.top_k_experts",
    expert_scale="per_expert_scale",
)

FAMILIES: dict[str, Family] = {
    "afmoe": replace(_SIGMOID, bias="expert_bias"),
    "axk1": _GROUPED,
    "axk2": replace(_GROUPED, masked=0.0),
    "bailing_hybrid": _GROUPED,
    "beam": _GROUPED,
    "cohere2_moe": Family(score_by=("expert_selection_fn", {"softmax": "softmax", "sigmoid": "sigmoid_normalised"})),
    "dbrx": Family(
        no_adapters={
            "experts": "these experts are read as attributes of a module, which PEFT's wrapper does not pass on"
        }
    ),
    "deepseek_ocr2": replace(_SOFTMAX_BEST_GROUP, no_adapters=_RENAMED_ADAPTERS),
    "deepseek_v2": _SOFTMAX_BEST_GROUP,
    "deepseek_v3": _GROUPED,
    "deepseek_v32": _GROUPED,
    # Its first layers route by a fixed table of token ids; those are listed and not aligned.
    "deepseek_v4": replace(_BIASED, score_by=_BY_SCORING_FUNC),
    "doge": Family(
        unsupported="its router reads its own output in the wrong order (a (tokens, 2 x keys) tensor viewed as (2, "
        "tokens, keys)), so the experts of a token depend on the other tokens and rows of the batch: there is no "
        "routing of a sequence that could be aligned"
    ),
    "dots1": _GROUPED,
    "dots3_note": _GROUPED,
    "ernie4_5_moe": Family(bias=_ERNIE_BIAS),
    # A text and a vision router per layer; text goes through the first.
    "ernie4_5_vl_moe": Family(bias=_ERNIE_BIAS, router="text_moe.gate"),
    "exaone_moe": _GROUPED,
    "flint": _SIGMOID,
    "gemma4": _PROJECTED,
    "glm4_moe": _GROUPED,
    "glm4_moe_lite": _GROUPED,
    "glm4v_moe": _GROUPED,
    "glm5_next": _GROUPED,
    "glm_moe_dsa": _GROUPED,
    "hy_v3": _BIASED,
    "hy_v4": _GROUPED,
    # The shared experts are scored, too; the logits that the router returns are those of the routed ones.
    "inkling": _BIASED,
    "inkling2": replace(_BIASED, score_by=_BY_SCORING_FUNC, no_adapters=_RENAMED_ADAPTERS),
    # Mixture-of-attention routers beside those of the feed-forward layers; the experts are two stacks of matrices.
    "jetmoe": Family(ignored=("self_attention",), experts=("input_linear", "output_linear"), chosen="sorted"),
    "kimi_linear": _GROUPED,
    "kolibri1": replace(_BIASED, bias_on="logits"),
    "laguna": _BIASED,
    "lfm2_moe": replace(_SIGMOID, bias="expert_bias"),
    # The weights are the sigmoid scores, spread over all experts and multiplied to the input.
    "llama4": replace(_SIGMOID, chosen="scores", logits_at=1),
    # Identity experts count: `num_experts` of its router leaves them out.
    "longcat_flash": Family(
        bias="e_score_correction_bias",
        num_experts="n_routed_experts",
        no_adapters={
            "router": "this router reads the weight of its linear layer and never runs the layer, where LoRA acts"
        },
    ),
    "mimo_v2_flash": _GROUPED,
    "minimax_m2": _BIASED,
    "minimax_m3_vl": _BIASED,
    "mistral4": _SOFTMAX_TWO_BEST,
    "mistral_large4": replace(_SOFTMAX_TWO_BEST, no_adapters=_RENAMED_ADAPTERS),
    "muse_spark": _BIASED,
    "nemotron_h": _GROUPED,
    # Sparsemixer: two masked maxima, drawn at random among near-equal logits in training mode.
    "phimoe": Family(samples=True),
    # The talker that speaks has routers of its own, at the same depth.
    "qwen3_omni_moe": Family(ignored=("talker",)),
    "solar_open": _GROUPED,
    "step3p5": _BIASED,
    "unlimited_ocr": replace(_SOFTMAX_BEST_GROUP, no_adapters=_RENAMED_ADAPTERS),
    "zaya": Family(bias="balancing_biases", num_experts="num_router_classes", last_skips=True),
}


def family_of(model_type: str) -> Family:
    """The row of a text model's `model_type` as in its configuration; the common contract when it has none."""
    return FAMILIES.get(model_type.removesuffix("_text"), COMMON)
