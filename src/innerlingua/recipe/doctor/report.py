"""What the doctor found, as data: the findings, and one record per section. Imports no torch.

The classes below are the schema of the JSON that `innerlingua doctor --json` writes. Bytes are bytes, seconds are wall
time, tokens are counted without padding unless a name says otherwise. A section is None when it could not be looked at;
`Report.skipped` then says why.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

__all__ = [
    "SCHEMA",
    "Batch",
    "DataSet",
    "Finding",
    "FirstStep",
    "Gradients",
    "Histogram",
    "Language",
    "Lengths",
    "Level",
    "Losses",
    "Memory",
    "Model",
    "Pair",
    "Part",
    "Piece",
    "Prior",
    "PriorState",
    "Report",
    "Schedule",
    "Sharding",
    "Share",
    "Side",
    "Time",
]

SCHEMA = 1

Level = Literal["ok", "note", "warning", "refused"]
PriorState = Literal["fresh", "stale", "missing", "live"]


@dataclass(frozen=True)
class Finding:
    """One thing to know: how bad, which key of the recipe, where that stands, what is so, and what to do about it.

    The text of a refusal is the one that `innerlingua train` would end with; it holds its remedy, so that `remedy` is
    empty.
    """

    level: Level
    key: str
    where: str
    what: str
    remedy: str = ""


# -- the model ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """A row of the table of parameters. `kind` is weights or adapters; `sample` is the name of one tensor of it."""

    part: str
    kind: Literal["weights", "adapters"]
    tensors: int
    parameters: int
    trainable: int
    dtypes: list[str]
    devices: list[str]
    sample: str


@dataclass(frozen=True)
class Model:
    """The model as it was loaded. Layers are decoder-layer indices, 0-based; `aligned` is None without alignment."""

    path: str
    architecture: str
    model_type: str
    dtype: str
    device: str
    decoder_layers: int
    moe_layers: list[int]
    experts: int
    top_k: int
    score: str
    aligned_score: str | None
    aligned: list[int] | None
    fixed_routers: dict[str, str]
    attention_backend: str
    experts_backend: str
    context: int | None
    vocabulary: int
    tied: bool


# -- the rows -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lengths:
    """Tokens of one side of some rows."""

    rows: int
    total: int
    least: int
    median: float
    mean: float
    p90: float
    p99: float
    most: int


@dataclass(frozen=True)
class Language:
    """The rows of one language, or of all (`language` is then `all`)."""

    language: str
    rows: int
    without_anchor: int
    supervised: int
    target: Lengths
    anchor: Lengths | None

    @property
    def supervised_share(self) -> float:
        """Tokens with a label, of the target's tokens."""
        return self.supervised / self.target.total if self.target.total else 0.0


@dataclass(frozen=True)
class Histogram:
    """How many targets and anchors have a length in each bin: from `edges[i]` up to `edges[i + 1] - 1` tokens."""

    edges: list[int]
    target: list[int]
    anchor: list[int]


@dataclass(frozen=True)
class DataSet:
    """The rows of training or evaluation. `counts` is what became of each row: read = kept + dropped."""

    name: str
    paths: list[str]
    counts: dict[str, int]
    everything: Language
    languages: list[Language]
    histogram: Histogram
    identical_sides: int


@dataclass(frozen=True)
class Side:
    """One side of a row as the model reads it. In `marked`, what the loss is taken over stands between ⟦ and ⟧."""

    marked: str
    tokens: int
    supervised: int


@dataclass(frozen=True)
class Pair:
    """One row rendered: the first that has an anchor."""

    id: str
    language: str
    target: Side
    anchor: Side | None


# -- the prior and the losses ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prior:
    """`fresh`, `stale`, `missing`, or `live` (no prior is needed). `bytes` and `seconds` are those of making it; the
    seconds are an estimate from `sampled` anchors."""

    state: PriorState
    folder: str
    anchors: int
    bytes: int
    sampled: int = 0
    seconds: float | None = None


@dataclass(frozen=True)
class Gradients:
    """Euclidean norms of a gradient, by part of the model, and over all of it."""

    parts: dict[str, float]
    total: float


@dataclass(frozen=True)
class Piece:
    """One part of the loss on one micro-batch. It adds `weight * value` to the loss; its gradients are those of `value`
    alone."""

    name: str
    weight: float
    value: float
    gradients: Gradients


