"""Locate the Fast DDS profile for large images (config/fastdds_shm.xml)."""

from __future__ import annotations

from pathlib import Path

from ament_index_python.packages import get_package_share_directory

from yolact_ros.ros.inputs.transport import profiles_variable


def image_profile() -> tuple[str, str]:
    """Return the name and the value of the environment variable that selects the profile."""
    return profiles_variable(), str(
        Path(get_package_share_directory("yolact_ros"), "config/fastdds_shm.xml")
    )
