"""In which hundredth of the fleet a device is for a build: stable, and another one for every build.

A device is in the cohort of a rollout when its number is below the percentage, so a greater percentage only adds.
"""


def cohort(build_id: str, device_id: str) -> str:
    """SQL for a number from 0 to 99, of two SQL expressions: the first 32 bits of a SHA-256, modulo 100."""
    digest = f"encode(sha256(convert_to({build_id} || ':' || {device_id}, 'UTF8')), 'hex')"
    return f"mod(('x' || left({digest}, 8))::bit(32)::bigint, 100)"
