"""Moving traffic from one model version to another without dropping or mixing an answer.

`<models>/<name>/aliases.json` is what is wanted, `.rollout/state.json` beside it what serves. One
`Rollout` actor in the cluster reconciles them (`steps.py`); every step is recorded (`events.py`).
"""
