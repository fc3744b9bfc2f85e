"""Verification of APK Signature Schemes v2 and v3: the signature over the signed data, and the content digests.

No package on the index fits: apksigtool is AGPL-licensed, alpha and from 2021; apkverify cannot be installed and does
not support v3; androguard and pyaxmlparser read certificates but verify no content digests. The formats are those of
https://source.android.com/docs/security/features/apksigning/v2 and /v3; cryptography does the mathematics.

The checks are stricter than Android's: every signature and every digest must be of a kind that is verified here,
whereas Android picks the strongest and ignores the others; there must be one signer, the same in every scheme; signing
key rotation is not allowed. Parts that the schemes do not protect, such as padding in the signing block, are covered by
the declared SHA-256 of the whole file.
"""

import struct
from collections.abc import Iterator
from hashlib import sha256
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, padding, rsa
from nexmdm.runtime.errors import BuildRefused

from functions.apk_builds.apk_file import Apk, content_digests

V2, V3, V3_1 = 0x7109871A, 0xF05368C0, 0x1B93AD61
NAMES = {V2: "v2", V3: "v3", V3_1: "v3.1"}

STRIPPING_PROTECTION = 0xBEEFF00D  # attribute of v2: the number of a newer scheme that must also be present
ROTATION = {0x3BA06F8C: "proof of rotation", 0x559F8B02: "minimum SDK of a rotation", 0xC2A6B3BA: "rotation"}

_SHA256, _SHA512 = hashes.SHA256(), hashes.SHA512()


PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | dsa.DSAPublicKey


class Algorithm(NamedTuple):
    name: str
    key: type[PublicKey]
    content_digest: str
    arguments: tuple[Any, ...]


ALGORITHMS = {
    0x0101: Algorithm("RSA-PSS with SHA-256", rsa.RSAPublicKey, "sha256",
                      (padding.PSS(padding.MGF1(_SHA256), salt_length=32), _SHA256)),
    0x0102: Algorithm("RSA-PSS with SHA-512", rsa.RSAPublicKey, "sha512",
                      (padding.PSS(padding.MGF1(_SHA512), salt_length=64), _SHA512)),
    0x0103: Algorithm("RSA with SHA-256", rsa.RSAPublicKey, "sha256", (padding.PKCS1v15(), _SHA256)),
    0x0104: Algorithm("RSA with SHA-512", rsa.RSAPublicKey, "sha512", (padding.PKCS1v15(), _SHA512)),
    0x0201: Algorithm("ECDSA with SHA-256", ec.EllipticCurvePublicKey, "sha256", (ec.ECDSA(_SHA256),)),
    0x0202: Algorithm("ECDSA with SHA-512", ec.EllipticCurvePublicKey, "sha512", (ec.ECDSA(_SHA512),)),
    0x0301: Algorithm("DSA with SHA-256", dsa.DSAPublicKey, "sha256", (_SHA256,)),
}  # fmt: skip


class Signer(NamedTuple):
    """The data of one scheme's only signer. certificate: DER. digests: {algorithm id: content digest}."""

    certificate: bytes
    digests: dict[int, bytes]
    attributes: dict[int, bytes]

    @property
    def fingerprint(self) -> str:
        return sha256(self.certificate).hexdigest()


def verify(apk: Apk) -> str:
    """Verify the APK's signatures and contents; return the SHA-256 (hex) of the only signer's certificate.

    Raises:
        BuildRefused: with what was expected and what was found.
    """
    signers = {id_: _signer(id_, value) for id_, value in _blocks(apk).items()}
    if V2 in signers:
        _check_stripping(signers)
    fingerprints = {NAMES[id_]: signer.fingerprint for id_, signer in signers.items()}
    if len(set(fingerprints.values())) > 1:
        raise BuildRefused("signature", "the same signer in v2 and v3", str(fingerprints))
    _check_contents(apk, signers)
    return next(iter(fingerprints.values()))


def _blocks(apk: Apk) -> dict[int, memoryview]:
    ids = [id_ for id_, _ in apk.pairs if id_ in NAMES]
    for id_ in ids:
        if ids.count(id_) > 1:
            raise BuildRefused("signature", f"one {NAMES[id_]} block", str(ids.count(id_)))
    if V3_1 in ids:
        raise BuildRefused("signature", "one signing key for every Android version", "key rotation (a v3.1 block)")
    if not ids:
        found = "neither: v1 (JAR) signing only, or none"
        raise BuildRefused("signature", "APK Signature Scheme v2 or v3", found)
    return {id_: value for id_, value in apk.pairs if id_ in NAMES}


def _signer(id_: int, value: memoryview) -> Signer:
    block = Fields(value, f"the {NAMES[id_]} block")
    signers = block.nested()
    block.check_end()
    records = [signers.nested() for _ in signers.rest()]
    if len(records) != 1:
        raise BuildRefused("signature", f"one signer in {NAMES[id_]}", str(len(records)))
    record = records[0]
    signed_data = record.content()
    outer_range = (record.number(), record.number()) if id_ == V3 else None
    signatures = _by_algorithm(record.nested())
    public_key = record.content()
    record.check_end()

    signed = Fields(memoryview(signed_data), f"the {NAMES[id_]} signed data")
    digests = _by_algorithm(signed.nested())
    certificates = signed.nested()
    inner_range = (signed.number(), signed.number()) if id_ == V3 else None
    attributes = _attributes(signed.nested())
    # Further signed data is ignored by Android; some versions of apksigner write an empty field.
    if not certificates:
        raise BuildRefused("signature", f"a certificate in {NAMES[id_]}", "none")
    signer = Signer(certificates.content(), digests, attributes)
    _check_signatures(id_, signed_data, signatures, public_key)
    if list(signatures) != list(digests):
        expected = f"digests of the signatures' algorithms {_hex(signatures)}"
        raise BuildRefused("signature", expected, _hex(digests))
    if outer_range != inner_range:
        raise BuildRefused("signature", f"the signed SDK range {inner_range}", f"{outer_range} beside the signature")
    _check_certificate(signer.certificate, public_key)
    for attribute in ROTATION.keys() & attributes.keys():
        raise BuildRefused("signature", "one signing key for every Android version", ROTATION[attribute])
    return signer


