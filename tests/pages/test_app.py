"""The applications of a cluster that use the home of its head node."""

from __future__ import annotations

import pytest

import batch.app
import pages.app
from batch.app import RunsArgs


@pytest.mark.parametrize("application", [batch.app, pages.app])
def test_applications_with_a_home_run_on_the_head_node(application: object) -> None:
    deployment = application.build(RunsArgs())._bound_deployment  # type: ignore[attr-defined]
    assert list(deployment.ray_actor_options["resources"]) == ["node:__internal_head__"]
