"""Runs over the archive: plan first, stream through the served detectors, commit, close the accounts.

plan (media anti-join results) -> pipeline (Ray Data: read, decode, prepare, chunk, handle) -> commit
`reprocess.py` is the job that `ray job submit` runs; `submit.py` submits it and follows it.
"""

from resight import require_own_packages

require_own_packages()
