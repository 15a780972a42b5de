"""The HTTP application: predictions on the short way, everything else through FastAPI.

`Application` is what uvicorn runs. It counts the requests in flight and hands `:predict` calls to
`predict.py`; status, metadata and health are FastAPI routes, with TF Serving's answers for unknown
paths and verbs.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import FastAPI, Path, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from ..export.bundle import Signature, TensorSpec
from .element_types import enum_name
from .errors import ServingError, Status, error_body, invalid
from .openapi import ERROR, add_predict
from .paths import canonical, malformed, parse_call, version_number
from .predict import Limits, Predict, Receive, Scope, Send, send_error
from .repository import Repository, Servable, VersionStatus


class Application:
    """The ASGI application over a repository. `draining` makes it tell everybody to go away."""

    def __init__(self, repository: Repository, limits: Limits):
        self.repository = repository
        self.limits = limits
        self.draining = False
        self.in_flight: set[object] = set()
        """A token for every request that has begun and is not answered yet."""
        self._predict = Predict(repository, self.limits)
        self._routes = build_routes(self)

    @property
    def ready(self) -> bool:
        """Whether a load balancer should send requests here."""
        return self.repository.ready and not self.draining

    @property
    def held_bytes(self) -> int:
        """Bytes of request bodies in memory."""
        return self._predict.held_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        assert scope["type"] == "http", "lifespan and websockets are off"
        token = object()
        self.in_flight.add(token)
        try:
            await self._dispatch(scope, receive, _closing(send) if self.draining else send)
        except ServingError as error:
            await send_error(error, receive, send)
        finally:
            self.in_flight.discard(token)

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "POST":
            call = parse_call(scope["raw_path"].decode("ascii"))
            if call is not None:
                await self._predict(call, scope, receive, send)
                return
        scope["path"] = canonical(scope["path"])
        await self._routes(scope, receive, send)


def _closing(send: Send) -> Send:
    """`send` that ends the connection with this response."""

    async def closing(message: Any) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
        await send(message)

    return closing


# -- FastAPI --------------------------------------------------------------------------------------


class VersionError(BaseModel):
    """The error of a version; `OK` when there is none."""

    error_code: str
    error_message: str


class ModelVersionStatus(BaseModel):
    """The state of one version. The number is a string, as protobuf writes 64-bit integers."""

    version: str
    state: str
    status: VersionError


class ModelStatus(BaseModel):
    """TF Serving's GetModelStatusResponse."""

    model_version_status: list[ModelVersionStatus]


class Health(BaseModel):
    """What a probe gets to see."""

    status: str


Label = Annotated[str, Path(description="A version's label; there are none yet", pattern="^[^:]+$")]
Model = Annotated[str, Path(description="The name of a model", pattern="^[^:]+$")]
Version = Annotated[int, Path(description="The number of a version", ge=0)]


