"""A front end like that of RDS: TLS, IAM tokens as passwords, and the PostgreSQL behind it.

with rds(url, folder) as door:
    door.host, door.port, door.ca_bundle
    door.logins     # [(user, password or token), ...], refused ones too

A token is recomputed with KEY's secret, and rejected if it was made with another key, for another user or host, or is
too old. Only the administrator has a password; with `server`, that PostgreSQL checks it, and which users may log in
with a token (local.rds.server).
"""

import datetime as dt
import re
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import parse_qs

from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from nexmdm.runtime import sigv4
from psycopg2.extensions import parse_dsn

from local.rds.server import ADMIN, ADMIN_PASSWORD, Server

REGION = "eu-west-1"
KEY = sigv4.Credentials("ASIAOFTHEFUNCTION", "the role's secret", "the+role's/session token=")
SSL_REQUEST, GSS_REQUEST = 80877103, 80877104
GRANT_IAM = re.compile(rb"GRANT rds_iam TO (\w+)( WITH ADMIN OPTION)?\s*")


class Door:
    def __init__(self, url: str, folder: Path, server: Server | None = None) -> None:
        target = parse_dsn(url)
        self._passwords = ("127.0.0.1", server.port) if server else None
        host, port = target.get("host", "localhost"), target.get("port", "5432")
        self._target = f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, int(port))
        self.ca_bundle = folder / "ca.pem"
        certificates(folder)
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(folder / "server.pem", folder / "server.key")
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.host, self.port = "localhost", self._listener.getsockname()[1]
        self.logins: list[tuple[str, str]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError, EOFError, struct.error):
            while (code := _startup(client)[1]) != SSL_REQUEST:
                if code != GSS_REQUEST:
                    client.sendall(_error("28000", "rds.force_ssl is on"))
                    return
                client.sendall(b"N")
            client.sendall(b"S")
            with self._tls.wrap_socket(client, server_side=True) as secured:
                hello, _ = _startup(secured)
                words = hello[8:].split(b"\0")
                user = dict(zip(words[::2], words[1::2], strict=False))[b"user"].decode()
                secured.sendall(b"R" + struct.pack(">II", 8, 3))
                _, password = _message(secured)
                given = password.rstrip(b"\0").decode()
                self.logins.append((user, given))
                is_token = "Action=connect" in given
                if not (is_token or self._passwords) and user == ADMIN and given == ADMIN_PASSWORD:
                    is_token = True  # there is no server to decide
                elif (is_token or not self._passwords) and not self._good(user, given):
                    secured.sendall(_error("28P01", f'PAM authentication failed for user "{user}"'))
                    return
                with self._server(is_token) as server:
                    server.sendall(hello)
                    if not is_token:
                        _hand_over(server, secured, password)
                    _relay(secured, server, as_rds_superuser=bool(self._passwords) and user == ADMIN)

    def _server(self, is_token: bool) -> socket.socket:
        target = self._target if is_token or self._passwords is None else self._passwords
        server = socket.socket(socket.AF_UNIX if isinstance(target, str) else socket.AF_INET)
        server.connect(target)
        return server

    def _good(self, user: str, given: str) -> bool:
        query = parse_qs(given.partition("?")[2])
        with suppress(KeyError, ValueError):
            (stamp,), whose = query["X-Amz-Date"], query["DBUser"]
            made = dt.datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=dt.UTC)
            fresh = dt.timedelta() <= dt.datetime.now(dt.UTC) - made < dt.timedelta(minutes=15)
            return fresh and whose == [user] and query["X-Amz-Signature"] == [self._signature(given, stamp)]
        return False

    def _signature(self, token: str, stamp: str) -> str:
        """The token that KEY produces for the query with this host and port, regardless of the host that it names."""
        signed = token.partition("?")[2].rpartition("&X-Amz-Signature=")[0]
        login = AWSRequest("GET", f"https://{self.host}:{self.port}/?{signed}")
        login.context["timestamp"] = stamp
        signer = SigV4QueryAuth(ReadOnlyCredentials(*KEY), "rds-db", REGION)
        return signer.signature(signer.string_to_sign(login, signer.canonical_request(login)), login)


@contextmanager
def rds(url: str, folder: Path, server: Server | None = None) -> Iterator[Door]:
    door = Door(url, folder, server)
    try:
        yield door
    finally:
        door.close()


def certificates(folder: Path) -> None:
    """ca.pem, and server.pem with server.key for localhost."""
    now = dt.datetime.now(dt.UTC)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "throw-away CA")])

    def builder(subject: x509.Name, public_key: ec.EllipticCurvePublicKey, ca: bool) -> x509.CertificateBuilder:
        made = x509.CertificateBuilder(ca_name, subject, public_key, x509.random_serial_number())
        made = made.not_valid_before(now - dt.timedelta(1)).not_valid_after(now + dt.timedelta(1))
        return made.add_extension(x509.BasicConstraints(ca, None), True)

    names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    server_name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    ca = builder(ca_name, ca_key.public_key(), True).sign(ca_key, hashes.SHA256())
    server = builder(server_name, key.public_key(), False).add_extension(names, False).sign(ca_key, hashes.SHA256())
    (folder / "ca.pem").write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    (folder / "server.pem").write_bytes(server.public_bytes(serialization.Encoding.PEM))
    (folder / "server.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def _startup(connection: socket.socket) -> tuple[bytes, int]:
    """A message from before authentication, and its code."""
    head = exactly(connection, 8)
    length, code = struct.unpack(">II", head)
    return head + exactly(connection, length - 8), code


def _message(connection: socket.socket) -> tuple[bytes, bytes]:
    kind, length = struct.unpack(">cI", exactly(connection, 5))
    return kind, exactly(connection, length - 4)


def _error(code: str, text: str) -> bytes:
    fields = f"SFATAL\0C{code}\0M{text}\0\0".encode()
    return b"E" + struct.pack(">I", len(fields) + 4) + fields


def _hand_over(server: socket.socket, secured: ssl.SSLSocket, password: bytes) -> None:
    """The password if the server asks for it; otherwise the server's message."""
    kind, body = _message(server)
    if kind == b"R" and struct.unpack(">I", body[:4]) == (3,):
        server.sendall(b"p" + struct.pack(">I", len(password) + 4) + password)
    else:
        secured.sendall(kind + struct.pack(">I", len(body) + 4) + body)


def _relay(secured: ssl.SSLSocket, server: socket.socket, *, as_rds_superuser: bool) -> None:
    """Relay data in both directions, with a thread for responses, until either side ends."""

    def answers() -> None:
        with suppress(OSError):
            while part := server.recv(65536):
                secured.sendall(part)
        with suppress(OSError):
            secured.shutdown(socket.SHUT_RDWR)

    thread = threading.Thread(target=answers, daemon=True)
    thread.start()
    with suppress(OSError, EOFError):
        while True:
            kind, body = _message(secured)
            if as_rds_superuser and kind == b"Q" and (grant := GRANT_IAM.fullmatch(body.rstrip(b"\0"))):
                call = f"PERFORM rds.grant_iam('{grant[1].decode()}', {bool(grant[2])})"
                body = f"DO $$ BEGIN {call}; END $$".encode() + b"\0"
            server.sendall(kind + struct.pack(">I", len(body) + 4) + body)
    with suppress(OSError):
        server.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def exactly(connection: socket.socket, size: int) -> bytes:
    """Read exactly this many bytes.

    Raises:
        EOFError: the connection ended early.
    """
    read = b""
    while len(read) < size:
        part = connection.recv(size - len(read))
        if not part:
            raise EOFError
        read += part
    return read
