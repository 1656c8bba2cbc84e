"""Mistakes that a trainer of this kind has made somewhere, or would make without a sign, and the tests that see each.

A mutation is one replacement in one file of `src/innerlingua`. `test_mutations.py` holds that every text is still
there, and (slow) that the named tests pass without the mutation and fail with it.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MUTATIONS", "Mutation"]


@dataclass(frozen=True)
class Mutation:
    """A mistake: what it is called, where, what stands there, what it makes of it, and which tests must fail.

    `tests` is a file below `tests/`, `chosen` pytest's `-k` expression.
    """

    name: str
    file: str
    old: str
    new: str
    tests: str
    chosen: str


MUTATIONS: tuple[Mutation, ...] = (
    # -- what is captured and pooled
    Mutation(
        "padding is pooled",
        "anatomy/segments.py",
        'mask = (_fitted(mask, shape, "mask") != 0).to(tokens.device)',
        "mask = torch.ones(shape, dtype=torch.bool, device=tokens.device)",
        "anatomy/test_capture.py",
        "padding_side and qwen3",
    ),
    Mutation(
        "the mean is taken over the width of the batch",
        "anatomy/segments.py",
        "(mask / counts_B[:, None])",
        "(mask / mask.shape[1])",
        "anatomy/test_capture.py",
        "padding_side and qwen3",
    ),
    Mutation(
        "segments are summed, not averaged",
        "anatomy/segments.py",
        "weight_BKT[rows_N, slot_S[ids_N], token_N] = 1.0 / counts_S[ids_N]",
        "weight_BKT[rows_N, slot_S[ids_N], token_N] = 1.0",
        "anatomy/test_capture.py",
        "segments_are_the_means",
    ),
    Mutation(
        "segments are put into the order of rows",
        "anatomy/segments.py",
        "return weight_BKT, row_S * slots + slot_S",
        "return weight_BKT, (row_S * slots + slot_S).sort().values",
        "anatomy/test_capture.py",
        "segments_are_the_means",
    ),
    Mutation(
        "layers that are recomputed count twice",
        "anatomy/hooks.py",
        "return bool(torch._C._current_graph_task_id() != -1)",
        "return False",
        "anatomy/test_capture_gradient.py",
        "(recomputation_runs or backward_inside) and (qwen3 or backward_inside)",
    ),
    Mutation(
        "a recomputed layer does not repeat the pooling",
        "anatomy/hooks.py",
        "                self._pool(layer, score, logits, recomputed)\n",
        "                pass\n",
        "anatomy/test_capture_gradient.py",
        "checkpointing_gives_the_same_gradient and qwen3",
    ),
    Mutation(
        "captured routing carries no gradient",
        "anatomy/hooks.py",
        "        if self._detach:\n",
        "        if True:\n",
        "anatomy/test_capture_gradient.py",
        "gradient_is_that_of_the_logits and qwen3",
    ),
    Mutation(
        "hooks stay on the model",
        "anatomy/hooks.py",
        "            for handle in self._handles:\n                handle.remove()\n",
        "",
        "anatomy/test_capture.py",
        "hooks_go_with_the_context",
    ),
    Mutation(
        "softmax in the type of the logits",
        "anatomy/scores.py",
        "return torch.softmax(logits, dim=-1, dtype=torch.float32)",
        "return torch.softmax(logits, dim=-1)",
        "anatomy/test_scores.py",
        "float32",
    ),
    Mutation(
        "sigmoid scores are not normalised",
        "anatomy/scores.py",
        'return scores if score == "softmax" else scores / scores.sum(dim=-1, keepdim=True)',
        "return scores",
        "anatomy/test_scores.py",
        "sigmoid",
    ),
    # -- the divergence and the term
    Mutation(
        "divergence in bits",
        "routing/divergence.py",
        "return p * (p.clamp(min=tiny).log() - mean.clamp(min=tiny).log())",
        "return p * (p.clamp(min=tiny).log2() - mean.clamp(min=tiny).log2())",
        "routing/test_divergence.py",
        "closed_forms",
    ),
    Mutation(
        "divergence without its half",
        "routing/divergence.py",
        "return (_relative(p, mean) + _relative(q, mean)).sum(dim=-1) / 2",
        "return (_relative(p, mean) + _relative(q, mean)).sum(dim=-1)",
        "routing/test_divergence.py",
        "closed_forms",
    ),
    Mutation(
        "divergence one way only",
        "routing/divergence.py",
        "return (_relative(p, mean) + _relative(q, mean)).sum(dim=-1) / 2",
        "return _relative(p, mean).sum(dim=-1)",
        "routing/test_divergence.py",
        "symmetric",
    ),
    Mutation(
        "layers are summed, not averaged",
        "routing/alignment.py",
        "return js_unchecked(anchor, target).mean(dim=-1).sum(), pairs",
        "return js_unchecked(anchor, target).sum(dim=-1).sum(), pairs",
        "routing/test_alignment.py",
        "plain_recomputation",
    ),
    Mutation(
        "layers of the prior are taken by position",
        "routing/alignment.py",
        'batch["prior"] = prior[:, [self.prior.layers.index(layer) for layer in self.layers]]',
        'batch["prior"] = prior[:, : len(self.layers)]',
        "routing/test_alignment.py",
        "layers_may_be_fewer",
    ),
    Mutation(
        "anchor and target are swapped in the live pass",
        "routing/alignment.py",
        'rows[position]["anchor_input_ids"],\n'
        '                    segment_ids(rows[position], self.pooling, prefix="anchor_"),\n',
        'rows[position]["input_ids"],\n                    segment_ids(rows[position], self.pooling),\n',
        "routing/test_alignment.py",
        "live_anchor_is_the_prior",
    ),
    Mutation(
        "the live anchor is pulled towards the target",
        "routing/alignment.py",
        "keep_graph = self.anchor_gradient and self.weight > 0 and torch.is_grad_enabled()",
        "keep_graph = self.weight > 0 and torch.is_grad_enabled()",
        "routing/test_alignment.py",
        "anchor_gradient_changes",
    ),
    Mutation(
        "the live pass runs in training mode",
        "routing/alignment.py",
        "            evaluation_mode(tap.layers[0].backbone),\n            torch.set_grad_enabled(keep_graph),\n",
        "            torch.set_grad_enabled(keep_graph),\n",
        "trust/test_mutations_gaps.py",
        "without_dropout",
    ),
    Mutation(
        "the prior is computed in training mode",
        "routing/pooling.py",
        "        evaluation_mode(backbone),\n    ):",
        "    ):",
        "routing/test_prior.py",
        "training_mode",
    ),
    Mutation(
        "reentrant checkpointing is let through",
        "routing/alignment.py",
        "if self.weight > 0 and torch.is_grad_enabled() and not pooled.requires_grad:",
        "if False:",
        "routing/test_alignment.py",
        "reentrant_checkpointing_is_named",
    ),
    # -- the prior and what it was made from
    Mutation(
        "a prior of other weights is taken",
        "routing/alignment.py",
        "    if moved or not compared:\n",
        "    if False:\n",
        "training/test_stale_prior.py",
        "other_weights",
    ),
    Mutation(
        "a prior of other anchor texts is taken",
        "routing/alignment.py",
        'if not prior.holds(name, row["anchor_input_ids"], segment_ids(row, self.pooling, prefix="anchor_")):',
        "if False:",
        "training/test_stale_prior.py",
        "other_anchor_texts",
    ),
    Mutation(
        "a stale prior is not refused",
        "routing/prior.py",
        "        if found:\n            where =",
        "        if False:\n            where =",
        "routing/test_prior.py",
        "changed_text or all_that_differs",
    ),
    Mutation(
        "the tokenizer is left out of the fingerprint",
        "routing/prior.py",
        "current: dict[str, Any] = dict(tokenizer_fingerprint(tokenizer))",
        "current: dict[str, Any] = {}",
        "routing/test_prior.py",
        "changed_tokenizer",
    ),
    Mutation(
        "the chat template is left out of the fingerprint",
        "routing/fingerprint.py",
        '"template": hash_text(json.dumps(tokenizer.chat_template, sort_keys=True)),',
        '"template": "",',
        "routing/test_prior.py",
        "changed_template",
    ),
    Mutation(
        "weights are told by their shape alone",
        "routing/fingerprint.py",
        "{list(tensor.shape)} {xxhash.xxh3_64_hexdigest(payload)}",
        "{list(tensor.shape)}",
        "routing/test_prior.py",
        "another_seed",
    ),
    Mutation(
        "halves of two priors pass for one",
        "routing/prior_files.py",
        "digest != hash_text(payload)",
        "digest is None",
        "routing/test_prior.py",
        "halves_of_two",
    ),
    # -- the step
    Mutation(
        "a mean of means: pairs of the micro-batch, not of the step",
        "training/trainer.py",
        "(self._gradient_share(num_items_in_batch) / pairs_of_step)",
        "(self._gradient_share(num_items_in_batch) / max(pairs, 1))",
        "training/test_normalisation.py",
        "each_split and prior and (4-x-2 or 3-x-3 or x)",
    ),
    Mutation(
        "only the last micro-batch is counted",
        "training/trainer.py",
        "counts += torch.tensor(",
        "counts = torch.tensor(",
        "training/test_normalisation.py",
        "each_split and prior",
    ),
    Mutation(
        "the term is divided by the accumulation steps twice",
        "training/trainer.py",
        "return float(ranks if normalised else ranks * self.current_gradient_accumulation_steps)",
        "return float(ranks)",
        "training/test_normalisation.py",
        "mean_of_each_micro_batch",
    ),
    Mutation(
        "the term is divided by the ranks twice",
        "training/trainer.py",
        "        ranks = self.accelerator.num_processes\n",
        "        ranks = 1\n",
        "training/test_two_processes.py",
        "two_processes_equal_one",
    ),
    Mutation(
        "a prior loses its digits under DeepSpeed's cast",
        "training/collate.py",
        "bits = _BITS.get(value.dtype)",
        "bits = None",
        "training/test_collate.py",
        "cast_of_deepspeed",
    ),
    Mutation(
        "a term that is NaN is passed over",
        "training/trainer.py",
        "            if not math.isfinite(mean):\n",
        "            if False:\n",
        "training/test_terms.py",
        "not_finite",
    ),
    Mutation(
        "a loss that is NaN is passed over",
        "training/divergence.py",
        'if not math.isfinite(value):\n        raise DivergenceError(f"the training has diverged: the loss is {value}',
        'if False:\n        raise DivergenceError(f"the training has diverged: the loss is {value}',
        "trust/test_faults_divergence.py",
        "loss_that_is_nan",
    ),
    Mutation(
        "experts that a resume did not bring back are trained on",
        "training/resume.py",
        "if matrices and len(kept) < len(before):",
        "if False:",
        "training/test_resume_guard.py",
        "on_the_base_model",
    ),
    Mutation(
        "a checkpoint without the optimiser's state is resumed",
        "recipe/checkpoints.py",
        """for wanted, words in ((_WEIGHTS, "the weights are"), (_OPTIMIZER, "the optimiser's state is")):""",
        """for wanted, words in ((_WEIGHTS, "the weights are"),):""",
        "recipe/test_checkpoints.py",
        "missing_is_a_flaw",
    ),
    Mutation(
        "frozen experts are not noticed",
        "anatomy/parts.py",
        "    if frozen or stray:\n",
        "    if stray:\n",
        "anatomy/test_parts.py",
        "frozen_parameter or no_expert_of_phimoe",
    ),
    # -- data and security
    Mutation(
        "overlong rows go through",
        "data/tokenize.py",
        "if self._max_length is not None and max(lengths) > self._max_length:",
        "if False:",
        "data/test_tokenize.py",
        "overlong_error",
    ),
    Mutation(
        "the limit of length looks at the target alone",
        "data/tokenize.py",
        "max(lengths) > self._max_length",
        "lengths[0] > self._max_length",
        "data/test_tokenize.py",
        "dropped_whole",
    ),
    Mutation(
        "Holm's correction does nothing",
        "evaluation/correction.py",
        '"holm": holm,',
        '"holm": uncorrected,',
        "trust/test_mutations_gaps.py",
        "holms_correction",
    ),
    Mutation(
        "pickled weights are taken",
        "weights.py",
        "    if pickled:\n",
        "    if False:\n",
        "trust/test_security_code.py",
        "pickled_adapter",
    ),
    Mutation(
        "code in a checkpoint's state is not looked for",
        "recipe/resume_state.py",
        "        if wanted:\n",
        "        if False:\n",
        "trust/test_security_code.py",
        "planted_state and optimizer",
    ),
    Mutation(
        "names of benchmarks may be paths",
        "evaluation/store.py",
        "        if not _NAME.match(name):\n",
        "        if False:\n",
        "trust/test_security_paths.py",
        "only_when_plain",
    ),
    Mutation(
        "keys are repeated in messages",
        "data/work/keys.py",
        "text = text.replace(written, _MASK)",
        "pass",
        "data/test_work.py",
        "a_key_is_sent",
    ),
)