def _by_algorithm(sequence: "Fields") -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    for _ in sequence.rest():
        entry = sequence.nested()
        id_ = entry.number()
        if id_ not in ALGORITHMS:
            known = ", ".join(f"{known:#06x} {algorithm.name}" for known, algorithm in ALGORITHMS.items())
            raise BuildRefused("signature", f"algorithms out of {known}", f"{id_:#06x}")
        if id_ in found:
            raise BuildRefused("signature", f"algorithm {id_:#06x} once", "twice")
        found[id_] = entry.content()
        entry.check_end()
    return found


def _attributes(sequence: "Fields") -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    for _ in sequence.rest():
        attribute = sequence.nested()
        id_ = attribute.number()
        if id_ in found:
            raise BuildRefused("signature", f"attribute {id_:#010x} once", "twice")
        found[id_] = attribute.remainder()
    return found


def _check_signatures(id_: int, signed_data: bytes, signatures: dict[int, bytes], public_key: bytes) -> None:
    if not signatures:
        raise BuildRefused("signature", f"a signature in {NAMES[id_]}", "none")
    try:
        key = serialization.load_der_public_key(public_key)
    except (ValueError, UnsupportedAlgorithm):
        raise BuildRefused("signature", f"a public key in {NAMES[id_]}", f"{len(public_key)} other bytes") from None
    for number, signature in signatures.items():
        algorithm = ALGORITHMS[number]
        if not isinstance(key, algorithm.key):
            raise BuildRefused("signature", f"a {algorithm.key.__name__} for {algorithm.name}", type(key).__name__)
        try:
            key.verify(signature, signed_data, *algorithm.arguments)
        except (InvalidSignature, ValueError):
            expected = f"a {NAMES[id_]} signature ({algorithm.name}) of the signed data"
            raise BuildRefused("signature", expected, "one that does not verify") from None


def _check_certificate(certificate: bytes, public_key: bytes) -> None:
    try:
        key = x509.load_der_x509_certificate(certificate).public_key()
        own = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion):
        raise BuildRefused("signature", "an X.509 certificate", f"{len(certificate)} other bytes") from None
    if own != public_key:
        raise BuildRefused("signature", "the certificate's own public key", "another one")


def _check_stripping(signers: dict[int, Signer]) -> None:
    """v2 names the newer scheme that the APK was also signed with; if that is missing, it was stripped."""
    value = signers[V2].attributes.get(STRIPPING_PROTECTION)
    if value is None:
        return
    if len(value) != 4:
        raise BuildRefused("signature", "a stripping protection of 4 bytes", f"{len(value)}")
    (scheme,) = struct.unpack("<I", value)
    if scheme == 3 and V3 not in signers:
        raise BuildRefused("signature", "the v3 block that v2 was made beside", "none: it was stripped")


def _check_contents(apk: Apk, signers: dict[int, Signer]) -> None:
    wanted = {ALGORITHMS[number].content_digest for signer in signers.values() for number in signer.digests}
    contents = content_digests(apk, sorted(wanted))
    for id_, signer in signers.items():
        for number, signed in signer.digests.items():
            name = ALGORITHMS[number].content_digest
            if contents[name] != signed:
                expected = f"contents with the {NAMES[id_]} {name} digest {signed.hex()[:128]}"
                raise BuildRefused("signature", expected, contents[name].hex())


def _hex(ids: dict[int, bytes]) -> str:
    return "[" + ", ".join(f"{id_:#06x}" for id_ in ids) + "]"


class Fields:
    """Reads fields in order: numbers of 4 bytes, and contents preceded by their length, within their parent."""

    def __init__(self, data: memoryview, what: str) -> None:
        self._data, self._what, self._at = data, what, 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def rest(self) -> Iterator[None]:
        """Iterates while data is left to read."""
        while self:
            yield

    def number(self) -> int:
        return int(struct.unpack("<I", self._take(4))[0])

    def content(self) -> bytes:
        return bytes(self._take(self.number()))

    def nested(self) -> "Fields":
        return Fields(self._take(self.number()), self._what)

    def remainder(self) -> bytes:
        return bytes(self._take(len(self._data) - self._at))

    def check_end(self) -> None:
        if self:
            left = len(self._data) - self._at
            raise BuildRefused("signature", f"nothing behind the last field of {self._what}", f"{left} bytes")

    def _take(self, count: int) -> memoryview:
        left = len(self._data) - self._at
        if count > left:
            raise BuildRefused("signature", f"a field of at most {left} bytes in {self._what}", f"{count}")
        self._at += count
        return self._data[self._at - count : self._at]
