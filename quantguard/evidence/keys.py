"""Signing keys: ECDSA on P-256 with SHA-256, and nothing else.

The algorithm is the key's, never what a signed document says of itself. A key is known by its identifier, the SHA-256
of its SubjectPublicKeyInfo in DER. Private keys are PEM (PKCS 8) without a password, in a file that only its owner can
read, or handed over as text by the edge, which reads the environment.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from quantguard.core.errors import KeyFileError

MOST_BYTES: Final = 65_536  # of a key file
_GENERATE: Final = "make one with quantguard keys generate"
# RFC 6979: the same job signs the same bytes, and no signature depends on this machine's randomness.
_ECDSA: Final = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
_VERIFY: Final = ec.ECDSA(hashes.SHA256())


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key on P-256."""

    point: ec.EllipticCurvePublicKey = field(repr=False, compare=False)  # its identifier is compared
    key_id: str  # 64 hexadecimal digits: SHA-256 of the SubjectPublicKeyInfo in DER

    @classmethod
    def of(cls, point: ec.EllipticCurvePublicKey) -> PublicKey:
        der = point.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        return cls(point, hashlib.sha256(der).hexdigest())

    @classmethod
    def from_pem(cls, data: bytes, *, path: Path | None = None) -> PublicKey:
        """Read one public key.

        Raises:
            KeyFileError: no public key, or one of another kind.
        """
        try:
            point = serialization.load_pem_public_key(data)
        except (ValueError, UnsupportedAlgorithm) as error:
            remedy = f"name the file that ends in .pub.pem, or {_GENERATE}"
            raise KeyFileError("not a public key in PEM", path=path, remedy=remedy) from error
        if not isinstance(point, ec.EllipticCurvePublicKey) or not isinstance(point.curve, ec.SECP256R1):
            raise KeyFileError("not an ECDSA key on P-256", path=path, remedy=_GENERATE)
        return cls.of(point)

    def pem(self) -> bytes:
        encoding, kind = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        return self.point.public_bytes(encoding, kind)

    def accepts(self, signature: bytes, message: bytes) -> bool:
        """Whether `signature` (DER, as ANSI X9.62) is this key's over `message`."""
        try:
            self.point.verify(signature, message, _VERIFY)
        except InvalidSignature:
            return False
        return True


class Signer:
    """A private key that signs and shows nothing of itself."""

    __slots__ = ("_key", "public")

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key
        self.public = PublicKey.of(key.public_key())

    def __repr__(self) -> str:
        return f"Signer({self.public.key_id})"

    @classmethod
    def from_pem(cls, data: bytes, *, path: Path | None = None) -> Signer:
        """Read one private key. What is wrong is told without a byte of it.

        Raises:
            KeyFileError: no private key, one with a password, or one of another kind.
        """
        try:
            key = serialization.load_pem_private_key(data, password=None)
        except TypeError:  # what the library raises where a password is needed
            remedy = "take the password off with openssl pkey, or use a key without one"
            raise KeyFileError("the private key has a password", path=path, remedy=remedy) from None
        except (ValueError, UnsupportedAlgorithm):
            raise KeyFileError("not a private key in PEM", path=path, remedy=_GENERATE) from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise KeyFileError("not an ECDSA key on P-256", path=path, remedy=_GENERATE)
        return cls(key)

    @classmethod
    def generate(cls) -> Signer:
        return cls(ec.generate_private_key(ec.SECP256R1()))

    def sign(self, message: bytes) -> bytes:
        """The signature over `message`, DER as ANSI X9.62; the same for the same message."""
        return self._key.sign(message, _ECDSA)

    def private_pem(self) -> bytes:
        """PKCS 8 in PEM: for a file that only its owner can read, and for nothing else."""
        nothing = serialization.NoEncryption()
        return self._key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, nothing)


def read_signer(path: Path) -> Signer:
    """The private key in a file.

    Raises:
        KeyFileError: not a file, not a key, or readable by others than its owner.
    """
    return Signer.from_pem(_read(path, private=True), path=path)


def read_public(path: Path) -> PublicKey:
    """The public key in a file.

    Raises:
        KeyFileError: not a file, or not a key.
    """
    return PublicKey.from_pem(_read(path, private=False), path=path)


def write_key_pair(signer: Signer, private: Path, public: Path) -> None:
    """Write both halves, each whole or not at all, the private one readable by its owner only.

    Raises:
        KeyFileError: one of them exists, or cannot be written; then neither is left behind.
    """
    _create(public, signer.public.pem(), mode=0o644)
    try:
        _create(private, signer.private_pem(), mode=0o600)
    except KeyFileError:
        public.unlink(missing_ok=True)
        raise


def _create(path: Path, data: bytes, *, mode: int) -> None:
    """A new file with `data`; what is there under that name stays as it is."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                os.fchmod(descriptor, mode)
                stream.write(data)
                stream.flush()
                os.fsync(descriptor)
            os.link(partial, path, follow_symlinks=False)  # unlike a rename, this never replaces a key
        finally:
            with contextlib.suppress(OSError):
                partial.unlink()
    except FileExistsError as error:
        remedy = "a key is never overwritten: name another file, or move this one away"
        raise KeyFileError("exists already", path=path, remedy=remedy) from error
    except OSError as error:
        message = f"cannot be written: {error.strerror or error}"
        raise KeyFileError(message, path=path, remedy="name a directory that you may write to") from error


def _read(path: Path, *, private: bool) -> bytes:
    try:
        # Without O_NONBLOCK a named pipe would hold the gate for ever.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise KeyFileError("not an ordinary file", path=path, remedy="name a PEM file")
            if private and status.st_mode & 0o077:
                remedy = f"run chmod 600 {path}; make another key if somebody may have read it"
                raise KeyFileError("a private key that others than its owner can read", path=path, remedy=remedy)
            data = stream.read(MOST_BYTES + 1)
    except OSError as error:
        remedy = _GENERATE if private else "name the public half of the gate's key, NAME.pub.pem"
        raise KeyFileError(f"cannot be read: {error.strerror or error}", path=path, remedy=remedy) from error
    if len(data) > MOST_BYTES:
        raise KeyFileError(f"larger than {MOST_BYTES} bytes", path=path, remedy="name a PEM file")
    return data
