"""The model server: bundles behind FastAPI, in TensorFlow Serving's REST format."""

from .app import Application
from .errors import ServingError, Status
from .predict import Limits
from .repository import Repository, Servable, State, VersionStatus
from .server import DEFAULT_PORT, Server, serve

__all__ = [
    "Application",
    "DEFAULT_PORT",
    "Limits",
    "Repository",
    "Servable",
    "Server",
    "ServingError",
    "State",
    "Status",
    "VersionStatus",
    "serve",
]
