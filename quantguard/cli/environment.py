"""The process itself: what it may reach. The only place where the environment is read or the network is given up."""

from __future__ import annotations

import ctypes
import os
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final

from quantguard.core.attestation import DEFAULT_ENVIRONMENT
from quantguard.core.errors import UsageError

_CLONE_NEWUSER: Final = 0x10000000
_CLONE_NEWNET: Final = 0x40000000
_PR_SET_DUMPABLE: Final = 4
_LINUX_CAPABILITY_VERSION_3: Final = 0x20080522

# What the sealed room is told of the outside. Everything else may carry a credential and is left out.
_KEPT: Final = frozenset({
    "PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TERM", "COLUMNS", "NO_COLOR", "TMPDIR", "VIRTUAL_ENV",
    "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "CUDA_HOME", "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY", "MKL_NUM_THREADS", "PYTORCH_CUDA_ALLOC_CONF", "PYTHONPATH", "PYTHONHASHSEED",
    "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE",
})  # fmt: skip

JUDGE_KEY: Final = "QUANTGUARD_JUDGE_KEY"
JUDGE_KEY_FILE: Final = "QUANTGUARD_JUDGE_KEY_FILE"
JUDGE_ENDPOINT: Final = "QUANTGUARD_JUDGE_ENDPOINT"
_JUDGE: Final = frozenset({JUDGE_KEY, JUDGE_KEY_FILE, JUDGE_ENDPOINT})
_LONGEST_KEY: Final = 16_384  # characters
SIGNING_KEY: Final = "QUANTGUARD_SIGNING_KEY"  # PEM; only the third room is told
ENVIRONMENT: Final = "QUANTGUARD_ENVIRONMENT"
LEDGER: Final = "QUANTGUARD_LEDGER"
LEDGER_ANCHORS: Final = "QUANTGUARD_LEDGER_ANCHORS"  # separated by spaces
EXECUTOR_IMAGE: Final = "QUANTGUARD_EXECUTOR_IMAGE"
# How this machine reaches its container engine, docker or podman.
_ENGINE: Final = frozenset({
    EXECUTOR_IMAGE, "HOME", "USER", "XDG_RUNTIME_DIR", "DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CERT_PATH",
    "DOCKER_TLS_VERIFY", "DOCKER_CONFIG", "CONTAINER_HOST", "CONTAINERS_CONF", "CONTAINERS_STORAGE_CONF",
    "CONTAINERS_REGISTRIES_CONF",
})  # fmt: skip
# How this machine reaches the network.
_NETWORK: Final = frozenset({
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "no_proxy", "all_proxy",
    "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR",
})  # fmt: skip

_OFFLINE: Final = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}

# OpenMP threads that wait by spinning make small models many times slower on a machine that does other work too.
_CALM: Final = {"OMP_WAIT_POLICY": "PASSIVE"}

_NO_TELEMETRY: Final = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}


def enter_sealed_room() -> bool:
    """Before weights are opened: forget every credential, give up the network, download nothing.

    Returns whether the network is gone: because a container had none from the start, or by `seal_network`. Must run
    before any thread is started.
    """
    for name in set(os.environ) - _KEPT - set(_OFFLINE) - {"HOME"}:
        del os.environ[name]
    go_offline()
    # In this order: a namespace of its own user would give the process powers that a container took away.
    return has_no_network() or seal_network()


def hide_from_children() -> None:
    """Keep processes of the same user from reading this one's environment in /proc (root still can)."""
    try:
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    except (OSError, AttributeError):  # not Linux: there is no /proc to read it in
        return


def go_offline() -> None:
    """Tell the model libraries, before they are imported, that nothing may be downloaded."""
    os.environ.update(_OFFLINE)
    for name, value in _CALM.items():
        os.environ.setdefault(name, value)


def stay_quiet() -> None:
    """Tell the registry library, before it is imported, to report to nobody but the registry."""
    os.environ.update(_NO_TELEMETRY)


def sealed_environment(home: Path) -> dict[str, str]:
    """The environment of a process that opens weights: no credential, and a home directory that holds none."""
    kept = {name: value for name, value in os.environ.items() if name in _KEPT}
    return {**_CALM, **kept, **_OFFLINE, "HOME": str(home)}


def seal_network() -> bool:
    """Move this process into a network namespace of its own, with no interface up; False where the system forbids it.

    Must run before any thread is started. Root needs no user namespace; others get one that maps only themselves.
    """
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(_CLONE_NEWNET) == 0:
            return True
        uid, gid = os.getuid(), os.getgid()
        if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
            return False
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1", encoding="ascii")
        _drop_capabilities(libc)
    except (OSError, AttributeError):  # not Linux, or /proc is not mounted
        return False
    return True


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    """Give up what the owner of a new user namespace may do in it: the maps above are all that it was needed for."""
    header = (ctypes.c_uint32 * 2)(_LINUX_CAPABILITY_VERSION_3, 0)  # this process
    nothing = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable, twice 32 bits each
    if libc.capset(header, nothing) != 0:
        raise OSError(ctypes.get_errno(), "capabilities cannot be given up")


