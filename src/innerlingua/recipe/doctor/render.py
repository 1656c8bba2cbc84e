"""A report as text for a terminal of 80 columns. Imports no torch.

Lines that begin in the first column are headings. Only paths and names that cannot be broken make a line longer.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from rich.cells import cell_len

from innerlingua.recipe.doctor import report as facts

__all__ = ["render"]

WIDTH = 80
_BAR = 20
_SHOWN = 700  # characters of a side of the rendered pair

_HEADINGS = {
    "model": "Model",
    "parameters": "Parameters",
    "data": "Rows",
    "pair": "A row as the model reads it",
    "prior": "Routing prior",
    "losses": "Loss before training",
    "schedule": "Steps",
    "memory": "Memory (estimate)",
    "time": "Time (estimate)",
    "sharding": "Several processes",
}
_ORDER = ("refused", "warning", "note", "ok")


def render(report: facts.Report) -> list[str]:
    """The lines of `report`, the findings last."""
    lines = [f"innerlingua doctor {report.recipe_path}"]
    missing: dict[str, list[str]] = {}
    for section, heading in _HEADINGS.items():
        value = getattr(report, section)
        if value is not None:
            lines += ["", heading, *_SECTIONS[section](value)]
        elif section in report.skipped:
            missing.setdefault(report.skipped[section], []).append(heading)
    for reason, headings in missing.items():
        lines += ["", f"Not shown ({reason})", *_prose(", ".join(headings))]
    if report.said:
        lines += ["", "As a training would say"]
        lines += [line for text in report.said for line in _prose(text)]
    lines += ["", "Findings", *_findings(report.findings)]
    refused = sum(finding.level == "refused" for finding in report.findings)
    lines += ["", _verdict(refused)]
    return lines


def _verdict(refused: int) -> str:
    if refused:
        return (
            f"Refused: innerlingua train would stop at the first of {refused}."
            if refused > 1
            else ("Refused: innerlingua train would stop there.")
        )
    return "innerlingua train would start."


# -- sections -------------------------------------------------------------------------------------------------------


def _model(model: facts.Model) -> Iterator[str]:
    yield from _prose(f"{model.architecture} ({model.model_type}), {model.dtype}, loaded on {model.device}")
    yield from _prose(
        f"MoE layers: {_ranges(model.moe_layers)} of {model.decoder_layers} decoder layers, {model.experts} experts, "
        f"top {model.top_k}, score {model.score}"
    )
    if model.fixed_routers:
        kinds = ", ".join(sorted(set(model.fixed_routers.values())))
        yield from _prose(f"{len(model.fixed_routers)} more route by a fixed table ({kinds})")
    if model.aligned is not None:
        yield from _prose(f"aligned: {_ranges(model.aligned)}, {len(model.aligned)} layers, as {model.aligned_score}")
    yield from _prose(f"attention by {model.attention_backend}, experts by {model.experts_backend}")


def _parameters(parts: Sequence[facts.Part]) -> Iterator[str]:
    yield f"  {'part':<27}{'tensors':>8}{'parameters':>16}{'trainable':>16}  type"
    for part in parts:
        name = f"{'adapters on ' if part.kind == 'adapters' else ''}{part.part}"
        numbers = f"{part.tensors:>8,}{part.parameters:>16,}{part.trainable:>16,}"
        yield f"  {name:<27}{numbers}  {','.join(_short_type(dtype) for dtype in part.dtypes)}"
    everything, trained = sum(part.parameters for part in parts), sum(part.trainable for part in parts)
    yield f"  {'all':<27}{sum(part.tensors for part in parts):>8,}{everything:>16,}{trained:>16,}"


def _data(data: Sequence[facts.DataSet]) -> Iterator[str]:
    for position, dataset in enumerate(data):
        if position:
            yield ""
        read, kept = dataset.counts["read"], dataset.everything.rows
        yield from _prose(f"{dataset.name}: {', '.join(dataset.paths)}: {kept:,} of {read:,} rows")
        sizes = f"{'median':>8}{'p90':>7}{'p99':>7}{'most':>7}"
        yield f"  {'language':<11}{'rows':>9}{'unpaired':>10}{'loss on':>8}  side  {sizes}"
        languages = [dataset.everything, *dataset.languages] if len(dataset.languages) > 1 else dataset.languages
        for language in languages:
            yield from _language(language)
        yield from _histogram(dataset.histogram)
    yield from _prose("Lengths are tokens. 'loss on' is the share of the target's tokens that is supervised.")


def _language(language: facts.Language) -> Iterator[str]:
    start = (
        f"  {_cut(language.language, 11):<11}{language.rows:>9,}{language.without_anchor:>10,}"
        f"{language.supervised_share:>8.0%}"
    )
    yield f"{start}  target{_lengths(language.target)}"
    if language.anchor is not None:
        yield f"{'':<{len(start)}}  anchor{_lengths(language.anchor)}"


def _lengths(lengths: facts.Lengths) -> str:
    return f"{lengths.median:>8,.0f}{lengths.p90:>7,.0f}{lengths.p99:>7,.0f}{lengths.most:>7,}"


def _histogram(histogram: facts.Histogram) -> Iterator[str]:
    most = max(*histogram.target, *histogram.anchor)
    filled = [place for place, counts in enumerate(zip(histogram.target, histogram.anchor, strict=True)) if any(counts)]
    yield f"  {'tokens':<13}{'targets':>8}{'':<{_BAR + 2}}{'anchors':>8}"
    for place in range(filled[0], filled[-1] + 1):
        first, last = histogram.edges[place], histogram.edges[place + 1] - 1
        span = f"{first:,}-{last:,}" if last > first else f"{first:,}"
        counts = (histogram.target[place], histogram.anchor[place])
        bars = [f"{count:>8,} {'#' * round(_BAR * count / most):<{_BAR}}" for count in counts]
        yield f"  {span:<13}{bars[0]} {bars[1]}".rstrip()


def _pair(pair: facts.Pair) -> Iterator[str]:
    yield from _prose(f"id {_visible(pair.id)}, {pair.language}. The loss is taken over what stands in ⟦ ⟧.")
    for name, side in (("target", pair.target), ("anchor", pair.anchor)):
        if side is None:
            yield f"  {name}: none"
            continue
        supervised = f", {side.supervised} of them supervised" if name == "target" else ""
        yield f"  {name} ({side.tokens} tokens{supervised})"
        yield from _quoted(side.marked)


def _prior(prior: facts.Prior) -> Iterator[str]:
    if prior.state == "live":
        yield from _prose("none is needed: anchors go through the current weights in every step (anchor: live)")
        return
    yield from _prose(f"{prior.state}: {prior.folder}")
    yield from _prose(f"{prior.anchors:,} anchors, {_bytes(prior.bytes)}")
    if prior.seconds is not None:
        yield from _prose(
            f"computing it takes about {_seconds(prior.seconds)} (estimate from {prior.sampled} anchors); the figures "
            "below are taken with anchors that were computed in memory"
        )


def _losses(losses: facts.Losses) -> Iterator[str]:
    step = losses.step
    yield from _prose(
        f"The first step ({step.micro_batches} micro-batches, {step.rows} rows): loss {step.loss:.5g}, gradient norm "
        f"{step.gradients.total:.4g}. A training logs these at step 1."
    )
    logged = {name: value for name, value in step.logged.items() if name != "num_tokens"}
    yield from _prose(", ".join(f"{name} {value:.4g}" for name, value in logged.items()))
    yield from _prose(
        f"One micro-batch of it ({losses.rows} rows, {losses.padded_tokens} tokens with padding), each piece of the "
        "loss alone: its value, and the norm of its gradient, raw and as it is weighted."
    )
    first, *others = losses.pieces
    for start in range(0, max(len(others), 1), 2):
        yield from _piece_table(first, others[start : start + 2])


def _piece_table(first: facts.Piece, others: Sequence[facts.Piece]) -> Iterator[str]:
    yield "  " + f"{first.name:>38}" + "".join(f"  {_cut(piece.name, 18):>18}" for piece in others)
    yield "  " + f"{'':>38}" + "".join(f"  {'raw':>9}{f'x {piece.weight:g}':>9}" for piece in others)

    def row(label: str, values: Sequence[float]) -> str:
        cells = "".join(
            f"  {value:>9.3g}{piece.weight * value:>9.3g}" for piece, value in zip(others, values[1:], strict=True)
        )
        return f"  {label:<28}{values[0]:>10.4g}{cells}"

    shown = [first, *others]
    yield row("value", [piece.value for piece in shown])
    yield row("gradient", [piece.gradients.total for piece in shown])
    for part in first.gradients.parts:
        yield row(f"  {part}", [piece.gradients.parts[part] for piece in shown])


def _schedule(plan: facts.Schedule) -> Iterator[str]:
    rows = "packed rows" if plan.packed_rows is not None else "rows"
    yield from _prose(
        f"{plan.steps:,} steps of {plan.rows_of_a_step:,} {rows} ({plan.micro_batch} a micro-batch x "
        f"{plan.accumulation} accumulated x {plan.processes} process{'es' if plan.processes > 1 else ''}); "
        f"{plan.warmup_steps:,} of them warm-up"
    )
    packed = f" in {plan.packed_rows:,} packed ones" if plan.packed_rows is not None else ""
    yield from _prose(
        f"{plan.steps_of_an_epoch:,} steps are an epoch of {plan.rows:,} rows{packed}; epochs: {plan.epochs:.3g}"
    )
    anchors = f", and {plan.anchor_tokens:,} of anchors" if plan.anchor_tokens else ""
    yield from _prose(
        f"tokens of an epoch: {plan.target_tokens:,}, of them {plan.supervised_tokens:,} supervised{anchors}"
    )


def _memory(memory: facts.Memory) -> Iterator[str]:
    states = "cannot be tried alone" if memory.optimizer is None else "by a trial step"
    rows: list[tuple[str, int | None, str]] = [
        ("weights and buffers", memory.weights + memory.buffers, "counted"),
        ("gradients", memory.gradients, "counted"),
        ("optimiser states", memory.optimizer, f"{memory.optimizer_name}, {states}"),
    ]
    for name, batch in (("longest rows", memory.most), ("shortest rows", memory.least)):
        how = "not measured"
        if batch is not None:
            how = f"measured: {batch.rows} rows, {batch.padded_tokens:,} tokens with padding"
        rows.append((f"passes, {name}", batch.bytes if batch is not None else None, how))
    for name, size, how in rows:
        yield f"  {name:<24}{'?' if size is None else _bytes(size):>10}  {how}"
    yield f"  {'sum, longest rows':<24}{_bytes(memory.total):>10}  estimate"
    yield from _prose(f"{memory.device} has {_bytes(memory.capacity)}, {_bytes(memory.free)} of it free for this run")
    if memory.shares:
        yield from _prose("What each device would hold, by way of spreading:")
        for share in memory.shares:
            yield f"  {share.way:<24}{_bytes(share.bytes):>10}  estimate"
    yield from _prose(
        f"disk: up to {memory.checkpoints} checkpoints of {_bytes(memory.checkpoint)}; {_bytes(memory.disk_free)} free"
    )


def _time(time: facts.Time) -> Iterator[str]:
    tried = (
        "" if time.optimizer is None else f", {_seconds(time.optimizer)} of it the optimiser's, tried tensor by tensor"
    )
    yield from _prose(f"a step: {_seconds(time.step)} (timed on the first one{tried})")
    yield from _prose(
        f"the training: {_seconds(time.training)}; {_seconds(time.shortest)} if all rows were as the shortest, "
        f"{_seconds(time.longest)} if all were as the longest. Prior, evaluation and saving come on top"
    )


def _sharding(names: facts.Sharding) -> Iterator[str]:
    yield from _prose(f"FSDP: wrap {', '.join(names.wrap)} (fsdp_transformer_layer_cls_to_wrap), never single experts")
    fused = (
        "experts are fused, so that none is skipped"
        if names.fused_experts
        else "each expert is a module of its own, so innerlingua train marks it"
    )
    yield from _prose(
        f"DeepSpeed ZeRO-3: leaf module {', '.join(names.leaf_modules)} ({fused}). Each process loads the whole model "
        "into main memory before it is taken apart"
    )
    if names.all_linear is None:
        yield from _prose("PEFT's all-linear cannot be put on this model")
        return
    reached = ", ".join(f"{part} ({count})" for part, count in names.all_linear.items())
    router = "the router among them" if "router" in names.all_linear else "no router among them"
    experts = "" if "experts" in names.all_linear else ", and no experts"
    yield from _prose(
        f"PEFT's all-linear, which the section peft does not use, would wrap {reached}: {router}{experts}"
    )


_SECTIONS: dict[str, Callable[[Any], Iterator[str]]] = {
    "model": _model,
    "parameters": _parameters,
    "data": _data,
    "pair": _pair,
    "prior": _prior,
    "losses": _losses,
    "schedule": _schedule,
    "memory": _memory,
    "time": _time,
    "sharding": _sharding,
}


def _findings(findings: Iterable[facts.Finding]) -> Iterator[str]:
    found = sorted(findings, key=lambda finding: _ORDER.index(finding.level))
    for finding in found:
        place = f"{finding.where}: {finding.key}: " if finding.level != "ok" else f"{finding.key}: "
        if finding.what.startswith(finding.where) or not finding.key:
            place = ""  # it says so itself
        text = f"{place}{finding.what}{f'. {_capital(finding.remedy)}' if finding.remedy else ''}"
        for number, line in enumerate(text.splitlines()):
            start = f"  {finding.level:<8}" if number == 0 else " " * 10
            yield from _wrapped(line, start)


# -- words ----------------------------------------------------------------------------------------------------------


def _prose(text: str) -> Iterator[str]:
    for line in text.splitlines():
        yield from _wrapped(line, "  ")


def _wrapped(text: str, start: str) -> Iterator[str]:
    yield from textwrap.wrap(
        text,
        WIDTH,
        initial_indent=start,
        subsequent_indent=" " * len(start),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _quoted(text: str) -> Iterator[str]:
    """`text` in lines of its own, by the columns that its characters take; broken behind a blank where there is one."""
    text = _visible(text)
    if len(text) > _SHOWN:
        head, tail = text[: _SHOWN * 2 // 3], text[-_SHOWN // 3 :]
        text = f"{head}\n[... {len(text) - len(head) - len(tail):,} more characters ...]\n{tail}"
    for paragraph in text.split("\n"):
        line = ""
        for character in paragraph:
            if cell_len(line + character) > WIDTH - 4:
                place = line.rfind(" ") + 1
                place = place if place > len(line) // 2 else len(line)
                yield f"    {line[:place]}"
                line = line[place:]
            line += character
        yield f"    {line}"


def _visible(text: str) -> str:
    """`text` without what could steer a terminal; joiners are letters of some scripts."""
    return "".join(c if c.isprintable() or c in "\n‌‍" else repr(c)[1:-1] for c in text)


def _ranges(layers: Sequence[int]) -> str:
    """`[3, 4, 5, 9]` as `3-5, 9`."""
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][1] + 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _capital(text: str) -> str:
    # A remedy may begin with a key, which stays as it is written.
    first = text.split(maxsplit=1)[0]
    return text if "." in first or "_" in first or "-" in first else text[:1].upper() + text[1:]


def _short_type(dtype: str) -> str:
    return dtype.replace("bfloat", "bf").replace("float", "fp")


def _bytes(size: float) -> str:
    unit = "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 999.5:
            break
        size, unit = size / 1000, larger
    digits = 0 if size >= 99.95 or unit == "B" else 1 if size >= 9.995 else 2
    return f"{size:,.{digits}f} {unit}"


def _seconds(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"
