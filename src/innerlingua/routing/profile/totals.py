"""What a profile keeps while it reads: sums by language and layer, in the estimate and in every bootstrap replicate.

Nothing grows with the number of sentences. The largest part is the count of chosen experts in each replicate,
languages x replicates x layers x experts float32 (160 MB for 32 languages, 200 replicates, 48 layers of 128 experts).

Shape letters: S sides of a window, G languages (the anchor's is 0), R replicates, L layers, E experts. A leading
dimension R + 1 has the estimate first, whose weights are all one, then the replicates.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from innerlingua.routing.divergence import js_unchecked
from innerlingua.routing.profile.bootstrap import id_hash, poisson_weights
from innerlingua.routing.profile.layout import PAIR_MEASURES
from innerlingua.routing.profile.measures import (
    expert_overlap,
    most_used,
    normalised_js_divergence,
    pairwise_js,
)
from innerlingua.routing.profile.windows import Window

__all__ = ["Between", "Measured", "Totals"]


@dataclass(frozen=True)
class Measured:
    """The routing of a window's sides, float32: `mean` (S, L, E), token `entropy` (S, L), expert `counts` (S, L, E)."""

    mean: Tensor
    entropy: Tensor
    counts: Tensor


@dataclass(frozen=True)
class Between:
    """JS of every two languages over the ids that both have, nats, float64; nan where there is none.

    `by_layer` (L, G, G); `mean` over layers (G, G), and in every replicate, `replicates` (R, G, G); `ids` (G, G).
    """

    by_layer: Tensor
    mean: Tensor
    replicates: Tensor
    ids: Tensor