def build_routes(application: Application) -> FastAPI:
    """The FastAPI part. Its schema is at /openapi.json; pages that need a CDN are off."""
    app = FastAPI(
        title="tfn model server",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses={"4XX": ERROR, "5XX": ERROR},
    )
    describe = app.openapi
    app.openapi = lambda: add_predict(describe())  # type: ignore[method-assign]
    repository = application.repository

    def status(model: str, version: int | None = None, label: str | None = None) -> ModelStatus:
        states = repository.status(model, version_in_range(version), label)
        return ModelStatus(model_version_status=[_status(state) for state in states])

    def metadata(
        model: str, version: int | None = None, label: str | None = None
    ) -> dict[str, Any]:
        return _metadata(repository.servable(model, version_in_range(version), label))

    @app.get("/")
    def models() -> dict[str, Any]:
        """The models of this server and where to ask about them."""
        return {"models": {name: f"/v1/models/{name}" for name in repository.names}}

    @app.get("/v1/models")
    def no_model() -> None:
        """An error, as in TF Serving: a request names a model."""
        raise invalid("Missing model name in request.")

    @app.get("/v1/models/{model}")
    def model_status(model: Model) -> ModelStatus:
        """The states of all versions of a model."""
        return status(model)

    @app.get("/v1/models/{model}/versions/{version:int}")
    def version_status(model: Model, version: Version) -> ModelStatus:
        """The state of one version."""
        return status(model, version)

    @app.get("/v1/models/{model}/labels/{label}")
    def label_status(model: Model, label: Label) -> ModelStatus:
        """The state of the version with a label."""
        return status(model, label=label)

    @app.get("/v1/models/{model}/metadata")
    def model_metadata(model: Model) -> dict[str, Any]:
        """The signatures of the version that is served."""
        return metadata(model)

    @app.get("/v1/models/{model}/versions/{version:int}/metadata")
    def version_metadata(model: Model, version: Version) -> dict[str, Any]:
        """The signatures of one version."""
        return metadata(model, version)

    @app.get("/v1/models/{model}/labels/{label}/metadata")
    def label_metadata(model: Model, label: Label) -> dict[str, Any]:
        """The signatures of the version with a label."""
        return metadata(model, label=label)

    @app.get("/v1/health/live")
    @app.get("/healthz")
    def live() -> Health:
        """200 as long as the process answers at all."""
        return Health(status="live")

    @app.get("/v1/health/ready")
    def ready() -> Health:
        """200 when every model can answer, 503 before that and while the server shuts down."""
        if application.draining:
            raise ServingError(Status.UNAVAILABLE, "The server is shutting down")
        if not application.ready:
            missing = [name for name in repository.names if repository.serving(name) is None]
            raise ServingError(Status.UNAVAILABLE, f"No version is loaded of: {', '.join(missing)}")
        return Health(status="ready")

    @app.exception_handler(ServingError)
    def serving_error(request: Request, error: ServingError) -> Response:
        return _error(error)

    @app.exception_handler(RequestValidationError)
    def validation_error(request: Request, error: RequestValidationError) -> Response:
        return _error(malformed(request.method, request.url.path))

    @app.exception_handler(HTTPException)
    def http_error(request: Request, error: HTTPException) -> Response:
        path = request.url.path
        if path.lower().startswith("/v1/"):
            return _error(malformed(request.method, path))
        body = error_body(f"{error.detail}: {request.method} {path}")
        return Response(body, error.status_code, media_type="application/json")

    return app


def version_in_range(version: int | None) -> int | None:
    """`version`, or TF Serving's error when 64 bits do not hold it."""
    return None if version is None else version_number(str(version))


def _error(error: ServingError) -> Response:
    headers = {"Retry-After": "1"} if error.status is Status.UNAVAILABLE else None
    return Response(
        error_body(error.message), error.status.http, headers, media_type="application/json"
    )


def _status(state: VersionStatus) -> ModelVersionStatus:
    return ModelVersionStatus(
        version=str(state.version),
        state=state.state.name,
        status=VersionError(error_code=state.error_code, error_message=state.error_message),
    )


# -- metadata, in the JSON of TF Serving's GetModelMetadataResponse -------------------------------


def _metadata(servable: Servable) -> dict[str, Any]:
    signatures = {name: _signature(s) for name, s in servable.bundle.signatures.items()}
    return {
        "model_spec": {
            "name": servable.name,
            "signature_name": "",
            "version": str(servable.version),
        },
        "metadata": {"signature_def": {"signature_def": signatures}},
    }


def _signature(signature: Signature) -> dict[str, Any]:
    return {
        "inputs": {spec.name: _tensor(spec, signature) for spec in signature.inputs},
        "outputs": {spec.name: _tensor(spec, signature) for spec in signature.outputs},
        "method_name": "tensorflow/serving/predict",
        "defaults": {},
    }


def _tensor(spec: TensorSpec, signature: Signature) -> dict[str, Any]:
    sizes = [str(d) if isinstance(d, int) else "-1" for d in spec.shape]
    return {
        "dtype": enum_name(spec.dtype),
        "tensor_shape": {
            "dim": [{"size": size, "name": ""} for size in sizes],
            "unknown_rank": False,
        },
        "name": f"{signature.name}_{spec.name}:0",
    }
