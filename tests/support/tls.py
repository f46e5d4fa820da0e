"""Certificates for servers on loopback, in files as an operator has them."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import grpc
import trustme

from tests.support.processes import LOOPBACK


class Certificates:
    """An authority of its own, and the certificate and key of one server, in a folder.

    The server is `hosts`, by default loopback. `renew` replaces the server's two files by new ones of the same
    authority, each in one step.
    """

    def __init__(self, folder: Path, *hosts: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.ca, self.cert, self.key = (folder / f"{name}.pem" for name in ("ca", "cert", "key"))
        self.client_cert, self.client_key = (folder / f"client-{name}.pem" for name in ("cert", "key"))
        self._hosts = hosts or ("localhost", LOOPBACK)
        self._authority = trustme.CA()
        self._authority.cert_pem.write_to_path(self.ca)
        client = self._authority.issue_cert("envoy.gateway")
        client.cert_chain_pems[0].write_to_path(self.client_cert)
        client.private_key_pem.write_to_path(self.client_key)
        self.renew()

    def renew(self) -> None:
        """Give the server a new certificate."""
        issued = self._authority.issue_cert(*self._hosts)
        for path, blob in ((self.key, issued.private_key_pem), (self.cert, issued.cert_chain_pems[0])):
            new = path.with_suffix(".new")
            blob.write_to_path(new)
            new.replace(path)

    def channel_credentials(self, *, client: bool = False) -> grpc.ChannelCredentials:
        """Trust this authority; with `client`, show a certificate of its making."""
        if not client:
            return grpc.ssl_channel_credentials(self.ca.read_bytes())
        return grpc.ssl_channel_credentials(
            self.ca.read_bytes(), self.client_key.read_bytes(), self.client_cert.read_bytes()
        )

    async def served_on(self, port: int) -> str:
        """Give the certificate (PEM) that a new handshake on a loopback port gets."""
        return await asyncio.to_thread(self._served_on, port)

    def _served_on(self, port: int) -> str:
        context = ssl.create_default_context(cafile=str(self.ca))
        context.load_cert_chain(self.client_cert, self.client_key)
        context.set_alpn_protocols(["h2"])
        with (
            socket.create_connection((LOOPBACK, port)) as plain,
            context.wrap_socket(plain, server_hostname=LOOPBACK) as encrypted,
        ):
            certificate = encrypted.getpeercert(binary_form=True)
            assert certificate is not None
            return ssl.DER_cert_to_PEM_cert(certificate)
