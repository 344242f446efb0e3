"""OpenSSF's own command line accepts our signatures and we accept its own; both refuse the same changes."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from model_signing import _cli

from quantguard.attest.model_signature import read_signature, sign_model, verify_model
from quantguard.checkpoint.digest import root_digest
from quantguard.core.errors import EvidenceError, ForgedEvidenceError, UnsafeCheckpointError
from quantguard.evidence.dsse import pae
from quantguard.evidence.keys import Signer, write_key_pair
from quantguard.evidence.trusted import TrustedKeys
from tests.checkpoint.test_digest import ODD, write

SIGNER = Signer.generate()
KEYS = TrustedKeys.of(SIGNER.public)
FILES = {"config.json": b"{}", "model.safetensors": bytes(range(256)), "sub/tokenizer.json": b"[]"}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write(tmp_path / "model", FILES)


def their_command(*arguments: str | Path) -> Result:
    """Their command line in this process: a process of its own takes a second, and two tests below have one."""
    return CliRunner().invoke(_cli.main, [*map(str, arguments)])


def their_process(*arguments: str | Path) -> str:
    command = [sys.executable, "-m", "model_signing", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


class Keys:
    def __init__(self, folder: Path) -> None:
        self.private, self.public, self.signature = folder / "k.pem", folder / "k.pub.pem", folder / "model.sig"
        write_key_pair(SIGNER, self.private, self.public)

    def they_sign(self, model: Path, *more: str, at: Path | None = None) -> bytes:
        target = at or self.signature
        done = their_command("sign", "key", model, "--private_key", self.private, "--signature", target, *more)
        assert done.exit_code == 0, done.output
        return target.read_bytes()

    def they_accept(self, model: Path) -> bool:
        done = their_command("verify", "key", model, "--signature", self.signature, "--public_key", self.public)
        assert done.exit_code == (0 if "Verification succeeded" in done.output else 1), done.output
        return done.exit_code == 0


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path)


def swap_a_byte(model: Path) -> None:
    (model / "model.safetensors").write_bytes(FILES["model.safetensors"][:-1] + b"\xfe")


def add_a_file(model: Path) -> None:
    (model / "sub" / "more.json").write_bytes(b"")


def take_a_file(model: Path) -> None:
    (model / "sub" / "tokenizer.json").unlink()


def exchange_names(model: Path) -> None:
    (model / "config.json").rename(model / "aside")
    (model / "model.safetensors").rename(model / "config.json")
    (model / "aside").rename(model / "model.safetensors")


CHANGES = [
    (swap_a_byte, "'model.safetensors' is not what was signed"),
    (add_a_file, "'sub/more.json' was not signed"),
    (take_a_file, "'sub/tokenizer.json' was signed and is not there"),
    (exchange_names, "'config.json' is not what was signed, and 1 more"),
]


def test_their_command_line_accepts_what_we_sign(tmp_path: Path, keys: Keys) -> None:
    model = write(tmp_path / "odd model", ODD)
    keys.signature.write_bytes(sign_model(model, SIGNER))
    said = their_process("verify", "key", model, "--signature", keys.signature, "--public_key", keys.public)
    assert "Verification succeeded" in said
    assert verify_model(model, keys.signature.read_bytes(), KEYS).public == SIGNER.public


def test_we_accept_what_their_command_line_signs(tmp_path: Path, keys: Keys) -> None:
    model = write(tmp_path / "odd model", ODD)
    their_process("sign", "key", model, "--signature", keys.signature, "--private_key", keys.private)
    assert verify_model(model, keys.signature.read_bytes(), KEYS).public == SIGNER.public


@pytest.mark.parametrize(("change", "said"), CHANGES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_changed_model_is_refused_by_both(model: Path, keys: Keys, change: Callable[[Path], None], said: str) -> None:
    keys.signature.write_bytes(sign_model(model, SIGNER))
    change(model)
    assert not keys.they_accept(model)
    with pytest.raises(ForgedEvidenceError) as refused:
        verify_model(model, keys.signature.read_bytes(), KEYS)
    assert refused.value.message == said


def test_a_path_that_the_signature_ignores_is_a_file_that_was_not_signed(model: Path, keys: Keys) -> None:
    """Their verifier leaves out what the signature says; here nothing is left out."""
    (model / "pytorch_model.bin").write_bytes(b"a pickle")
    signature = keys.they_sign(model, "--ignore-paths", str(model / "pytorch_model.bin"))
    assert keys.they_accept(model)
    with pytest.raises(ForgedEvidenceError, match=r"^'pytorch_model.bin' was not signed"):
        verify_model(model, signature, KEYS)


def test_a_signature_inside_of_the_model_is_a_file_that_was_not_signed(model: Path, keys: Keys) -> None:
    signature = keys.they_sign(model, at=model / "model.sig")
    with pytest.raises(ForgedEvidenceError, match=r"^'model.sig' was not signed"):
        verify_model(model, signature, KEYS)


def test_gits_own_files_are_no_part_of_a_model_and_cannot_be_made_one(model: Path, keys: Keys) -> None:
    signature = sign_model(model, SIGNER)
    (model / ".gitattributes").write_bytes(b"* text")
    verify_model(model, signature, KEYS)
    with pytest.raises(EvidenceError, match="git's own files"):
        verify_model(model, keys.they_sign(model, "--no-ignore-git-paths"), KEYS)


@pytest.mark.parametrize("name", ["link", ".git"])
def test_no_link_is_followed(model: Path, name: str) -> None:
    signature = sign_model(model, SIGNER)
    (model / name).symlink_to("/etc/passwd")
    for use in (lambda: sign_model(model, SIGNER), lambda: verify_model(model, signature, KEYS)):
        with pytest.raises(UnsafeCheckpointError):
            use()


def test_another_key_is_nobody_who_is_trusted(model: Path) -> None:
    with pytest.raises(ForgedEvidenceError, match="signed by nobody who is trusted"):
        verify_model(model, sign_model(model, Signer.generate()), KEYS)


def signed(statement: dict[str, Any]) -> bytes:
    """Such a statement with a signature that is valid."""
    payload = json.dumps(statement).encode()
    signature = SIGNER.sign(pae("application/vnd.in-toto+json", payload))
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": "application/vnd.in-toto+json",
        "signatures": [{"sig": base64.b64encode(signature).decode()}],
    }
    return json.dumps({"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json", "dsseEnvelope": envelope}).encode()


def of(signature: bytes) -> dict[str, Any]:
    payload: dict[str, Any] = json.loads(base64.b64decode(json.loads(signature)["dsseEnvelope"]["payload"]))
    return payload


def twice(statement: dict[str, Any]) -> None:
    statement["predicate"]["resources"].append(statement["predicate"]["resources"][0])


def in_pieces(statement: dict[str, Any]) -> None:
    statement["predicate"]["serialization"]["method"] = "shards"


def other_hash(statement: dict[str, Any]) -> None:
    statement["predicate"]["resources"][0]["algorithm"] = "blake3"


def other_subject(statement: dict[str, Any]) -> None:
    statement["subject"][0]["digest"]["sha256"] = root_digest(()).removeprefix("sha256:")


def old_format(statement: dict[str, Any]) -> None:
    statement["predicateType"] = "https://model_signing/Digests/v0.1"


def no_digest(statement: dict[str, Any]) -> None:
    statement["predicate"]["resources"][0]["digest"] = None


@pytest.mark.parametrize("change", [twice, in_pieces, other_hash, other_subject, old_format, no_digest])
def test_what_a_trusted_key_signs_must_still_be_whole_files(
    model: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    statement = of(sign_model(model, SIGNER))
    read_signature(signed(statement), KEYS)
    change(statement)
    with pytest.raises(EvidenceError):
        read_signature(signed(statement), KEYS)


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b"[" * 100_000, b'{"mediaType": 1, "mediaType": 1}'])
def test_what_is_no_signature_is_told(data: bytes) -> None:
    with pytest.raises(EvidenceError):
        read_signature(data, KEYS)


def test_every_flipped_byte_of_a_signature_is_noticed_or_says_the_same(model: Path) -> None:
    """Of the JSON around the envelope some bytes say nothing: no flip makes another list of files."""
    signature = sign_model(model, SIGNER)
    listed = read_signature(signature, KEYS)[0]
    for place in range(len(signature)):
        changed = signature[:place] + bytes([signature[place] ^ 1]) + signature[place + 1 :]
        try:
            assert read_signature(changed, KEYS)[0] == listed
        except EvidenceError:
            continue
