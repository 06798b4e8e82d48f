"""Move traffic from one model version to another without dropping a request or mixing versions in a response.

`<models>/<name>/aliases.json` is the wanted state, `<models>/<name>/.rollout/state.json` what serves. One
`RolloutOperator` reconciles them (`steps.py`); every operation is recorded (`events.py`).
"""
