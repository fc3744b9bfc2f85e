"""APK signatures: those made by apksigner are accepted, all others refused."""

import contextlib
import io
import random
import struct
import zipfile

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec
from hypothesis import given
from hypothesis import strategies as st
from nexmdm.runtime.errors import BuildRefused

from functions.apk_builds import apk_file, apk_signature
from tests.support.builds import SIGNERS, sample
from tests.support.signing import V2, V3, Signer, apk, block, content_digest

STRIPPING = struct.pack("<II", 0xBEEFF00D, 3)
PADDING = 0x42726577
ANY_SDK = (24, 0x7FFFFFFF)


def verify(content: bytes) -> str:
    return apk_signature.verify(apk_file.parse(memoryview(content)))


def refusal(content: bytes) -> str:
    with pytest.raises(BuildRefused) as refused:
        verify(content)
    return refused.value.detail


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


@pytest.fixture(scope="module")
def unsigned() -> bytes:
    """A ZIP whose entries fill more than two chunks, so that the order and number of chunks matter."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("noise", random.Random(7).randbytes(2 * 1024 * 1024 + 17))
    return target.getvalue()


# --- files signed by apksigner


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("agent-1", "rsa"),
        ("agent-2-all", "rsa"),
        ("agent-2-debug", "rsa"),
        ("agent-2-v2", "rsa"),
        ("agent-2-v3", "rsa"),
        ("agent-2-ec", "ec"),
        ("agent-2-rsa4096", "rsa4096"),
        ("agent-2-other-key", "other"),
    ],
)
def test_files_signed_by_apksigner_are_accepted(name: str, key: str):
    assert verify(sample(name)) == SIGNERS[key]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("agent-2-v1", "expected APK Signature Scheme v2 or v3, found no APK Signing Block: v1 (JAR) signing only"),
        ("agent-2-two-signers", "expected one signer in v2, found 2"),
        ("agent-2-rotated", "expected one signing key for every Android version, found proof of rotation"),
        ("agent-2-verity", "found 0x0421"),
    ],
)
def test_refused_signature_is_named(name: str, says: str):
    assert says in refusal(sample(name))


@pytest.mark.parametrize("name", ["agent-2-v2", "agent-2-v3", "agent-2"])
def test_every_changed_byte_outside_padding_is_detected(name: str):
    """The schemes ignore pairs with unknown ids, and so does Android; the SHA-256 of the whole file covers them."""
    content = sample(name)
    parsed = apk_file.parse(memoryview(content))
    unnoticed = set()
    for at in range(len(content)):
        flipped = bytearray(content)
        flipped[at] ^= 0x01
        try:
            verify(bytes(flipped))
            unnoticed.add(at)
        except BuildRefused:
            pass
    at, allowed = parsed.block_start + 8, set()
    for id_, value in parsed.pairs:
        if id_ not in (V2, V3):
            allowed |= set(range(at + 8, at + 12 + len(value)))
        elif name == "agent-2" and id_ == V2:
            allowed |= set(range(at + 8, at + 12))  # v2 under another id leaves v3 as the only signature
        at += 12 + len(value)
    assert unnoticed <= allowed


@pytest.mark.parametrize("name", ["agent-2", "agent-2-v2", "agent-2-v3"])
def test_every_truncation_is_refused(name: str):
    content = sample(name)
    for size in range(0, len(content), 7):
        refusal(content[:size])


@given(st.data())
def test_any_changed_file_is_accepted_or_refused(data: st.DataObject):
    content = bytearray(sample("agent-2"))
    block_start = apk_file.parse(memoryview(bytes(content))).block_start
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(block_start, len(content) - 8))
        content[at : at + 4] = data.draw(
            st.sampled_from([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff"]) | st.binary(max_size=9)
        )
    with contextlib.suppress(BuildRefused):
        verify(bytes(content))


@given(st.binary(max_size=300))
def test_random_bytes_are_refused(content: bytes):
    refusal(content)
    refusal(content + b"PK\x05\x06" + content)


# --- files signed by the tests


def test_content_digest_matches_the_specification(unsigned: bytes, signer: Signer):
    content = apk(unsigned, [(V2, block(signer.record(unsigned)))])
    parsed = apk_file.parse(memoryview(content))
    for name in ("sha256", "sha512"):
        assert apk_file.content_digests(parsed, [name])[name] == content_digest(unsigned, name)


@pytest.mark.parametrize("number", [0x0101, 0x0102, 0x0103, 0x0104])
def test_every_rsa_algorithm_is_accepted(unsigned: bytes, signer: Signer, number: int):
    assert verify(apk(unsigned, [(V2, block(signer.record(unsigned, algorithms=(number,))))])) == signer.fingerprint


@pytest.mark.parametrize("number", [0x0201, 0x0202])
def test_every_elliptic_curve_algorithm_is_accepted(unsigned: bytes, number: int):
    curve = Signer(ec.generate_private_key(ec.SECP521R1()))
    content = apk(unsigned, [(V3, block(curve.record(unsigned, algorithms=(number,), sdk=ANY_SDK)))])
    assert verify(content) == curve.fingerprint


def test_dsa_signature_is_accepted(unsigned: bytes):
    old = Signer(dsa.generate_private_key(2048))
    assert verify(apk(unsigned, [(V2, block(old.record(unsigned, algorithms=(0x0301,))))])) == old.fingerprint


def test_signer_may_use_several_algorithms(unsigned: bytes, signer: Signer):
    record = signer.record(unsigned, algorithms=(0x0103, 0x0104))
    assert verify(apk(unsigned, [(V2, block(record))])) == signer.fingerprint


def test_padding_and_unknown_pairs_are_ignored(unsigned: bytes, signer: Signer):
    pairs = [(PADDING, b"\0" * 4000), (V2, block(signer.record(unsigned))), (0x504B4453, b"dependencies")]
    assert verify(apk(unsigned, pairs)) == signer.fingerprint


BAD_RECORDS = {
    "digest of something else": ({"digests": {0x0103: b"\0" * 32}}, "expected contents with the v2 sha256 digest 0000"),
    "digest of no size": ({"digests": {0x0103: b""}}, "digest"),
    "no digest": ({"digests": {}}, "expected digests of the signatures' algorithms [0x0103], found []"),
    "digest of another algorithm": (
        {"digests": {0x0104: b"\0" * 64}},
        "digests of the signatures' algorithms [0x0103], found [0x0104]",
    ),
    "no certificate": ({"certificates": (b"",)}, "expected an X.509 certificate, found 0 other bytes"),
    "no X.509": ({"certificates": (b"PEM",)}, "expected an X.509 certificate, found 3 other bytes"),
    "no key": ({"public_key": b"key"}, "expected a public key in v2, found 3 other bytes"),
    "more behind": ({"tail": b"more"}, "expected nothing behind the last field of the v2 block, found 4 bytes"),
    "an attribute twice": ({"attributes": (STRIPPING, STRIPPING)}, "expected attribute 0xbeeff00d once, found twice"),
    "a short attribute": ({"attributes": (STRIPPING[:6],)}, "expected a stripping protection of 4 bytes, found 2"),
    "stripped": ({"attributes": (STRIPPING,)}, "expected the v3 block that v2 was made beside, found none"),
}


@pytest.mark.parametrize("case", BAD_RECORDS)
def test_wrong_signed_block_is_refused(unsigned: bytes, signer: Signer, case: str):
    changes, says = BAD_RECORDS[case]
    assert says in refusal(apk(unsigned, [(V2, block(signer.record(unsigned, **changes)))]))


def test_removing_v3_from_an_apk_of_apksigner_is_detected(signer: Signer):
    content = sample("agent-2")
    parsed = apk_file.parse(memoryview(content))
    pairs = [(id_, bytes(value)) for id_, value in parsed.pairs if id_ != V3]
    end = bytearray(content[parsed.end_start :])
    struct.pack_into("<I", end, 16, parsed.block_start)
    zipped = content[: parsed.block_start] + content[parsed.directory_start : parsed.end_start] + bytes(end)
    assert "stripped" in refusal(apk(zipped, pairs))


def test_signature_of_another_key_is_refused(unsigned: bytes, signer: Signer):
    record = signer.record(unsigned, public_key=Signer().public_key)
    assert "found one that does not verify" in refusal(apk(unsigned, [(V2, block(record))]))


def test_certificate_of_another_key_is_refused(unsigned: bytes, signer: Signer):
    record = signer.record(unsigned, certificates=(Signer().certificate,))
    assert "expected the certificate's own public key, found another" in refusal(apk(unsigned, [(V2, block(record))]))


def test_key_of_another_type_is_refused(unsigned: bytes, signer: Signer):
    curve = Signer(ec.generate_private_key(ec.SECP256R1()))
    record = signer.record(unsigned, public_key=curve.public_key)
    assert "expected a RSAPublicKey for RSA with SHA-256" in refusal(apk(unsigned, [(V2, block(record))]))


def test_two_signers_or_none_are_refused(unsigned: bytes, signer: Signer):
    record = signer.record(unsigned)
    assert "expected one signer in v2, found 2" in refusal(apk(unsigned, [(V2, block(record, record))]))
    assert "expected one signer in v2, found 0" in refusal(apk(unsigned, [(V2, block())]))


def test_two_blocks_of_one_scheme_are_refused(unsigned: bytes, signer: Signer):
    pair = (V2, block(signer.record(unsigned)))
    assert "expected one v2 block, found 2" in refusal(apk(unsigned, [pair, pair]))


def test_different_signers_for_v2_and_v3_are_refused(unsigned: bytes, signer: Signer):
    pairs = [(V2, block(signer.record(unsigned))), (V3, block(Signer().record(unsigned, sdk=ANY_SDK)))]
    assert "expected the same signer in v2 and v3" in refusal(apk(unsigned, pairs))


def test_unsigned_sdk_range_is_refused(unsigned: bytes, signer: Signer):
    record = signer.record(unsigned, sdk=(28, 33), outer_sdk=ANY_SDK)
    assert "expected the signed SDK range (28, 33)" in refusal(apk(unsigned, [(V3, block(record))]))


@pytest.mark.parametrize("attribute", [0x3BA06F8C, 0x559F8B02, 0xC2A6B3BA])
def test_key_rotation_is_refused_by_name(unsigned: bytes, signer: Signer, attribute: int):
    record = signer.record(unsigned, sdk=ANY_SDK, attributes=(struct.pack("<I", attribute) + b"lineage",))
    assert "one signing key for every Android version" in refusal(apk(unsigned, [(V3, block(record))]))


def test_v3_1_block_counts_as_key_rotation(unsigned: bytes, signer: Signer):
    pairs = [(V3, block(signer.record(unsigned, sdk=ANY_SDK))), (0x1B93AD61, b"")]
    assert "key rotation (a v3.1 block)" in refusal(apk(unsigned, pairs))


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 1 << 20])
def test_hostile_lengths_are_refused(unsigned: bytes, signer: Signer, length: int):
    record = bytearray(block(signer.record(unsigned)))
    for at in (0, 4, 8, 12, 16):
        broken = bytearray(record)
        struct.pack_into("<I", broken, at, length)
        assert "expected a field of at most" in refusal(apk(unsigned, [(V2, bytes(broken))]))


@pytest.mark.parametrize("size", [0, 23, 2**63, 2**64 - 1, 2**32, 5_000_000])
def test_hostile_sizes_of_the_signing_block_are_refused(unsigned: bytes, signer: Signer, size: int):
    content = bytearray(apk(unsigned, [(V2, block(signer.record(unsigned)))]))
    start = apk_file.parse(memoryview(bytes(content))).directory_start
    struct.pack_into("<Q", content, start - 24, size)
    assert "APK Signing Block" in refusal(bytes(content))


@pytest.mark.parametrize("size", [0, 3, 2**64 - 1, 2**32])
def test_hostile_sizes_of_a_pair_are_refused(unsigned: bytes, signer: Signer, size: int):
    content = bytearray(apk(unsigned, [(V2, block(signer.record(unsigned)))]))
    start = apk_file.parse(memoryview(bytes(content))).block_start
    struct.pack_into("<Q", content, start + 8, size)
    assert "expected a pair of" in refusal(bytes(content))


def test_chunk_moved_between_sections_is_detected(unsigned: bytes, signer: Signer):
    """Sections are cut into chunks separately, so the same bytes with another section boundary have another digest."""
    content = bytearray(apk(unsigned, [(V2, block(signer.record(unsigned)))]))
    content[100], content[1024 * 1024 + 100] = content[1024 * 1024 + 100], content[100]
    assert "expected contents with" in refusal(bytes(content))


# --- ZIP


def test_comment_after_the_end_record_is_refused(unsigned: bytes, signer: Signer):
    content = apk(unsigned, [(V2, block(signer.record(unsigned)))])
    assert "found 5 bytes after the end-of-central-directory record" in refusal(
        content[:-2] + struct.pack("<H", 5) + b"hello"
    )


def test_bytes_between_directory_and_end_record_are_refused(unsigned: bytes, signer: Signer):
    content = apk(unsigned, [(V2, block(signer.record(unsigned)))])
    assert "ends where the end record begins" in refusal(content[:-22] + b"more" + content[-22:])


def test_zip64_is_refused(unsigned: bytes):
    content = unsigned[:-22] + b"PK\x06\x07" + bytes(16) + unsigned[-22:]
    assert "found ZIP64" in refusal(content)


def test_directory_just_below_four_gigabytes_is_read(tmp_path, signer: Signer):
    """Unsigned 32-bit offsets that would be negative as signed ones. The file is sparse and is never read whole."""
    import mmap

    value = block(b"")
    pair = struct.pack("<QI", len(value) + 4, V2) + value
    size = struct.pack("<Q", len(pair) + 24)
    signing_block = size + pair + size + apk_file.MAGIC
    directory_start = 2**32 - 1000
    path = tmp_path / "large.apk"
    with path.open("wb") as file:
        file.seek(directory_start - len(signing_block))
        file.write(signing_block + b"d" * 46)
        file.write(b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, 46, directory_start, 0))
    with path.open("rb") as file:
        parsed = apk_file.parse(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
    assert parsed.directory_start == directory_start
    assert parsed.block_start == directory_start - len(signing_block)
    assert [id_ for id_, _ in parsed.pairs] == [V2]


def test_directory_of_one_gigabyte_is_refused_before_it_is_read():
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, 0x7FFFFFFF, 0, 0)
    assert "a central directory of at most 16777216 bytes, found 2147483647" in refusal(b"\0" * 100 + end)
