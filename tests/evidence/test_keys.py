"""Keys: one algorithm, readable by their owner only, never overwritten, never shown."""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from quantguard.core.errors import KeyFileError
from quantguard.evidence.keys import Signer, read_public, read_signer, write_key_pair
from quantguard.evidence.trusted import read_trusted

PEM, PKCS8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
NOTHING = serialization.NoEncryption()


def pair(folder: Path, name: str = "gate") -> tuple[Path, Path, Signer]:
    signer = Signer.generate()
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    write_key_pair(signer, private, public)
    return private, public, signer


def test_a_pair_is_written_for_its_owner_alone_and_read_back(tmp_path: Path) -> None:
    private, public, signer = pair(tmp_path)
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gate.pem", "gate.pub.pem"]
    assert read_public(public).key_id == read_signer(private).public.key_id == signer.public.key_id


def test_a_key_is_never_overwritten_and_no_half_of_a_pair_is_left(tmp_path: Path) -> None:
    private, public, _ = pair(tmp_path)
    before = private.read_bytes(), public.read_bytes()
    with pytest.raises(KeyFileError, match="exists already"):
        pair(tmp_path)
    assert (private.read_bytes(), public.read_bytes()) == before
    public.unlink()
    with pytest.raises(KeyFileError, match="exists already"):
        pair(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["gate.pem"]
    assert private.read_bytes() == before[0]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_private_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    private, _, _ = pair(tmp_path)
    private.chmod(mode)
    with pytest.raises(KeyFileError, match="chmod 600"):
        read_signer(private)


OTHERS = (rsa.generate_private_key(65537, 2048), ed25519.Ed25519PrivateKey.generate())


@pytest.mark.parametrize("key", [*OTHERS, ec.generate_private_key(ec.SECP384R1())], ids=["rsa", "ed25519", "p384"])
def test_keys_of_another_kind_are_refused(key: rsa.RSAPrivateKey) -> None:
    with pytest.raises(KeyFileError, match="P-256"):
        Signer.from_pem(key.private_bytes(PEM, PKCS8, NOTHING))


def test_what_is_wrong_with_a_private_key_is_told_without_it(tmp_path: Path) -> None:
    secret = Signer.generate().private_pem()
    cut = secret.replace(b"\n", b"\nx", 2)
    with pytest.raises(KeyFileError) as raised:
        Signer.from_pem(cut, path=tmp_path)
    told = f"{raised.value}{raised.value.__cause__!r}"
    assert not any(line in told for line in secret.decode().splitlines()[1:-1])
    signer = Signer.generate()
    assert signer.public.key_id in repr(signer)
    locked = signer._key.private_bytes(PEM, PKCS8, serialization.BestAvailableEncryption(b"x"))
    with pytest.raises(KeyFileError, match="password"):
        Signer.from_pem(locked)


def test_nothing_but_an_ordinary_file_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pem", 0o600)
    (tmp_path / "huge.pem").write_bytes(b"x" * 100_000)
    for path in (tmp_path / "pipe.pem", tmp_path / "huge.pem", tmp_path, tmp_path / "none.pem"):
        with pytest.raises(KeyFileError):
            read_public(path)


def test_a_pem_a_directory_or_a_keyring_is_trusted(tmp_path: Path) -> None:
    _, public, signer = pair(tmp_path / "a")
    assert [key.name for key in read_trusted(public).keys] == ["gate.pub.pem"]
    with pytest.raises(KeyFileError, match="public"):
        read_trusted(tmp_path / "a")  # a private key among them is a mistake, and told
    folder = tmp_path / "keys"
    folder.mkdir()
    (folder / "gate.pem").write_bytes(signer.public.pem())
    assert [key.public.key_id for key in read_trusted(folder).keys] == [signer.public.key_id]
    (folder / "same.pem").write_bytes(signer.public.pem())
    with pytest.raises(KeyFileError, match="twice"):
        read_trusted(folder)
    with pytest.raises(KeyFileError, match="0 keys"):
        read_trusted(tmp_path / "a" / "..")


RING = """\
schema: quantguard.keys/1
keys:
  - name: gate
    public: gate.pub.pem
    not_before: 2026-01-01
    not_after: 2026-12-31
    environments: [production]
"""


def test_a_keyring_says_when_and_where(tmp_path: Path) -> None:
    pair(tmp_path)
    (tmp_path / "keys.yaml").write_text(RING, encoding="utf-8")
    (key,) = read_trusted(tmp_path / "keys.yaml").keys
    moments = [datetime(2025, 12, 31, 23, 59, 59), datetime(2026, 1, 1), datetime(2026, 12, 31, 23, 59, 59)]
    moments.append(datetime(2027, 1, 1))
    assert [key.is_valid(moment.replace(tzinfo=UTC)) for moment in moments] == [False, True, True, False]
    assert [key.may_speak_of(word) for word in ("production", "staging")] == [True, False]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("keys/1", "keys/2", "schema"),
        ("not_before", "not_befor", "not_befor"),
        ("2026-01-01", "soon", "not_before"),
        ("2026-01-01", "2027-01-01", "exchange"),
        ("gate.pub.pem", "none.pem", "cannot be read"),
        ("[production]", "[]", "environments"),
        ("name: gate", "name: ../gate", "name"),
        ("    not_after", "    not_before: 2026-01-01\n    not_after", "twice"),
        ("[production]", "&a [production, *a]", "aliases"),
        ("schema: quantguard.keys/1", "schema: [", "not a keyring"),
        ("schema: quantguard.keys/1", "!!python/object:os.system {}", "not a keyring"),
    ],
)
def test_a_keyring_that_is_none_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    pair(tmp_path)
    (tmp_path / "keys.yaml").write_text(RING.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(KeyFileError, match=said):
        read_trusted(tmp_path / "keys.yaml")
