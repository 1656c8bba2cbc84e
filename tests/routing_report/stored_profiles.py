"""Made-up profiles in the stored format, of any size, with a U-shaped divergence that tuning and alignment lower."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

NAMES = {
    "eng_Latn": "English", "hin_Deva": "Hindi", "npi_Deva": "Nepali", "ben_Beng": "Bengali", "tel_Telu": "Telugu",
    "swh_Latn": "Swahili", "amh_Ethi": "Amharic", "arb_Arab": "Modern Standard Arabic",
    "bod_Tibt": "Standard Tibetan", "cym_Latn": "Welsh", "deu_Latn": "German", "eus_Latn": "Basque",
    "fra_Latn": "French", "hau_Latn": "Hausa", "ibo_Latn": "Igbo", "ind_Latn": "Indonesian", "isl_Latn": "Icelandic",
    "khm_Khmr": "Khmer", "kir_Cyrl": "Kyrgyz", "lao_Laoo": "Lao", "mya_Mymr": "Burmese",
    "plt_Latn": "Plateau Malagasy", "sin_Sinh": "Sinhala", "som_Latn": "Somali", "spa_Latn": "Spanish",
    "tha_Thai": "Thai", "tur_Latn": "Turkish", "vie_Latn": "Vietnamese", "yor_Latn": "Yoruba",
    "zho_Hans": "Chinese (simplified)", "zul_Latn": "Zulu",
}  # fmt: skip
CLOSENESS = {"base": 1.0, "sft": 0.72, "sara": 0.28}
HTML_IN_DATA = "<script>alert('no')</script> & </script>"


def js(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence over the last dimension, nats."""
    m = (p + q) / 2
    kl = lambda a: np.where(a > 0, a * np.log(np.where(a > 0, a / m, 1)), 0).sum(-1)  # noqa: E731
    return (kl(p) + kl(q)) / 2


