"""Prefect's server as Preflow starts it: Prefect's own application, which answers to names of this machine alone.

A page of the web whose name is made to mean 127.0.0.1 (DNS rebinding) has the server's own origin, so neither its
allowed origins nor its tokens keep the page out; the name that its requests carry does.
"""

from typing import Any

from flows.running.addresses import allowed_hosts


def create_app() -> Any:
    """The application for ``uvicorn --factory``: any other ``Host`` than ``allowed_hosts`` is answered with 400."""
    from prefect.server.api.server import create_app as prefects
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    app = prefects(final=True)  # as Prefect starts its own: no second one in this process
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=allowed_hosts(), www_redirect=False)
    return app
