"""The pipeline with the real data gate and fakes behind it; prints what Prefect's server then holds as tables."""

import json

from tests.integration.fakes import install


def print_tables() -> None:
    """Every table of the embedded server, as one JSON object by key."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        found = client.request("POST", "/artifacts/filter", json={"limit": 200}).json()
    tables = [artifact for artifact in found if artifact["type"] == "table"]
    print(json.dumps({table["key"]: [json.loads(table["data"]), table["description"]] for table in tables}))


if __name__ == "__main__":
    install(real=frozenset({"expectations.gate"}))
    from flows.running.terminal import run_from_terminal
    from flows.two_stage import two_stage

    def pipeline(recipe: str, overrides: dict[str, object]) -> object:
        """The flow, and then what it left in the server, while the server still runs."""
        try:
            return two_stage(recipe, overrides)
        finally:
            print_tables()

    run_from_terminal(pipeline)  # type: ignore[arg-type]
