"""Answers images over HTTP and chunks over handles, from the same versioned detector replicas.

client -> HAProxy -> replica: http_api -> engine -> online lane -> a worker: decode, fit -+
Ray Data -> handle -> replica: detect_chunk(uint8 tensors) -> bulk lane -> a worker ------+-> session

Workers that fill batches, or feed a GPU, find the images of requests decoded by other threads.

`app.py` and `replica.py` are the only files that know Ray.
"""

from resight import require_own_packages

require_own_packages()