def has_no_network(proc_net: Path = Path("/proc/net")) -> bool:
    """Whether this process's network namespace is an empty one: loopback is all there is, and nobody listens on it.

    So a container started without a network looks, where it may not make a namespace of its own.
    """
    try:
        interfaces = (proc_net / "dev").read_text(encoding="ascii").splitlines()[2:]
        if {line.partition(":")[0].strip() for line in interfaces} - {"lo"}:
            return False
        sockets = [proc_net / name for name in ("tcp", "tcp6", "udp", "udp6")]
        return not any(path.read_text(encoding="ascii").splitlines()[1:] for path in sockets if path.exists())
    except (OSError, UnicodeDecodeError):  # not Linux, or /proc is not mounted
        return False


def tracking_uri(given: str | None) -> str | None:
    """`--tracking-uri`, or MLFLOW_TRACKING_URI."""
    return given or os.environ.get("MLFLOW_TRACKING_URI")


def pull_request_base() -> str | None:
    """The branch that a pull request asks to be merged into, as GitHub tells a workflow; None elsewhere."""
    return os.environ.get("GITHUB_BASE_REF") or None


def git_environment() -> dict[str, str]:
    """This process's environment, of which the check passes to git what git needs."""
    return dict(os.environ)


def registry_environment(uri: str | None, *, signs: bool = False) -> dict[str, str]:
    """The environment of a process that talks to the registry, whose address may hold a password: no argument.

    The signing key is passed on only where it `signs`.
    """
    hidden = _JUDGE if signs else _JUDGE | {SIGNING_KEY}
    others = {name: value for name, value in os.environ.items() if name not in hidden}
    return {**others, **({"MLFLOW_TRACKING_URI": uri} if uri else {})}


def judge_environment(endpoint: str | None, key_file: Path | None) -> dict[str, str]:
    """The environment of a process that asks the judge: its key, and no credential of the registry."""
    kept = {name: value for name, value in os.environ.items() if name in _KEPT | _JUDGE | _NETWORK}
    given = {JUDGE_ENDPOINT: endpoint, JUDGE_KEY_FILE: None if key_file is None else str(key_file)}
    if key_file is not None:
        kept.pop(JUDGE_KEY, None)
    return {**kept, **{name: value for name, value in given.items() if value}, "HOME": os.devnull}


def take_judge_settings(endpoint: str | None, key_file: Path | None) -> None:
    """What the command line says of the judge goes before the environment."""
    given = {JUDGE_ENDPOINT: endpoint, JUDGE_KEY_FILE: None if key_file is None else str(key_file)}
    os.environ.update({name: value for name, value in given.items() if value})
    if key_file is not None:
        os.environ.pop(JUDGE_KEY, None)


def judge_endpoint() -> str:
    """QUANTGUARD_JUDGE_ENDPOINT; empty where the policy's holds."""
    return os.environ.get(JUDGE_ENDPOINT, "")


def judge_key() -> str:
    """QUANTGUARD_JUDGE_KEY, or the first line of the file that QUANTGUARD_JUDGE_KEY_FILE names; empty without either.

    Raises:
        UsageError: the file cannot be read.
    """
    if (key := os.environ.get(JUDGE_KEY, "")) or not (name := os.environ.get(JUDGE_KEY_FILE, "")):
        return key.strip()
    try:
        with Path(name).open(encoding="utf-8") as stream:
            return stream.readline(_LONGEST_KEY).strip()
    except (OSError, UnicodeDecodeError) as error:
        remedy = f"name a file that holds the key, or set {JUDGE_KEY}"
        raise UsageError(f"the judge's key cannot be read: {error}", path=Path(name), remedy=remedy) from error


def take_signing_key() -> str:
    """QUANTGUARD_SIGNING_KEY, which is then gone from this process's environment; empty without one."""
    return os.environ.pop(SIGNING_KEY, "")


def signing_key() -> str:
    """QUANTGUARD_SIGNING_KEY, which stays for the third room; empty without one."""
    return os.environ.get(SIGNING_KEY, "")


def environment_word() -> str:
    """QUANTGUARD_ENVIRONMENT, or `default`."""
    return os.environ.get(ENVIRONMENT) or DEFAULT_ENVIRONMENT


def sigstore_token() -> str | None:
    """SIGSTORE_ID_TOKEN, the variable that Sigstore's other clients read too."""
    return os.environ.get("SIGSTORE_ID_TOKEN") or None


def executor_image() -> str:
    """QUANTGUARD_EXECUTOR_IMAGE: what generated programs are run in; empty where none is named."""
    return os.environ.get(EXECUTOR_IMAGE, "")


def engine_environment() -> dict[str, str]:
    """The environment of a process that starts the container of generated programs: how to reach the engine."""
    return {name: value for name, value in os.environ.items() if name in _KEPT | _ENGINE}


def now() -> datetime:
    """The moment in UTC, by which evidence ages."""
    return datetime.now(UTC)


def today() -> date:
    """The day in UTC, by which waivers expire."""
    return now().date()
