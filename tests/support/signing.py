"""Sign ZIPs with APK Signature Scheme v2 and v3, including invalid signatures that apksigner would never write.

signer = Signer()                      a key and its certificate
apk(zip_bytes, {V2: [signer.v2(zip_bytes)]})
"""

import hashlib
import struct
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, padding, rsa

V2, V3 = 0x7109871A, 0xF05368C0
MAGIC = b"APK Sig Block 42"


def prefixed(*parts: bytes) -> bytes:
    """Prefix each part with its length."""
    return b"".join(struct.pack("<I", len(part)) + part for part in parts)


def sections(unsigned: bytes) -> tuple[bytes, bytes, bytes]:
    """The entries, central directory and end record of a ZIP without a comment."""
    (start,) = struct.unpack_from("<I", unsigned, len(unsigned) - 6)
    return unsigned[:start], unsigned[start:-22], unsigned[-22:]


def content_digest(unsigned: bytes, name: str = "sha256") -> bytes:
    """The content digest, implemented independently of the code under test."""
    digests = []
    for section in sections(unsigned):
        for start in range(0, len(section), 1 << 20):
            chunk = section[start : start + (1 << 20)]
            digests.append(hashlib.new(name, b"\xa5" + len(chunk).to_bytes(4, "little") + chunk).digest())
    return hashlib.new(name, b"\x5a" + len(digests).to_bytes(4, "little") + b"".join(digests)).digest()


def apk(unsigned: bytes, pairs: list[tuple[int, bytes]]) -> bytes:
    """The ZIP with a signing block of these pairs before its central directory."""
    entries, directory, end = sections(unsigned)
    body = b"".join(struct.pack("<QI", len(value) + 4, id_) + value for id_, value in pairs)
    size = struct.pack("<Q", len(body) + 24)
    block = size + body + size + MAGIC
    start = struct.pack("<I", len(entries) + len(block))
    return entries + block + directory + end[:16] + start + end[20:]


class Signer:
    def __init__(self, key: Any = None) -> None:
        self.key = key or rsa.generate_private_key(public_exponent=65537, key_size=2048)
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "of a test")])
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder(name, name, self.key.public_key(), 1, now, now + timedelta(days=1))
        self.certificate = builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
        self.public_key = self.key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.fingerprint = hashlib.sha256(self.certificate).hexdigest()

    def sign(self, data: bytes, algorithm: int) -> bytes:
        digest = hashes.SHA512() if algorithm in (0x0102, 0x0104, 0x0202) else hashes.SHA256()
        if algorithm in (0x0101, 0x0102):
            return self.key.sign(data, padding.PSS(padding.MGF1(digest), digest.digest_size), digest)
        if isinstance(self.key, rsa.RSAPrivateKey):
            return self.key.sign(data, padding.PKCS1v15(), digest)
        if isinstance(self.key, dsa.DSAPrivateKey):
            return self.key.sign(data, digest)
        return self.key.sign(data, ec.ECDSA(digest))

    def record(
        self,
        unsigned: bytes,
        *,
        algorithms: tuple[int, ...] = (0x0103,),
        digests: dict[int, bytes] | None = None,
        attributes: tuple[bytes, ...] = (),
        certificates: tuple[bytes, ...] | None = None,
        sdk: tuple[int, int] | None = None,
        outer_sdk: tuple[int, int] | None = None,
        public_key: bytes | None = None,
        tail: bytes = b"",
    ) -> bytes:
        """One signer of a block; with `sdk`, of a v3 block. Omitted arguments get their correct values."""
        if digests is None:
            digests = {number: content_digest(unsigned, of(number)) for number in algorithms}
        entries = [struct.pack("<I", number) + prefixed(digest) for number, digest in digests.items()]
        signed = prefixed(prefixed(*entries), prefixed(*(certificates or (self.certificate,))))
        signed += struct.pack("<II", *sdk) if sdk else b""
        signed += prefixed(prefixed(*attributes))
        signatures = [struct.pack("<I", number) + prefixed(self.sign(signed, number)) for number in algorithms]
        outer = struct.pack("<II", *(outer_sdk or sdk)) if sdk else b""
        return prefixed(signed) + outer + prefixed(prefixed(*signatures), public_key or self.public_key) + tail


def of(algorithm: int) -> str:
    return "sha512" if algorithm in (0x0102, 0x0104, 0x0202) else "sha256"


def block(*records: bytes) -> bytes:
    return prefixed(prefixed(*records))
