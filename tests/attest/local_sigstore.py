"""A Sigstore instance of a test's own: a certificate authority with its log, and a transparency log of one entry.

It speaks what Sigstore's library asks over HTTP, and everything it signs is verified by that library, so that a defect
here shows as a refusal.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import rfc8785
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

ISSUER = "https://token.actions.githubusercontent.com"
SUBJECT = "https://github.com/acme/models/.github/workflows/gate.yml@refs/heads/main"
_ISSUER_OID = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
_SCT_OID = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")


def token(subject: str = SUBJECT, *, lasts: timedelta = timedelta(minutes=5)) -> str:
    """As GitHub gives it; nobody here looks at its signature."""
    now = datetime.now(UTC)
    claims = {"iss": ISSUER, "sub": subject, "aud": "sigstore", "iat": now - lasts, "exp": now + lasts}
    return jwt.encode(claims, "of nobody" * 8, algorithm="HS256")


def _der(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


class LocalSigstore:
    def __init__(self) -> None:
        self.authority, self.certificates, self.log = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "local authority")])
        now = datetime.now(UTC)
        self.root = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.authority.public_key())
            .serial_number(1)
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
            .add_extension(_usage(sign=False), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.authority.public_key()), critical=False)
            .sign(self.authority, hashes.SHA256())
        )

    def certificate(self, request: x509.CertificateSigningRequest, subject: str) -> x509.Certificate:
        """For ten minutes, with the promise of the log of certificates inside."""
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.root.subject)
            .public_key(request.public_key())
            .serial_number(2)
            .not_valid_before(now - timedelta(minutes=1))
            .not_valid_after(now + timedelta(minutes=10))
            .add_extension(_usage(sign=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(subject)]), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.authority.public_key()), critical=False
            )
            .add_extension(x509.UnrecognizedExtension(_ISSUER_OID, ISSUER.encode()), critical=False)
        )
        before = builder.sign(self.authority, hashes.SHA256()).tbs_certificate_bytes
        promise = x509.UnrecognizedExtension(_SCT_OID, self._promise(before))
        return builder.add_extension(promise, critical=False).sign(self.authority, hashes.SHA256())

    def _promise(self, certificate: bytes) -> bytes:
        """RFC 6962, section 3.2 and 3.3: one signed certificate timestamp of a precertificate, in DER."""
        stamp = int(datetime.now(UTC).timestamp() * 1000)
        entry = hashlib.sha256(_der(self.authority)).digest() + struct.pack("!I", len(certificate))[1:] + certificate
        signed = struct.pack("!BBQH", 0, 0, stamp, 1) + entry + struct.pack("!H", 0)
        signature = self.certificates.sign(signed, ec.ECDSA(hashes.SHA256()))
        log_id = hashlib.sha256(_der(self.certificates)).digest()
        promise = b"\0" + log_id + struct.pack("!QH", stamp, 0) + struct.pack("!BBH", 4, 3, len(signature)) + signature
        listed = struct.pack("!H", len(promise)) + promise
        whole = struct.pack("!H", len(listed)) + listed
        return b"\x04" + (bytes([len(whole)]) if len(whole) < 128 else b"\x81" + bytes([len(whole)])) + whole

    def entered(self, proposed: dict[str, Any]) -> dict[str, Any]:
        """The entry as version 1 of Rekor returns it: the only one of its log."""
        content = proposed["spec"]["proposedContent"]
        envelope = json.loads(content["envelope"])
        payload = base64.b64decode(envelope["payload"])
        signatures = [{"signature": s["sig"], "verifier": content["verifiers"][0]} for s in envelope["signatures"]]
        body: dict[str, Any] = {
            "apiVersion": "0.0.1",
            "kind": "dsse",
            "spec": {
                "envelopeHash": {
                    "algorithm": "sha256",
                    "value": hashlib.sha256(content["envelope"].encode()).hexdigest(),
                },
                "payloadHash": {"algorithm": "sha256", "value": hashlib.sha256(payload).hexdigest()},
                "signatures": signatures,
            },
        }
        canonical = rfc8785.dumps(body)
        root = hashlib.sha256(b"\0" + canonical).digest()
        log_id = hashlib.sha256(_der(self.log)).digest()
        note = f"local log\n1\n{_text(root)}\n"
        signed = log_id[:4] + self.log.sign(note.encode(), ec.ECDSA(hashes.SHA256()))
        entry: dict[str, Any] = {
            "body": _text(canonical),
            "integratedTime": int(datetime.now(UTC).timestamp()),
            "logID": log_id.hex(),
            "logIndex": 0,
        }
        stamp = self.log.sign(rfc8785.dumps(entry), ec.ECDSA(hashes.SHA256()))
        proof = {
            "logIndex": 0,
            "rootHash": root.hex(),
            "treeSize": 1,
            "hashes": [],
            "checkpoint": f"{note}\n\u2014 local {_text(signed)}\n",
        }
        return {"1": {**entry, "verification": {"inclusionProof": proof, "signedEntryTimestamp": _text(stamp)}}}

    def trust(self, url: str) -> dict[str, Any]:
        """What a client of this instance is configured with."""
        always = {"start": "2020-01-01T00:00:00Z"}
        service = {"url": url, "majorApiVersion": 1, "validFor": always, "operator": "local"}
        return {
            "mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
            "trustedRoot": {
                "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
                "tlogs": [_log(self.log, url, always)],
                "ctlogs": [_log(self.certificates, url, always)],
                "certificateAuthorities": [
                    {
                        "subject": {"organization": "local", "commonName": "local authority"},
                        "uri": url,
                        "certChain": {"certificates": [{"rawBytes": _text(self.root.public_bytes(Encoding.DER))}]},
                        "validFor": always,
                    }
                ],
                "timestampAuthorities": [],
            },
            "signingConfig": {
                "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
                "caUrls": [service],
                "oidcUrls": [],
                "rekorTlogUrls": [service],
                "tsaUrls": [],
                "rekorTlogConfig": {"selector": "ANY"},
                "tsaConfig": {"selector": "ANY"},
            },
        }


def _log(key: ec.EllipticCurvePrivateKey, url: str, valid: dict[str, str]) -> dict[str, Any]:
    return {
        "baseUrl": url,
        "hashAlgorithm": "SHA2_256",
        "publicKey": {"rawBytes": _text(_der(key)), "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": valid},
        "logId": {"keyId": _text(hashlib.sha256(_der(key)).digest())},
    }


def _usage(*, sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=sign,
        key_cert_sign=not sign,
        crl_sign=not sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


@contextmanager
def served(folder: Path) -> Iterator[Path]:
    """An instance that answers for as long as the context lasts; its trust configuration as a file."""
    instance = LocalSigstore()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path == "/api/v2/signingCert":
                given = self.headers["Authorization"].removeprefix("Bearer ")
                subject = jwt.decode(given, options={"verify_signature": False})["sub"]
                request = x509.load_pem_x509_csr(base64.b64decode(asked["certificateSigningRequest"]))
                chain = [instance.certificate(request, subject), instance.root]
                pems = [certificate.public_bytes(Encoding.PEM).decode() for certificate in chain]
                self._answer(200, {"signedCertificateEmbeddedSct": {"chain": {"certificates": pems}}})
            else:
                self._answer(201, instance.entered(asked))

        def _answer(self, status: int, body: dict[str, Any]) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        path = folder / "trust.json"
        path.write_text(json.dumps(instance.trust(f"http://127.0.0.1:{server.server_port}")))
        yield path
        server.shutdown()
        thread.join()
