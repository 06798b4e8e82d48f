"""The Open Inference Protocol v2 (KServe, Triton) over the same engine as /v1; knows no Ray.

body --bodies--> bytes --request--> Asked: header and binary parts --inference--> Outcome: arrays by name
Outcome --response--> JSON, or JSON and binary. `tensors` is the codec of both ways; `metadata`,
`repository` and `statistics` answer the rest; the routes are in `serve/routes/v2.py`.
"""
