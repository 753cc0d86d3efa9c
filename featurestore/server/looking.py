"""The console for the user of this machine: a server on a loopback address where nothing can be changed."""

from __future__ import annotations

import socket
import webbrowser
from collections.abc import Callable

import uvicorn

from featurestore.console.addresses import ROOT
from featurestore.errors import ConfigError
from featurestore.server.app import create_app
from featurestore.server.run import options
from featurestore.store import FeatureStore

LOOPBACK = "127.0.0.1"


def look(store: FeatureStore, *, port: int, tell: Callable[[str], None], opens: bool = False) -> None:
    """Serve the console of a store on this machine alone until SIGTERM or SIGINT, to its users; nobody can push, materialize
    or apply there.

    port: 0 takes any that is free. tell: is given its address, once it answers. opens: show it in this machine's browser.
    ConfigError where the port is taken.
    """
    try:
        listener = socket.create_server((LOOPBACK, port))
    except OSError as error:
        raise ConfigError(
            f"Port {port} of this machine cannot be listened on ({error.strerror}); name another one, or 0 for any that is free: --port 0"
        ) from None
    with listener:
        app = create_app(store, authentication=False, only_look=True, console=True)
        url = f"http://{LOOPBACK}:{listener.getsockname()[1]}{ROOT}"
        tell(url)  # a browser that connects from now on is answered, as soon as the server is up
        if opens:
            webbrowser.open(url)
        config = uvicorn.Config(app, log_level="warning", **options(store.config.server))
        uvicorn.Server(config).run(sockets=[listener])
