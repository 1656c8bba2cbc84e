"""Evaluation: benchmarks on a model through lm-evaluation-harness, per-sample results on disk, statistics over them."""
