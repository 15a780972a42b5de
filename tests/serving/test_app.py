"""Status, metadata, health, and the answers to what no route takes."""

import httpx
import pytest

AVAILABLE = {
    "model_version_status": [
        {
            "version": "1",
            "state": "AVAILABLE",
            "status": {"error_code": "OK", "error_message": ""},
        }
    ]
}


@pytest.mark.parametrize(
    "path",
    ["/v1/models/linear", "/v1/models/linear/versions/1", "/V1/MODELS/linear/VERSIONS/1"],
)
def test_status(client, path):
    answer = client.get(path)
    assert (answer.status_code, answer.json()) == (200, AVAILABLE)
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("path", ["/v1/models/linear", "/v1/models/linear/versions/1"])
def test_metadata(client, path):
    answer = client.get(path + "/metadata")
    assert answer.status_code == 200
    document = answer.json()
    assert document["model_spec"] == {"name": "linear", "signature_name": "", "version": "1"}
    signatures = document["metadata"]["signature_def"]["signature_def"]
    assert sorted(signatures) == ["positive", "serving_default", "total", "two"]

    def tensor(dtype, sizes, name):
        dims = [{"size": size, "name": ""} for size in sizes]
        return {
            "dtype": dtype, "tensor_shape": {"dim": dims, "unknown_rank": False}, "name": name,
        }  # fmt: skip

    assert signatures["serving_default"] == {
        "inputs": {"x": tensor("DT_FLOAT", ["-1", "4"], "serving_default_x:0")},
        "outputs": {"y": tensor("DT_FLOAT", ["-1", "3"], "serving_default_y:0")},
        "method_name": "tensorflow/serving/predict",
        "defaults": {},
    }
    assert signatures["two"]["inputs"]["n"] == tensor("DT_INT32", ["-1"], "two_n:0")
    assert signatures["total"]["outputs"]["total"] == tensor("DT_FLOAT", [], "total_total:0")


@pytest.mark.parametrize(
    ("path", "code", "message"),
    [
        ("/v1/models", 400, "Missing model name in request."),
        ("/v1/models/nobody", 404, "Could not find any versions of model nobody"),
        ("/v1/models/linear/versions/9", 404, "Could not find version 9 of model linear"),
        ("/v1/models/linear/labels/a", 400, "Unrecognized servable version label: a"),
        ("/v1/models/linear/labels/a/metadata", 400, "Unrecognized servable version label: a"),
        ("/v1/models/nobody/metadata", 404, "Servable not found for request: Latest(nobody)"),
        (
            "/v1/models/linear/versions/9/metadata",
            404,
            "Servable not found for request: Specific(linear, 9)",
        ),
        (
            f"/v1/models/linear/versions/{2**63}",
            400,
            f"Failed to convert version: {2**63} to numeric.",
        ),
        ("/v1/foo", 400, "Malformed request: GET /v1/foo"),
        ("/v1/models/", 400, "Malformed request: GET /v1/models/"),
        ("/v1/models/linear/", 400, "Malformed request: GET /v1/models/linear/"),
        ("/v1/models/linear/more", 400, "Malformed request: GET /v1/models/linear/more"),
        ("/v1/models/linear:predict", 400, "Malformed request: GET /v1/models/linear:predict"),
        ("/v1/models/linear/versions/x", 400, "Malformed request: GET"),
        ("/v1/models/linear/versions/-1", 400, "Malformed request: GET"),
        ("/nothing", 404, "Not Found: GET /nothing"),
        ("/docs", 404, "Not Found: GET /docs"),
    ],
)
def test_a_wrong_path(client, path, code, message):
    answer = client.get(path)
    assert answer.status_code == code
    assert message in answer.json()["error"]
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("path", ["/v1/models/linear", "/v1/models/linear/metadata", "/v1/models"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_a_wrong_verb(client, method, path):
    answer = client.request(method, path)
    assert answer.status_code == 400
    assert answer.json() == {"error": f"Malformed request: {method} {path}"}


@pytest.mark.parametrize(
    ("path", "status"),
    [("/v1/health/live", "live"), ("/healthz", "live"), ("/v1/health/ready", "ready")],
)
def test_health(client, path, status):
    answer = client.get(path)
    assert (answer.status_code, answer.json()) == (200, {"status": status})


def test_the_first_page_names_the_models(client):
    assert client.get("/").json() == {"models": {"linear": "/v1/models/linear"}}


def test_the_schema_needs_no_other_host(client):
    schema = client.get("/openapi.json").json()
    paths = schema["paths"]
    assert "/v1/models/{model}/versions/{version}/metadata" in paths
    assert sorted(paths["/v1/models/{model}:predict"]) == ["post"]
    assert all("422" not in verb["responses"] for path in paths.values() for verb in path.values())


def test_a_damaged_model_beside_a_good_one(running, write, tmp_path):
    good = write().parent
    damaged = tmp_path / "damaged" / "1"
    damaged.mkdir(parents=True)
    (damaged / "bundle.json").write_text("{")
    with running({"good": good, "damaged": damaged.parent}) as server:
        (version,) = httpx.get(server.url + "/v1/models/damaged").json()["model_version_status"]
        assert version["state"] == "END"
        assert version["status"]["error_code"] == "DATA_LOSS"
        assert "bundle.json is damaged" in version["status"]["error_message"]
        answer = httpx.post(server.url + "/v1/models/damaged:predict", json={"instances": [1]})
        assert answer.status_code == 404
        ready = httpx.get(server.url + "/v1/health/ready")
        assert ready.status_code == 503
        assert ready.json() == {"error": "No version is loaded of: damaged"}
        answer = httpx.post(server.url + "/v1/models/good:predict", json={"instances": [[0] * 4]})
        assert answer.status_code == 200
