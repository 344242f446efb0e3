"""MLflow's and requests' exceptions, translated into the tree of `core.errors`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from quantguard.core.errors import (
    ModelNotFoundError,
    RegistryDeniedError,
    RegistryError,
    RegistryUnreachableError,
)

_NOT_FOUND = (
    "NOT_FOUND RESOURCE_DOES_NOT_EXIST METASTORE_DOES_NOT_EXIST CATALOG_DOES_NOT_EXIST SCHEMA_DOES_NOT_EXIST "
    "TABLE_DOES_NOT_EXIST SHARE_DOES_NOT_EXIST"
)
_DENIED = (
    "PERMISSION_DENIED UNAUTHENTICATED CUSTOMER_UNAUTHORIZED PERMISSION_NOT_PROPAGATED DIRECTORY_PROTECTED "
    "PROVIDER_SHARE_NOT_ACCESSIBLE"
)
# ENDPOINT_NOT_FOUND is what MLflow makes of a 404 that no MLflow server wrote: another program answers there.
_UNREACHABLE = (
    "TEMPORARILY_UNAVAILABLE SERVICE_UNDER_MAINTENANCE WORKSPACE_TEMPORARILY_UNAVAILABLE DEADLINE_EXCEEDED "
    "DEPLOYMENT_TIMEOUT PROJECTS_OPERATION_TIMEOUT ENDPOINT_NOT_FOUND UNPARSEABLE_HTTP_ERROR"
)
_REFUSED = (
    "INTERNAL_ERROR IO_ERROR BAD_REQUEST CANCELLED RESOURCE_EXHAUSTED ABORTED ALREADY_EXISTS INVALID_PARAMETER_VALUE "
    "MALFORMED_REQUEST INVALID_STATE FEATURE_DISABLED REQUEST_LIMIT_EXCEEDED RESOURCE_CONFLICT NOT_IMPLEMENTED "
    "DATA_LOSS INVALID_STATE_TRANSITION COULD_NOT_ACQUIRE_LOCK RESOURCE_ALREADY_EXISTS QUOTA_EXCEEDED "
    "MAX_BLOCK_SIZE_EXCEEDED MAX_READ_SIZE_EXCEEDED PARTIAL_DELETE MAX_LIST_SIZE_EXCEEDED DRY_RUN_FAILED "
    "RESOURCE_LIMIT_EXCEEDED DIRECTORY_NOT_EMPTY MAX_NOTEBOOK_SIZE_EXCEEDED MAX_CHILD_NODE_SIZE_EXCEEDED "
    "SEARCH_QUERY_TOO_LONG SEARCH_QUERY_TOO_SHORT MANAGED_RESOURCE_GROUP_DOES_NOT_EXIST GIT_CONFLICT GIT_UNKNOWN_REF "
    "GIT_SENSITIVE_TOKEN_DETECTED GIT_URL_NOT_ON_ALLOW_LIST GIT_REMOTE_ERROR IPYNB_FILE_IN_REPO "
    "INSECURE_PARTNER_RESPONSE MALFORMED_PARTNER_RESPONSE DAC_DOES_NOT_EXIST RECIPIENT_DOES_NOT_EXIST "
    "STORAGE_CREDENTIAL_DOES_NOT_EXIST EXTERNAL_LOCATION_DOES_NOT_EXIST PRINCIPAL_DOES_NOT_EXIST "
    "PROVIDER_DOES_NOT_EXIST METASTORE_ALREADY_EXISTS DAC_ALREADY_EXISTS CATALOG_ALREADY_EXISTS "
    "SCHEMA_ALREADY_EXISTS TABLE_ALREADY_EXISTS SHARE_ALREADY_EXISTS RECIPIENT_ALREADY_EXISTS "
    "STORAGE_CREDENTIAL_ALREADY_EXISTS EXTERNAL_LOCATION_ALREADY_EXISTS PROVIDER_ALREADY_EXISTS CATALOG_NOT_EMPTY "
    "SCHEMA_NOT_EMPTY METASTORE_NOT_EMPTY"
)

# Every value of MLflow's ErrorCode enum; a test compares the two.
ERROR_OF_CODE: Final[dict[str, type[RegistryError]]] = {
    code: kind
    for codes, kind in (
        (_NOT_FOUND, ModelNotFoundError),
        (_DENIED, RegistryDeniedError),
        (_UNREACHABLE, RegistryUnreachableError),
        (_REFUSED, RegistryError),
    )
    for code in codes.split()
}

_REMEDY: Final[dict[type[RegistryError], str]] = {
    ModelNotFoundError: "check the name and the version in the registry",
    RegistryDeniedError: "give the gate's credential this right, or another credential to the gate",
    RegistryUnreachableError: "check the tracking URI and that the MLflow server runs, then run again",
    RegistryError: "see the message of the registry, then run again",
}
WHAT_TO_DO: Final = ". What to do: "  # between what is wrong and the remedy, in what the enforcing registry answers
_MAX_MESSAGE = 600
_USERINFO = re.compile(r"(?<=://)[^/\s]*@")  # to the last @: a password may hold one


def redacted(text: str) -> str:
    """`text` without the user:password part of any URL in it, at most 600 characters."""
    clean = _USERINFO.sub("", text)
    return clean if len(clean) <= _MAX_MESSAGE else clean[:_MAX_MESSAGE] + "…"


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Raise what MLflow, requests or the local disk raise inside as a RegistryError that begins with `doing`.

    Raises:
        RegistryError: or the child of it that says more.
    """
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException

    try:
        yield
    except (MlflowException, RequestException) as error:
        kind = _kind(error)
        # A registry that enforces (`registry.enforce`) says itself what to do.
        said, _, remedy = str(error).partition(WHAT_TO_DO)
        raise kind(f"{doing}: {redacted(said)}", remedy=redacted(remedy) or _REMEDY[kind]) from error
    except ImportError as error:  # an artifact store whose client library is an extra of MLflow
        raise RegistryError(f"{doing}: {error}", remedy="install the library of this artifact store") from error
    except OSError as error:
        raise RegistryError(f"{doing}: {error}", remedy="free space or permissions there, then run again") from error


def _kind(error: BaseException) -> type[RegistryError]:
    from mlflow.exceptions import MlflowException
    from requests.exceptions import ConnectionError as NoConnection
    from requests.exceptions import HTTPError, InvalidSchema, InvalidURL, Timeout

    # MLflow wraps requests' errors as INTERNAL_ERROR and keeps them as context only.
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, NoConnection | Timeout | InvalidURL | InvalidSchema):
            return RegistryUnreachableError
        if isinstance(cause, HTTPError) and cause.response is not None:
            return _kind_of_status(cause.response.status_code)
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, MlflowException):
        return ERROR_OF_CODE.get(error.error_code, RegistryError)
    return RegistryError


def _kind_of_status(status: int) -> type[RegistryError]:
    if status in (401, 403):
        return RegistryDeniedError
    if status == 404:
        return ModelNotFoundError
    return RegistryUnreachableError if status in (502, 503, 504) else RegistryError
