"""In which hundredth of the fleet a device is for a build: stable, and another one for every build.

A device is in the cohort of a rollout when its number is below the percentage, so a greater percentage only adds.
"""


def cohort(build_id: str, device_id: str) -> str:
    """SQL for a number from 0 to 99, of two SQL expressions: the first 32 bits of a SHA-256, modulo 100."""
    digest = f"encode(sha256(convert_to({build_id} || ':' || {device_id}, 'UTF8')), 'hex')"
    return f"mod(('x' || left({digest}, 8))::bit(32)::bigint, 100)"


def in_rollout(build: str, device_id: str) -> str:
    """SQL for whether a device is offered a build: in its cohort, and fit for the filter of its rollout.

    A caller that is no device yet is offered what every device is.

    Args:
        build: the name of a row of `apk_versions` in the statement, which takes the parameter `interval_seconds`.
    """
    return (
        f"coalesce({cohort(f'{build}.id', device_id)}, 99) < {build}.staged_rollout_percent"
        f" AND ({build}.rollout_filter IS NULL"
        f" OR device_matches({device_id}, {build}.rollout_filter, %(interval_seconds)s))"
    )
