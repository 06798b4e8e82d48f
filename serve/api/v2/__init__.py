"""The Open Inference Protocol v2 (KServe, Triton) over the same engine as /v1, without Ray.

body --bodies--> bytes --codec--> ParsedRequest --inference--> arrays by name --codec--> JSON, or JSON and binary
"""
