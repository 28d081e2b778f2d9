"""Names and schedules of deployments."""

from datetime import timedelta
from unittest.mock import create_autospec

import httpx
import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

from flows.running.deployments import _require_pool, deployment_name, schedule
from preflow.errors import ConfigError


def test_a_schedule_is_a_cron_line_or_an_interval() -> None:
    assert schedule(None, None) is None
    assert getattr(schedule(None, "6h"), "interval", None) == timedelta(hours=6)
    assert getattr(schedule("0 2 * * *", None), "cron", None) == "0 2 * * *"


@pytest.mark.parametrize(
    ("cron", "every", "message"),
    [("0 2 * * *", "6h", "one of them"), (None, "6 hours", "--every 6h"), (None, "0h", "--every"), ("x", None, "five")],
)
def test_a_schedule_that_cannot_be_read_is_refused(cron: str | None, every: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        schedule(cron, every)


def test_a_deployment_is_named_after_its_recipe() -> None:
    assert deployment_name("My recipe / v2") == "My-recipe-v2"


def test_a_pool_that_a_worker_makes_meanwhile_is_taken() -> None:
    """The worker's answer comes between the look and the making."""
    answer = httpx.Response(409, request=httpx.Request("POST", "http://127.0.0.1/api/work_pools/"))
    client = create_autospec(SyncPrefectClient, instance=True)
    client.read_work_pool.side_effect = ObjectNotFound(Exception())
    client.create_work_pool.side_effect = ObjectAlreadyExists(
        httpx.HTTPStatusError("", request=answer.request, response=answer)
    )
    _require_pool(client, "gpu")
    (made,) = client.create_work_pool.call_args.args
    assert (made.name, made.type) == ("gpu", "process")
