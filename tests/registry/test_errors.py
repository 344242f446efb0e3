from __future__ import annotations

import http.server
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from mlflow.exceptions import MlflowException, RestException
from mlflow.protos.databricks_pb2 import ErrorCode

from quantguard.core.errors import (
    ModelNotFoundError,
    RegistryDeniedError,
    RegistryError,
    RegistryUnreachableError,
    UsageError,
)
from quantguard.core.model import LocalDirectory, RegisteredVersion, VersionIdentity
from quantguard.registry.errors import ERROR_OF_CODE, redacted, translated
from quantguard.registry.mlflow_registry import MlflowRegistry

REF = RegisteredVersion("model", "1")


def test_every_error_code_of_mlflow_is_mapped() -> None:
    assert set(ERROR_OF_CODE) == set(ErrorCode.keys())


@pytest.mark.parametrize("code", sorted(ErrorCode.keys()))
def test_a_mapped_code_is_raised_as_its_error_with_its_cause(code: str) -> None:
    answer = {"error_code": code, "message": "what the server said"}
    foreign = RestException(answer)  # type: ignore[no-untyped-call]  # untyped in MLflow
    with pytest.raises(RegistryError, match=r"reading x: .*what the server said") as caught, translated("reading x"):
        raise foreign
    assert type(caught.value) is ERROR_OF_CODE[code]
    assert caught.value.__cause__ is foreign
    assert caught.value.remedy


def response_error(status: int) -> requests.HTTPError:
    response = requests.Response()
    response.status_code = status
    return requests.HTTPError("answer", response=response)


@pytest.mark.parametrize(
    ("foreign", "ours"),
    [
        (response_error(401), RegistryDeniedError),
        (response_error(403), RegistryDeniedError),
        (response_error(404), ModelNotFoundError),
        (response_error(500), RegistryError),
        (response_error(503), RegistryUnreachableError),
        (requests.ConnectionError("refused"), RegistryUnreachableError),
        (requests.Timeout("slow"), RegistryUnreachableError),
        (requests.exceptions.ChunkedEncodingError("cut"), RegistryError),
        (ModuleNotFoundError("No module named 'boto3'"), RegistryError),
        (OSError(28, "No space left on device"), RegistryError),
    ],
)
def test_what_lies_below_mlflow_is_translated_too(foreign: Exception, ours: type[RegistryError]) -> None:
    with pytest.raises(RegistryError) as caught, translated("fetching x"):
        raise foreign
    assert type(caught.value) is ours
    assert str(caught.value).startswith("fetching x: ")


def test_a_lost_connection_inside_mlflows_own_error_is_seen() -> None:
    foreign = MlflowException("API request failed with exception refused")
    foreign.__context__ = requests.ConnectionError("refused")  # MLflow raises it without a cause
    with pytest.raises(RegistryUnreachableError), translated("fetching x"):
        raise foreign


def test_no_password_is_repeated() -> None:
    assert redacted("no http://ann:secret@host/x nor s3://k:v@b") == "no http://host/x nor s3://b"
    assert redacted("no http://ann:s@cr@t@host/x, mail me@host") == "no http://host/x, mail me@host"
    with pytest.raises(RegistryUnreachableError) as caught:
        MlflowRegistry("http://ann:secret@127.0.0.1:1").identify(REF)
    assert "secret" not in str(caught.value)
    assert "127.0.0.1:1" in str(caught.value)
    assert "secret" not in repr(MlflowRegistry("http://ann:secret@127.0.0.1:1"))


@contextmanager
def silent_server() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_a_server_that_never_answers_is_given_up_at_once() -> None:
    with silent_server() as port:
        registry = MlflowRegistry(f"http://127.0.0.1:{port}", patience=0.5)
        started = time.monotonic()
        with pytest.raises(RegistryUnreachableError, match=f"no answer from http://127.0.0.1:{port}"):
            registry.identify(REF)
        assert time.monotonic() - started < 5


def test_no_operation_waits_for_a_server_that_is_not_there() -> None:
    registry = MlflowRegistry("http://127.0.0.1:1")
    started = time.monotonic()
    for _ in range(3):
        with pytest.raises(RegistryUnreachableError, match="no answer"):
            registry.identify(REF)
    assert time.monotonic() - started < 5


class Refusing(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps({"error_code": "PERMISSION_DENIED", "message": "not you"}).encode()
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_a_refusal_is_an_answer_and_is_told_as_one() -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            with pytest.raises(RegistryDeniedError, match="not you"):
                MlflowRegistry(f"http://127.0.0.1:{server.server_address[1]}").identify(REF)
        finally:
            server.shutdown()


def test_no_such_model_and_no_such_version(registry: MlflowRegistry, version: VersionIdentity) -> None:
    with pytest.raises(ModelNotFoundError, match="reading models:/nobody/1: "):
        registry.identify(RegisteredVersion("nobody", "1"))
    with pytest.raises(ModelNotFoundError, match=f"reading models:/{version.name}/99: "):
        registry.identify(RegisteredVersion(version.name, "99"))


@pytest.mark.parametrize("uri", ["sqlite:///mlflow.db", "databricks", "", "http://", "file:///x"])
def test_what_is_no_address_of_a_server_is_a_usage_error(uri: str) -> None:
    with pytest.raises(UsageError, match="not the address of an MLflow server"):
        MlflowRegistry(uri)


def test_a_directory_is_not_a_registered_version(registry: MlflowRegistry) -> None:
    with pytest.raises(UsageError, match="not a registered version"):
        registry.identify(LocalDirectory(Path("here")))
