"""The HTTP service: lookups, pushes, manifests and the state of the serving log, over FastAPI."""

from featurestore.server.app import create_app
from featurestore.server.run import serve

__all__ = ["create_app", "serve"]