class Totals:
    """The sums of one profile. `add` windows, then read estimates and replicates."""

    def __init__(
        self, *, languages: int, layers: int, experts: int, top_k: int, replicates: int, seed: int, device: torch.device
    ) -> None:
        self.replicates = replicates
        self._seed = seed
        self._top_k = top_k
        self._device = device

        def zeros(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        self._sums = {name: zeros(languages, replicates + 1, layers) for name in (*PAIR_MEASURES, "entropy")}
        self._pairs = zeros(languages, replicates + 1)
        self._tokens = zeros(languages, replicates + 1)
        self.counts = zeros(languages, layers, experts)
        self.replicate_counts = zeros(languages, replicates, layers * experts, dtype=torch.float32)
        self._routing = zeros(languages, layers, experts)
        self._between = zeros(languages * (languages - 1) // 2, layers)
        self._between_means = zeros(replicates + 1, languages * (languages - 1) // 2)
        self._shared_ids = zeros(replicates + 1, languages * (languages - 1) // 2)
        self.sides = [0] * languages
        self.tokens = [0] * languages
        self.anchor_tokens = [0] * languages
        self.digests = [0] * languages

    def add(self, window: Window, measured: Measured) -> None:
        """Add the sides of one window."""
        mean = measured.mean.to(self._device, torch.float64)
        counts = measured.counts.to(self._device)
        lengths = torch.tensor([len(ids) for ids in window.token_ids], dtype=torch.float64, device=self._device)
        anchor = torch.tensor(window.anchor, device=self._device)
        values = self._pair_values(mean, counts, anchor)
        values["entropy"] = measured.entropy.to(self._device, torch.float64) * lengths[:, None]
        drawn = torch.from_numpy(poisson_weights(window.ids, seed=self._seed, replicates=self.replicates))
        weights = torch.cat([torch.ones(len(window.ids), 1), drawn], dim=1).to(self._device)
        group = torch.tensor(window.group, device=self._device)
        by_language: dict[int, list[int]] = {}
        for side, language in enumerate(window.language):
            by_language.setdefault(language, []).append(side)
        for language, sides in by_language.items():
            rows = torch.tensor(sides, device=self._device)
            weight = weights[group[rows]].T
            exact = weight.double()
            for name, value in values.items():
                if language != 0 or name == "entropy":
                    self._sums[name][language] += exact @ value[rows]
            self._pairs[language] += exact.sum(dim=1)
            self._tokens[language] += exact @ lengths[rows]
            own = counts[rows]
            self.counts[language] += own.double().sum(dim=0)
            self.replicate_counts[language] += weight[1:] @ own.flatten(1)
            self._routing[language] += mean[rows].sum(dim=0)
            self._count(window, language, sides)
        self._add_between(window, mean, weights)

    def _pair_values(self, mean: Tensor, counts: Tensor, anchor: Tensor) -> dict[str, Tensor]:
        """The measures of every side against its anchor, (S, L) each; an anchor's own are not used."""
        used = most_used(counts, mean.to(counts.dtype), self._top_k)
        theirs = mean[anchor]
        return {
            "js": js_unchecked(mean, theirs),
            "js_normalised": normalised_js_divergence(mean, theirs),
            "overlap": expert_overlap(used, used[anchor]),
        }

    def _count(self, window: Window, language: int, sides: list[int]) -> None:
        self.sides[language] += len(sides)
        self.tokens[language] += sum(len(window.token_ids[side]) for side in sides)
        self.anchor_tokens[language] += sum(len(window.token_ids[window.anchor[side]]) for side in sides)
        for side in sides:
            # A sum does not depend on the order, and unlike exclusive or, two equal ids do not cancel.
            self.digests[language] = (self.digests[language] + id_hash(window.ids[window.group[side]], 0)) % 2**64

    def _add_between(self, window: Window, mean: Tensor, weights: Tensor) -> None:
        """Add the JS of every two languages of each id: by layer, and as its mean over layers in every replicate."""
        bounds = [side for side, anchor in enumerate(window.anchor) if side == anchor]
        means = torch.zeros((len(bounds), self._between.shape[0]), dtype=torch.float64, device=self._device)
        shared = torch.zeros_like(means)
        for at, (start, stop) in enumerate(zip(bounds, [*bounds[1:], len(window.anchor)], strict=True)):
            place = torch.tensor(window.language[start:stop], device=self._device)
            first, second, divergence = pairwise_js(mean[start:stop])
            pair = self._pair_index(place[first], place[second])
            self._between[pair] += divergence
            means[at, pair] = divergence.mean(dim=1)
            shared[at, pair] = 1
        exact = weights.T.double()
        self._between_means += exact @ means
        self._shared_ids += exact @ shared

    def _pair_index(self, a: Tensor, b: Tensor) -> Tensor:
        """Where two languages stand in the upper triangle, row by row."""
        low, high = torch.minimum(a, b), torch.maximum(a, b)
        return low * (2 * len(self.sides) - low - 1) // 2 + high - low - 1

    # -- reading ------------------------------------------------------------------------------------------------------

    def ratios(self, name: str) -> tuple[Tensor, Tensor]:
        """Estimate (G, L) and replicates (R, G, L) of a mean over pairs, or over tokens for `entropy`; nan without
        any."""
        below = self._tokens if name == "entropy" else self._pairs
        values = (self._sums[name] / below[:, :, None]).cpu()
        if name != "entropy":
            values[0] = torch.nan
        return values[:, 0], values[:, 1:].transpose(0, 1).contiguous()

    @property
    def mean_routing(self) -> Tensor:
        """The mean over sentences of their routing: (G, L, E), float64."""
        return self._routing.cpu() / torch.tensor(self.sides, dtype=torch.float64)[:, None, None]

    def between(self) -> Between:
        """Mean JS of every two languages over their common ids."""
        number = len(self.sides)
        first, second = torch.triu_indices(number, number, offset=1)

        def square(values: Tensor) -> Tensor:
            whole = torch.zeros((*values.shape[:-1], number, number), dtype=torch.float64)
            whole[..., first, second] = whole[..., second, first] = values
            return whole

        shared = self._shared_ids.cpu()
        means = self._between_means.cpu() / shared
        ids = square(shared[0])
        ids[range(number), range(number)] = torch.tensor(self.sides, dtype=torch.float64)
        return Between(
            by_layer=square((self._between.cpu() / shared[0][:, None]).T),
            mean=square(means[0]),
            replicates=square(means[1:]),
            ids=ids,
        )
