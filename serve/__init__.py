"""Serve models: images over HTTP and chunks of images over Ray handles, from the same replicas.

client -> HAProxy -> replica: serve/api -> engine -> online lane -> a worker: decode, fit -+
Ray Data -> handle -> replica: detect_chunk(uint8 tensors) -> bulk lane -> a worker ------+-> session

Separate threads decode the images of requests if the workers fill batches or feed a GPU.
"""

from resight import require_own_packages

require_own_packages()
