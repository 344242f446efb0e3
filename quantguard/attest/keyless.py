"""Keyless signatures over our envelopes: by an identity that an issuer vouches for, in a public log. An extra.

What is signed is the payload of a DSSE envelope, byte for byte, so that one statement may be signed by the gate's key
and by the workflow that ran the gate. Sigstore's own library signs and verifies; nothing of ours admits by such a
signature alone. `quantguard[sigstore]` has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from quantguard.core.errors import EvidenceError, ForgedEvidenceError, UsageError
from quantguard.evidence.dsse import MOST_BYTES
from quantguard.evidence.statement import PAYLOAD_TYPE

if TYPE_CHECKING:
    from sigstore.models import ClientTrustConfig

_TRUST: Final = "name a file of the kind ClientTrustConfig (clienttrustconfig.v0.1+json), as the instance publishes it"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who signed, as the certificate says it. Both parts: the same name means another person at another issuer."""

    subject: str  # e.g. https://github.com/OWNER/REPO/.github/workflows/gate.yml@refs/heads/main
    issuer: str  # e.g. https://token.actions.githubusercontent.com


def ambient_token() -> str | None:
    """The OIDC token that the surroundings give (GitHub Actions with `id-token: write`), None where they give none.

    Raises:
        EvidenceError: they promise one and do not give it.
        UsageError: the extra is not installed.
    """
    with _translated("no token"):
        from sigstore.oidc import detect_credential

        return detect_credential()


def sign_keyless(payload: bytes, token: str, *, trust: Path | None = None) -> bytes:
    """A Sigstore bundle, as JSON, over an in-toto statement: by the identity of `token`, entered in the log.

    `trust` is the configuration of a private instance; without it the public one is asked, which makes the identity and
    the payload's digest public for ever. A log of version 1 is sent the payload, and says that it keeps the digest.

    Raises:
        EvidenceError: the token is none, or the instance does not answer or refuses.
        UsageError: the extra is not installed, or `trust` is no configuration.
    """
    with _translated("cannot be signed"):
        from sigstore.dsse import Statement
        from sigstore.oidc import IdentityToken
        from sigstore.sign import SigningContext

        context = SigningContext.from_trust_config(_config(trust))
        with context.signer(IdentityToken(token)) as signer:
            return signer.sign_dsse(Statement(payload)).to_json().encode() + b"\n"


def verify_keyless(bundle: bytes, identity: Identity, *, trust: Path | None = None) -> bytes:
    """The payload that `identity` signed.

    Checked are the certificate's chain and the log that it is in, the entry in the transparency log, that the
    certificate was valid when it was entered, and the signature. Without `trust` the keys of the public instance are
    fetched, or taken from where they were kept the last time.

    Raises:
        ForgedEvidenceError: any of it does not hold, or somebody else signed.
        EvidenceError: no bundle, or the keys of the public instance cannot be had.
        UsageError: the extra is not installed, or `trust` is no configuration.
    """
    if len(bundle) > MOST_BYTES:
        raise EvidenceError(f"a bundle of more than {MOST_BYTES} bytes", remedy="sign the statement again")
    with _translated("not a signature of Sigstore"):
        from sigstore.models import Bundle
        from sigstore.verify import Verifier
        from sigstore.verify.policy import Identity as Expected

        read = Bundle.from_json(bundle)
        verifier = Verifier(trusted_root=_config(trust).trusted_root)
        kind, payload = verifier.verify_dsse(read, Expected(identity=identity.subject, issuer=identity.issuer))
    if kind != PAYLOAD_TYPE:
        raise ForgedEvidenceError(f"signed as {kind[:100]!r}, expected {PAYLOAD_TYPE!r}", remedy="sign the statement")
    return payload


def _config(trust: Path | None) -> ClientTrustConfig:
    from sigstore.models import ClientTrustConfig

    if trust is None:
        return ClientTrustConfig.production()
    try:
        config = ClientTrustConfig.from_json(trust.read_text(encoding="utf-8"))
        _ = config.trusted_root, config.signing_config
    except Exception as error:  # pydantic's, the library's own, and of the file
        raise UsageError(f"not a trust configuration: {type(error).__name__}", path=trust, remedy=_TRUST) from error
    return config


@contextmanager
def _translated(doing: str) -> Iterator[None]:
    """The library raises its own errors, requests', pydantic's and plain ones; none of them may look like a defect.

    The text of a request that failed may hold the token, so only what the library says of itself is shown.
    """
    try:
        yield
    except (EvidenceError, UsageError):
        raise
    except ImportError as error:
        raise UsageError("Sigstore's library is not installed", remedy="pip install quantguard[sigstore]") from error
    except Exception as error:
        from sigstore.errors import VerificationError

        if isinstance(error, VerificationError):
            remedy = "look who signed it; the identity and its issuer must both be those that you expect"
            raise ForgedEvidenceError(f"{doing}: {error}", remedy=remedy) from error
        remedy = "check the token, the network and the instance, then run again"
        raise EvidenceError(f"{doing}: {type(error).__name__}", remedy=remedy) from None
