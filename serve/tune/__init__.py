"""Measure which batch, wait, threads, workers and replicas suit a model on this machine (docs/operate/tune.md).

plan.prepare -> bench.run -> results.TuningResult -> report
"""
