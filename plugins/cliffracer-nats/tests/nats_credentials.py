"""Certificates, nkeys and JWTs made for one test run."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import nkeys  # type: ignore[import-untyped]  # it has no types


def make_certificates(directory: Path) -> None:
    """Write ca.pem, server.pem, client.pem and their keys; the server's name is 127.0.0.1."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    authority = ("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    openssl(
        "req", "-x509", *authority, *curve, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test-ca", "-days", "2"
    )
    for name, extension in (("server", "subjectAltName=IP:127.0.0.1"), ("client", "extendedKeyUsage=clientAuth")):
        openssl("req", *curve, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        (directory / f"{name}.ext").write_text(f"{extension}\nauthorityKeyIdentifier=keyid\n")
        signing = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", f"{name}.ext")
        openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", *signing)


def make_seed(prefix: int) -> bytes:
    """Make an nkey seed."""
    return bytes(nkeys.encode_seed(os.urandom(32), prefix))


def public_key(seed: bytes) -> str:
    """Return a seed's public key."""
    return str(nkeys.from_seed(bytearray(seed)).public_key.decode())


def make_jwt(name: str, subject: str, issuer: bytes, claims: dict[str, Any]) -> str:
    """Sign a NATS JWT (version 2)."""

    def encode(raw: bytes) -> str:
        return base64.urlsafe_b64encode(raw).decode().rstrip("=")

    payload = {"iat": 1_700_000_000, "iss": public_key(issuer), "name": name, "sub": subject}
    payload["nats"] = {**claims, "version": 2}
    payload["jti"] = base64.b32encode(hashlib.sha256(json.dumps(payload).encode()).digest()).decode().rstrip("=")
    head = encode(b'{"typ":"JWT","alg":"ed25519-nkey"}')
    signed = f"{head}.{encode(json.dumps(payload).encode())}"
    return f"{signed}.{encode(nkeys.from_seed(bytearray(issuer)).sign(signed.encode()))}"


def make_creds(directory: Path) -> tuple[str, Path]:
    """Write user.creds; return the server's configuration that lets it in, and the file's path."""
    operator, account, user = (
        make_seed(p) for p in (nkeys.PREFIX_BYTE_OPERATOR, nkeys.PREFIX_BYTE_ACCOUNT, nkeys.PREFIX_BYTE_USER)
    )
    unlimited = {"subs": -1, "data": -1, "payload": -1}
    account_limits = {**unlimited, "imports": -1, "exports": -1, "wildcards": True, "conn": -1, "leaf": -1}
    operator_jwt = make_jwt("op", public_key(operator), operator, {"type": "operator"})
    account_jwt = make_jwt("acc", public_key(account), operator, {"type": "account", "limits": account_limits})
    user_jwt = make_jwt("user", public_key(user), account, {"type": "user", "pub": {}, "sub": {}, **unlimited})
    path = directory / "user.creds"
    path.write_text(
        f"-----BEGIN NATS USER JWT-----\n{user_jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.decode()}\n------END USER NKEY SEED------\n"
    )
    preload = f"{public_key(account)}: {account_jwt}"
    return f"operator: {operator_jwt}\nresolver: MEMORY\nresolver_preload: {{ {preload} }}", path
