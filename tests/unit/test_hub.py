"""A hub's temporary failure is distinguished from a refusal."""

import datasets
import httpx2
import huggingface_hub
import pytest
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from preflow.config import Recipe
from preflow.data.files.raw_rows import DataSource
from preflow.data.files.reader import read_rows
from preflow.data.files.sources import resolve_sources
from preflow.errors import DataDownloadError, DataFileError, ModelDownloadError, ModelNotFoundError
from preflow.hub import may_pass
from preflow.models.resolve import resolve_model
from preflow.observer import Silent

NO_ROUTE = httpx2.ConnectError("no route")


def answered(status: int, kind: type[HfHubHTTPError] = HfHubHTTPError) -> HfHubHTTPError:
    request = httpx2.Request("GET", "https://hub.example/api/models/owner/name")
    return kind("the hub's words", response=httpx2.Response(status, request=request))


def nothing_cached(cause: Exception) -> LocalEntryNotFoundError:
    error = LocalEntryNotFoundError("nothing in the cache")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (NO_ROUTE, True),
        (httpx2.ReadTimeout("slow"), True),
        (ConnectionError("couldn't reach the hub"), True),
        (answered(503), True),
        (answered(429), True),
        (nothing_cached(NO_ROUTE), True),
        (nothing_cached(answered(502)), True),
        (answered(404, RepositoryNotFoundError), False),
        (answered(401), False),
        (answered(403), False),
        (nothing_cached(OfflineModeIsEnabled("switched off")), False),
        (LocalEntryNotFoundError("nothing in the cache"), False),
        (OfflineModeIsEnabled("switched off"), False),
        (HFValidationError("not a name"), False),
        (ValueError("no such split"), False),
    ],
)
def test_what_may_pass(error: Exception, passes: bool) -> None:
    assert may_pass(error) is passes


@pytest.mark.parametrize(
    ("error", "kind"),
    [(nothing_cached(NO_ROUTE), ModelDownloadError), (answered(404, RepositoryNotFoundError), ModelNotFoundError)],
)
def test_a_hub_model(monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[Exception]) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    recipe = Recipe.model_validate({"strategy": "sft", "model_name": "owner/name", "dataset": "-"})
    with pytest.raises(ModelNotFoundError, match="owner/name") as caught:
        resolve_model(recipe, Silent())
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("error", "kind"), [(ConnectionError("couldn't reach"), DataDownloadError), (ValueError("no split"), DataFileError)]
)
def test_a_hub_data_set(monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[Exception]) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(DataFileError, match="owner/set") as caught:
        list(read_rows(DataSource(path="owner/set:train@abc", digest="")))
    assert type(caught.value) is kind


def test_the_hubs_own_client_that_finds_no_network_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """``huggingface_hub`` speaks httpx2, whose errors are no errors of httpx."""

    def offline(self: object, name: str, **_: object) -> None:
        raise NO_ROUTE

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", offline)
    with pytest.raises(DataFileError, match="no route"):
        resolve_sources(["owner/set"])
