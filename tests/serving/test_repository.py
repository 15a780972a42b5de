"""Version directories, states of versions, and what happens when the disk changes."""

import os
import shutil
import time

import httpx
import numpy as np
import pytest

from tfn.compiler.errors import TfnError
from tfn.serving import Repository, ServingError, State, Status

X = np.ones((1, 4), np.float32)


@pytest.fixture
def repository(tmp_path):
    """The model `linear` of `tmp_path`, not looked at yet."""
    return Repository({"linear": tmp_path / "linear"})


def states(repository):
    return [(s.version, s.state.name, s.error_code) for s in repository.status("linear")]


def result(repository):
    return repository.servable("linear").run("serving_default", {"x": X})["y"]


def test_the_newest_version_is_served(repository, write, expected):
    write(1)
    write(10, scale=3)
    write(9, scale=2)
    repository.refresh()
    assert repository.servable("linear").version == 10
    np.testing.assert_allclose(result(repository), 3 * expected(X), rtol=1e-5)
    assert states(repository) == [(10, "AVAILABLE", "OK")]


@pytest.mark.parametrize("name", ["01", "0", "-1", "1.0", "v2", "2a", " 2", "٢", "1e3", str(2**63)])
def test_other_directories_are_no_versions(repository, write, tmp_path, name):
    good = write(1)
    shutil.copytree(good, tmp_path / "linear" / name)
    repository.refresh()
    assert states(repository) == [(1, "AVAILABLE", "OK")]


def test_a_file_is_no_version(repository, write, tmp_path):
    write(1)
    (tmp_path / "linear" / "2").write_text("")
    repository.refresh()
    assert states(repository) == [(1, "AVAILABLE", "OK")]


@pytest.mark.parametrize("file", ["bundle.json", "module.mlir", "weights.safetensors"])
@pytest.mark.parametrize("damage", ["truncated", "missing", "edited"])
def test_a_damaged_version_ends_and_the_older_one_serves(repository, write, file, damage):
    write(1)
    path = write(2) / file
    data = path.read_bytes()
    path.unlink()
    if damage == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "edited":
        path.write_bytes(data.replace(b"4", b"5"))
    repository.refresh()
    assert states(repository) == [(2, "END", "DATA_LOSS"), (1, "AVAILABLE", "OK")]
    assert repository.servable("linear").version == 1
    (damaged,) = repository.status("linear", 2)
    assert file in damaged.error_message
    with pytest.raises(ServingError, match=r"Specific\(linear, 2\)") as caught:
        repository.servable("linear", 2)
    assert caught.value.status is Status.NOT_FOUND


def test_a_new_version_replaces_the_old_one(repository, write, expected):
    write(1)
    repository.refresh()
    old = repository.servable("linear")
    write(2, scale=2)
    repository.refresh()
    assert states(repository) == [(2, "AVAILABLE", "OK"), (1, "END", "OK")]
    np.testing.assert_allclose(result(repository), 2 * expected(X), rtol=1e-5)
    # A request that began before goes on with the version it began with.
    np.testing.assert_allclose(
        old.run("serving_default", {"x": X})["y"], expected(X), rtol=1e-5
    )


def test_a_damaged_new_version_changes_nothing_until_it_is_repaired(repository, write, expected):
    write(1)
    repository.refresh()
    weights = write(2, scale=2) / "weights.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-8])
    repository.refresh()
    assert states(repository) == [(2, "END", "DATA_LOSS"), (1, "AVAILABLE", "OK")]
    repository.refresh()
    np.testing.assert_allclose(result(repository), expected(X), rtol=1e-5)
    weights.write_bytes(data)
    repository.refresh()
    assert states(repository) == [(2, "AVAILABLE", "OK"), (1, "END", "OK")]


def test_nothing_is_loaded_twice(repository, write):
    write(1)
    repository.refresh()
    before = repository.servable("linear")
    repository.refresh()
    assert repository.servable("linear") is before


def test_a_version_written_anew_is_loaded_anew(repository, write, expected):
    write(1)
    repository.refresh()
    write(1, scale=5, overwrite=True)
    repository.refresh()
    np.testing.assert_allclose(result(repository), 5 * expected(X), rtol=1e-5)
    (write(1, scale=6, overwrite=True) / "module.mlir").unlink()
    repository.refresh()
    np.testing.assert_allclose(result(repository), 5 * expected(X), rtol=1e-5)
    assert states(repository) == [(1, "AVAILABLE", "DATA_LOSS")]


def test_deleting_the_newest_version_goes_back_to_the_one_before(repository, write, expected):
    write(1)
    newest = write(2, scale=2)
    repository.refresh()
    shutil.rmtree(newest)
    repository.refresh()
    assert states(repository) == [(2, "END", "OK"), (1, "AVAILABLE", "OK")]
    np.testing.assert_allclose(result(repository), expected(X), rtol=1e-5)


def test_deleting_every_version_stops_nothing(repository, write, tmp_path, expected):
    write(1)
    repository.refresh()
    shutil.rmtree(tmp_path / "linear")
    repository.refresh()
    np.testing.assert_allclose(result(repository), expected(X), rtol=1e-5)


def test_a_model_without_versions(repository):
    assert not repository.ready
    repository.refresh()
    assert not repository.ready
    for ask in (repository.servable, repository.status):
        with pytest.raises(ServingError) as caught:
            ask("linear")
        assert caught.value.status is Status.NOT_FOUND


@pytest.mark.parametrize("name", ["", "a/b", "a:b", "a b", "a%20b", "a?b"])
def test_a_name_must_fit_into_a_url(tmp_path, name):
    with pytest.raises(TfnError, match="cannot be a model's name"):
        Repository({name: tmp_path})


def test_states_are_numbered_as_in_tf_serving():
    assert {s.name: s.value for s in State} == {
        "START": 10, "LOADING": 20, "AVAILABLE": 30, "UNLOADING": 40, "END": 50,
    }  # fmt: skip


@pytest.mark.slow
def test_versions_come_and_go_under_load(running, write, expected):
    """Every answer comes from one whole version, and none fails, while versions change."""
    factors = {1: 1.0}
    with running({"linear": write(1).parent}) as server, httpx.Client(timeout=60) as client:

        def ask() -> int:
            answer = client.post(
                server.url + "/v1/models/linear:predict", json={"instances": X.tolist()}
            )
            assert answer.status_code == 200
            ratio = np.asarray(answer.json()["predictions"]) / expected(X)
            (version,) = [v for v, f in factors.items() if np.allclose(ratio, f, rtol=1e-4)]
            return version

        for version in (2, 3, 4):
            factors[version] = float(version)
            path = write(version, scale=version)
            if version == 3:
                os.truncate(path / "weights.safetensors", 10)
            wanted = 2 if version == 3 else version
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                answered = ask()
                listed = server.repository.states("linear")[0]
                if answered == wanted and listed.version == version:
                    break
            assert answered == wanted
    ends = {s.version: s.error_code for s in server.repository.states("linear")}
    assert ends == {4: "OK", 3: "DATA_LOSS", 2: "OK", 1: "OK"}