def write_profile(
    directory: Path,
    *,
    label: str = "base",
    languages: int = 5,
    layers: int = 6,
    experts: int = 8,
    top_k: int = 2,
    samples: int = 6,
    tokens: int = 9,
    seed: int = 0,
    model_type: str = "qwen3_moe",
    seen: list[str] | None = None,
    **changes: Any,
) -> Path:
    """Write one profile into `directory`; `changes` replace top-level keys of profile.json."""
    random = np.random.default_rng(seed)
    codes = list(NAMES)[:languages]
    depth = np.arange(layers) / max(layers - 1, 1)
    shape = 0.25 + 0.75 * np.abs(2 * depth - 0.85) ** 1.7
    family = random.dirichlet(np.full(experts, 0.6), (4, layers))
    anchor = random.dirichlet(np.full(experts, 0.6), layers)
    far = CLOSENESS.get(label, 1.0)
    mean = np.empty((languages, layers, experts))
    for row in range(languages):
        own = 0.6 * family[row % 4] + 0.4 * random.dirichlet(np.full(experts, 0.6), layers)
        mix = np.clip(far * shape * (0.35 + 0.5 * random.random()), 0, 1)[:, None] * (row > 0)
        mean[row] = (1 - mix) * anchor + mix * own
    # Shares of counts: the most likely experts, sharpened.
    load = mean**1.6 / (mean**1.6).sum(-1, keepdims=True)

    def with_interval(values: np.ndarray, spread: float) -> dict[str, Any]:
        return {
            "mean": values.tolist(),
            "low": (values * (1 - spread)).tolist(),
            "high": (values * (1 + spread)).tolist(),
        }

    nothing = {"mean": [None] * layers, "low": [None] * layers, "high": [None] * layers}
    entropy = -(mean * np.log(mean + 1e-12)).sum(-1)
    measures: dict[str, dict[str, Any]] = {
        key: {}
        for key in (
            "js", "js_normalised", "overlap", "entropy", "load_cv", "dead_experts", "shared_experts",
            "exclusive_experts", "js_of_means",
        )
    }  # fmt: skip
    for row, code in enumerate(codes):
        distance = js(mean[row], mean[0])
        is_anchor = row == 0
        measures["js"][code] = nothing if is_anchor else with_interval(distance * 1.3, 0.06)
        measures["js_normalised"][code] = None if is_anchor else with_interval(distance / np.log(experts) * 2, 0.07)
        measures["overlap"][code] = nothing if is_anchor else with_interval(np.exp(-4 * distance), 0.05)
        measures["js_of_means"][code] = None if is_anchor else {"mean": distance.tolist(), "low": None, "high": None}
        measures["entropy"][code] = with_interval(entropy[row], 0.01)
        measures["load_cv"][code] = with_interval(load[row].std(-1) / load[row].mean(-1), 0.03)
        measures["dead_experts"][code] = {"mean": (load[row] < 1e-4).sum(-1).tolist(), "low": None, "high": None}
        measures["shared_experts"][code] = with_interval(0.3 + 0.6 * np.exp(-5 * distance), 0.04)
        measures["exclusive_experts"][code] = with_interval(0.3 * (1 - np.exp(-5 * distance)), 0.1)

    by_layer = np.stack([js(mean[:, None, layer], mean[None, :, layer]) for layer in range(layers)])
    between = by_layer.mean(0)

    def off_diagonal(table: np.ndarray) -> list[list[float | None]]:
        return [[None if i == j else float(x) for j, x in enumerate(row)] for i, row in enumerate(table)]

    trough = [layer for layer in range(layers) if 0.2 <= depth[layer] <= 0.7] or [0]
    record = {
        "schema": 1,
        "command": f"innerlingua routing profile models/{label} --pairs pairs.jsonl --anchor eng_Latn -o {label}",
        "versions": {"innerlingua": "0.1.0", "torch": "2.13.0"},
        "seed": seed,
        "created": "2026-01-01T00:00:00Z",
        "model": {
            "name": f"models/{label}", "model_type": model_type, "layers": list(range(layers)), "depth": layers,
            "experts": experts, "top_k": top_k, "score": "softmax", "weights": "0123456789abcdef",
        },
        "anchor": "eng_Latn",
        "label": label,
        "data": {
            "files": ["pairs.jsonl"],
            "ids_read": 1000,
            "pairs_read": 1000 * (languages - 1),
            "pairs": 1000 * (languages - 1) - 3,
            "excluded_rows": 0,
            "skipped": {"missing_side": {codes[-1]: 41}, "without_anchor": 0, "empty": 3, "overlong": 0},
            "skipped_by_language": {"without_anchor": {}, "empty": {codes[1]: 3}, "overlong": {}},
            "same_as_anchor": {},
            "seen_in_training": codes[: max(2, languages // 2)] if seen is None else seen,
        },
        "languages": {
            code: {"name": NAMES[code], "pairs": 1000 - row, "tokens": 23000 + 17 * row,
                   "anchor_tokens": 20000, "ids_digest": f"{row:016x}"}
            for row, code in enumerate(codes)
        },
        "measures": measures,
        "between_languages": {
            "order": codes, "js": between.tolist(), "low": off_diagonal(0.9 * between),
            "high": off_diagonal(1.1 * between), "js_by_layer": by_layer.tolist(),
            "ids": np.full((languages, languages), 950).tolist(),
        },
        "suggested_layers": {
            "layers": trough, "trough": True,
            "rule": "the longest run of layers with JS below min + 0.25 x (mean of first and last tenth - min), "
                    "at least 20 % of the depth",
        },
        "settings": {"bootstrap": 200, "level": 0.95, "K": 15, "threshold": 0.4, "max_length": 512},
        **changes,
    }  # fmt: skip
    directory.mkdir(parents=True, exist_ok=True)
    save_file({"mean": mean.astype("f4"), "load": load.astype("f4")}, directory / "profile.safetensors")
    pairs = []
    for number in range(samples):
        code = codes[1 + number % (languages - 1)]

        def side(words: list[str], row: int) -> dict[str, Any]:
            # The k largest of log-probability plus Gumbel noise are a draw of k without replacement.
            noisy = np.log(load[row] + 1e-12)[:, None] + random.gumbel(size=(layers, len(words), experts))
            chosen = np.sort(np.argsort(-noisy, axis=-1)[..., :top_k], axis=-1)
            return {"tokens": words, "experts": chosen.tolist()}

        words = [f" w{index}" for index in range(tokens)]
        if number == 0:
            words[2] = HTML_IN_DATA
        target = side(words, codes.index(code))
        anchor_side = side([f" the{index}" for index in range(tokens - 1)], 0)
        distance = js(mean[codes.index(code)], mean[0]).tolist()
        pairs.append({"id": f"doc-{number}", "language": code, "target": target, "anchor": anchor_side, "js": distance})
    (directory / "samples.json").write_text(json.dumps({"pairs": pairs}))
    (directory / "profile.json").write_text(json.dumps(record))
    return directory


def write_results(path: Path, *, labels: tuple[str, ...] = ("base", "sft", "sara"), languages: int = 5) -> Path:
    """A result.json whose accuracy falls with the rank of the language."""
    runs = {
        label: {
            "accuracy": {
                code: {"n": 200, "correct": int(150 - 90 * CLOSENESS.get(label, 1.0) * ((row * 7) % 11) / 11)}
                for row, code in enumerate(list(NAMES)[1:languages], start=1)
            }
        }
        for label in labels
    }
    path.write_text(json.dumps({"schema": 1, "runs": runs}))
    return path
