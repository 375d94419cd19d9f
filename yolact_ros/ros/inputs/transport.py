"""Advise what to change if the middleware loses images between processes."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from ament_index_python.packages import get_package_share_directory

# The variables of Fast DDS 2 and Fast DDS 3; each version ignores the other's variable.
OLD_VARIABLE = "FASTRTPS_DEFAULT_PROFILES_FILE"
NEW_VARIABLE = "FASTDDS_DEFAULT_PROFILES_FILE"
OLD_DISTRIBUTIONS = ("humble", "iron", "jazzy")


def profiles_variable(environment: Mapping[str, str] = os.environ) -> str:
    """Return the environment variable that names a profile file of Fast DDS."""
    return OLD_VARIABLE if environment.get("ROS_DISTRO") in OLD_DISTRIBUTIONS else NEW_VARIABLE


def image_profile() -> tuple[str, str]:
    """Return the environment variable that selects a profile of Fast DDS, and the shipped one."""
    share = Path(get_package_share_directory("yolact_ros"))
    return profiles_variable(), str(share / "config" / "fastdds_shm.xml")


def only_this_machine(environment: Mapping[str, str] = os.environ) -> tuple[str, str]:
    """Return the environment variable, and its value, that keep traffic on this machine.

    Fast DDS on Humble adds this to the transports of a profile: those of `image_profile` still
    use the network.
    """
    if environment.get("ROS_DISTRO") == "humble":
        return "ROS_LOCALHOST_ONLY", "1"
    return "ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST"


def loss_advice(rmw: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return advice against lost images, given the current settings.

    Args:
        rmw: name of the middleware, such as `rmw_fastrtps_cpp`.
        environment: environment of this process.
    """
    if not rmw.startswith("rmw_fastrtps"):
        return (
            f"Increase the buffers of {rmw} for large messages (see its documentation; the "
            "system limit is net.core.rmem_max)."
        )
    variable = profiles_variable(environment)
    file = environment.get(variable, "")
    if not file:
        ignored = NEW_VARIABLE if variable == OLD_VARIABLE else OLD_VARIABLE
        hint = (
            f" ({ignored} is set, but this Fast DDS ignores it)" if ignored in environment else ""
        )
        return (
            f"Set {variable} to config/fastdds_shm.xml of this package before starting the camera "
            f"and the node{hint}."
        )
    try:
        profile = Path(file).read_text(errors="replace")
    except OSError as error:
        return f"{variable} is set to {file}, which cannot be read ({error.strerror})."
    sizes = [int(size) for size in re.findall(r"<segment_size>\s*(\d+)", profile)]
    if not sizes:
        return (
            f"The active profile, {file}, does not set segment_size for shared memory; compare it "
            "with config/fastdds_shm.xml of this package."
        )
    return (
        f"This node uses {file}, with {max(sizes) / 2**20:.0f} MiB of shared memory; the camera "
        "needs the same profile. If it has that, images may be too large for it "
        "(config/fastdds_4k.xml has more), or /dev/shm may be full (df -h /dev/shm; Docker's "
        "--shm-size)."
    )
