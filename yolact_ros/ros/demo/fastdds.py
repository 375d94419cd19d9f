"""Where Fast DDS looks for the profile that lets images through (config/fastdds_shm.xml)."""

from __future__ import annotations

import os
from pathlib import Path

from ament_index_python.packages import get_package_share_directory


def image_profile() -> tuple[str, str]:
    """Give the name and the value of the environment variable that selects the profile."""
    old = os.environ.get("ROS_DISTRO") in ("humble", "jazzy")
    name = "FASTRTPS_DEFAULT_PROFILES_FILE" if old else "FASTDDS_DEFAULT_PROFILES_FILE"
    return name, str(Path(get_package_share_directory("yolact_ros"), "config/fastdds_shm.xml"))
