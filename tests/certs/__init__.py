"""The certificates of the wss tests, made by trustme when the tests run; no key is ever on disk beyond a run."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path

import trustme


class Authority:
    """A certificate authority of the tests' own.

    ca_file: its certificate, for sslopt["ca_certs"].
    """

    def __init__(self, directory: Path, name: str = "authority") -> None:
        self._ca = trustme.CA()
        self._directory = directory
        self.ca_file = str(directory / f"{name}.pem")
        self._ca.cert_pem.write_to_path(self.ca_file)

    def server_context(self, *names: str, expired: bool = False) -> ssl.SSLContext:
        """A server's context with a certificate for the names, by default localhost and 127.0.0.1."""
        now = datetime.datetime.now(datetime.timezone.utc)
        day = datetime.timedelta(days=1)
        issued = (
            self._ca.issue_cert(*(names or ("localhost", "127.0.0.1")), not_before=now - 3 * day, not_after=now - day)
            if expired
            else self._ca.issue_cert(*(names or ("localhost", "127.0.0.1")))
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        issued.configure_cert(context)
        return context

    def server_file(self, *names: str) -> str:
        """The file of a certificate for the names and its key, for a server that is a program of its own."""
        path = self._directory / f"server-{names[0]}.pem"
        self._ca.issue_cert(*names).private_key_and_cert_chain_pem.write_to_path(str(path))
        return str(path)

    def require_client_certificate(self, context: ssl.SSLContext) -> None:
        """Let a server's context demand a certificate that this authority has issued."""
        self._ca.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED

    def client_certificate(self, name: str = "client@example.org") -> str:
        """The file of a client's certificate and key, for sslopt["certfile"]."""
        path = self._directory / "client.pem"
        self._ca.issue_cert(name).private_key_and_cert_chain_pem.write_to_path(str(path))
        return str(path)
