"""The Open Inference Protocol v2 (KServe, Triton) over the same engine as /v1. Does not import Ray.

body --bodies--> bytes --request--> `ParsedRequest`: header and binary parts --inference--> ModelOutputs: arrays by name
Outcome --response--> JSON, or JSON and binary. `tensors` encodes and decodes; `metadata`, `repository` and
`statistics` serve the other routes. The routes are in `serve/api/v2/routes.py`.
"""