@dataclass(frozen=True)
class FirstStep:
    """The first step of the training, as far as the optimiser: what the training logs at it."""

    micro_batches: int
    rows: int
    padded_tokens: int
    loss: float
    logged: dict[str, float]
    gradients: Gradients
    without_gradient: list[str]


@dataclass(frozen=True)
class Losses:
    """The first step, and the pieces of the loss on one of its micro-batches: the first one that has pairs."""

    step: FirstStep
    rows: int
    padded_tokens: int
    pieces: list[Piece]


# -- cost -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Schedule:
    """How many steps. Tokens are those of one epoch; `anchor_tokens` pass the model in training only when live.

    Where rows are packed, `packed_rows` says into how many, and micro-batches, steps and rows left out count those.
    """

    rows: int
    packed_rows: int | None
    processes: int
    micro_batch: int
    accumulation: int
    rows_of_a_step: int
    steps_of_an_epoch: int
    epochs: float
    steps: int
    warmup_steps: int
    target_tokens: int
    supervised_tokens: int
    anchor_tokens: int
    rows_left_out: int


@dataclass(frozen=True)
class Batch:
    """One micro-batch that was sent forward and backward: its size, its peak beyond weights and gradients, its time."""

    rows: int
    padded_tokens: int
    bytes: int | None
    seconds: float


@dataclass(frozen=True)
class Share:
    """What one device holds when a training is spread in this way."""

    way: str
    bytes: int


@dataclass(frozen=True)
class Memory:
    """Bytes of a training on one device. Counted: weights, buffers, gradients. By a trial step on one tensor of every
    shape: the optimiser's states (None: it cannot be tried alone). Measured: the activations of `least` and `most`, the
    micro-batches of the shortest and of the longest rows (None: not measured).
    """

    device: str
    capacity: int
    free: int
    weights: int
    buffers: int
    gradients: int
    optimizer: int | None
    optimizer_name: str
    least: Batch | None
    most: Batch | None
    shares: list[Share]
    checkpoint: int
    checkpoints: int
    disk_free: int

    @property
    def total(self) -> int:
        """The peak that is expected: everything, with the activations of the longest batch."""
        return self.standing + (self.most.bytes or 0 if self.most is not None else 0)

    @property
    def standing(self) -> int:
        """What is there all the time once the optimiser has its states."""
        return self.weights + self.buffers + self.gradients + (self.optimizer or 0)


@dataclass(frozen=True)
class Time:
    """Seconds: of the first step (forward, backward, and a trial of the optimiser), and of the training from it."""

    step: float
    optimizer: float | None
    training: float
    shortest: float
    longest: float


@dataclass(frozen=True)
class Sharding:
    """What launchers must be told, found in the loaded model.

    `leaf_modules` for DeepSpeed ZeRO-3; `wrap` for FSDP (`no_split` is what transformers itself names); `all_linear`
    is what PEFT's `all-linear` would put adapters on, by part, and None where PEFT refuses the model.
    """

    leaf_modules: list[str]
    fused_experts: bool
    wrap: list[str]
    no_split: list[str]
    all_linear: dict[str, int] | None


@dataclass
class Report:
    """Everything, in the order in which it is printed."""

    recipe_path: str
    versions: dict[str, str]
    findings: list[Finding] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    recipe: dict[str, Any] | None = None
    model: Model | None = None
    parameters: list[Part] | None = None
    data: list[DataSet] | None = None
    pair: Pair | None = None
    prior: Prior | None = None
    losses: Losses | None = None
    schedule: Schedule | None = None
    memory: Memory | None = None
    time: Time | None = None
    sharding: Sharding | None = None

    @property
    def refused(self) -> bool:
        """Whether `innerlingua train` would refuse the recipe."""
        return any(finding.level == "refused" for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """The report as plain values."""
        fields = asdict(self)
        for dataset, languages in zip(fields["data"] or [], self.data or [], strict=True):
            for plain, language in zip(
                [dataset["everything"], *dataset["languages"]],
                [languages.everything, *languages.languages],
                strict=True,
            ):
                plain["supervised_share"] = language.supervised_share
        if self.memory is not None:
            fields["memory"]["total"] = self.memory.total
        return {"schema": SCHEMA, "command": "doctor", "refused": self.refused, **fields}
