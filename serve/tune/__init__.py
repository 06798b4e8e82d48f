"""Measure which batch, wait, threads, workers and replicas suit a model on this machine (docs/operate/tune.md).

plan.prepare -> sweep.run, with the processes of bench -> results.TuningResult -> report, apply
"""
