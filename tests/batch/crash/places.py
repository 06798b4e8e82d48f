"""A local folder and an S3 bucket behind the proxy, for the tests and for the benchmark."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import boto3

from tests.batch.crash.matrix import Place
from tests.batch.crash.s3_faults import faulty_s3
from tests.support.s3_server import CREDENTIALS


def local(scratch: Path) -> Place:
    return Place("local", scratch, str(scratch))


@contextlib.contextmanager
def s3(scratch: Path, endpoint: str) -> Iterator[Place]:
    """`endpoint`: of the server, which AWS_ENDPOINT_URL names in this process."""
    bucket = f"crash-{uuid4().hex}"
    boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket=bucket)
    orders = scratch / "orders.json"
    keys = {name: os.environ.get(name, value) for name, value in CREDENTIALS.items()}
    with faulty_s3(endpoint, orders) as url, faulty_s3(endpoint, orders, careless=True) as careless:
        yield Place(
            "s3", scratch, f"s3://{bucket}", keys | {"AWS_ENDPOINT_URL": url}, keys | {"AWS_ENDPOINT_URL": careless}
        )
