"""The HTTP service: lookups over FastAPI."""

from featurestore.server.app import create_app
from featurestore.server.run import serve

__all__ = ["create_app", "serve"]
