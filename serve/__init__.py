"""Answers images over HTTP and chunks over handles, from the same versioned detector replicas.

client -> HAProxy -> replica: http_api -> engine (decode, prepare in threads) -> online lane -+
Ray Data -> handle -> replica: detect_chunk(uint8 tensors) ---------------------> bulk lane --+-> session

`app.py` and `replica.py` are the only files that know Ray.
"""
