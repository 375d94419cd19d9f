"""Launch the node for one camera.

ros2 launch yolact_ros yolact.launch.py camera:=realsense
ros2 launch yolact_ros yolact.launch.py image:=/camera/image_raw
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import yaml
from ament_index_python.packages import (
    PackageNotFoundError,
    get_package_prefix,
    get_package_share_directory,
)
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node
from launch_ros.parameter_descriptions import ParameterFile

from yolact_ros.ros.inputs.transport import image_profile
from yolact_ros.ros.parameters.settings import Settings, StartSettings

# Arguments that are parameters of the node; where one is empty, the parameter file decides.
PARAMETERS = {
    "model": str,
    "backend": str,
    "cameras": list,
    "image_transport": str,
    "depth_transport": str,
    "queue_policy": str,
    "max_frame_age": float,
    "score_threshold": float,
    "mask_encoding": str,
    "use_sim_time": bool,
    "autostart": bool,
}
EXPECTED = {
    str: "text",
    float: "a number",
    bool: "true or false",
    list: "a list of names, as in '[front, rear]'",
}
SWITCH = ["true", "false"]

# Topics of the node, and the arguments that remap them to a camera's.
TOPICS = {"image": "image", "depth": "depth/image", "camera_info": "camera_info"}


def generate_launch_description() -> LaunchDescription:
    share = Path(get_package_share_directory("yolact_ros"))
    cameras = sorted(path.stem for path in (share / "config" / "cameras").glob("*.yaml"))

    def argument(
        name: str, description: str, default: str = "", choices: list[str] | None = None
    ) -> DeclareLaunchArgument:
        return DeclareLaunchArgument(
            name, default_value=default, description=description, choices=choices
        )

    return LaunchDescription(
        [
            argument(
                "camera",
                "Camera driver, which sets topics and parameters (config/cameras/*.yaml). They "
                "override params_file, and the arguments below override both.",
                choices=["", *cameras],
            ),
            argument("image", "Topic of the images."),
            argument(
                "depth", "Topic of the depth images for 3-D results, registered to the images."
            ),
            argument("camera_info", "Topic of the camera's calibration."),
            argument(
                "params_file",
                "YAML file of parameters, which the arguments of this launch file override.",
                str(share / "config" / "yolact_node.yaml"),
            ),
            *(_parameter_argument(name) for name in PARAMETERS),
            argument("namespace", "Namespace of the node and its topics."),
            argument("name", "Name of the node.", "yolact"),
            argument("respawn", "Restart the node 2 s after it ends.", "false", SWITCH),
            argument(
                "log_level",
                "Minimum severity of log messages.",
                "info",
                ["debug", "info", "warn", "error", "fatal"],
            ),
            argument(
                "dds_profile",
                "Fast DDS profile of the node, without which large images may be lost: auto "
                "(config/fastdds_shm.xml, unless the environment names a profile), off, or an "
                "XML file. The process of the camera needs the same profile.",
                "auto",
            ),
            argument("rviz", "Show the results in RViz.", "false", SWITCH),
            argument(
                "rviz_config", "RViz configuration file.", str(share / "config" / "yolact.rviz")
            ),
            argument(
                "fixed_frame",
                "Fixed frame of RViz: a frame with z up that TF connects to the camera, or, "
                "without TF, the frame_id of the images (then rotate the view to look along z).",
                "camera_link",
            ),
            OpaqueFunction(function=_launch),
        ]
    )


def _parameter_argument(name: str) -> DeclareLaunchArgument:
    """Declare an argument with the description and the choices of the node's parameter."""
    if name == "use_sim_time":
        metadata: dict = {"doc": "Use the time on /clock, for simulation and bags"}
    else:
        (metadata,) = (
            field.metadata
            for table in (StartSettings(), *vars(Settings()).values())
            for field in dataclasses.fields(table)
            if field.name == name
        )
    choices = SWITCH if PARAMETERS[name] is bool else metadata.get("choices")
    return DeclareLaunchArgument(
        name,
        default_value="",
        description=f"{metadata['doc']}.",
        choices=["", *choices] if choices else None,
    )


def _launch(context: LaunchContext) -> list[SetEnvironmentVariable | LifecycleNode | Node]:
    """Check all arguments before anything starts."""
    share = Path(get_package_share_directory("yolact_ros"))
    _check_file(context, "params_file", "a YAML file of parameters")
    given = {name: _text(context, name) for name in (*PARAMETERS, *TOPICS)}
    driver = _driver(share, _text(context, "camera"))
    several = bool(given["cameras"])
    if several and (given["image"] or driver):
        raise RuntimeError(
            "Launch arguments image and camera are for one camera, and cameras is for several; "
            "omit one of them. multi_camera.launch.py sets the topics of several cameras."
        )
    topics = {name: given[name] or driver.get("topics", {}).get(name, "") for name in TOPICS}
    values = {
        name: _value(name, given[name], kind) for name, kind in PARAMETERS.items() if given[name]
    }
    actions: list[SetEnvironmentVariable | LifecycleNode | Node] = []
    profile = _profile(context)
    if profile:
        actions.append(SetEnvironmentVariable(image_profile()[0], profile))
    if _text(context, "rviz") == "true":
        _check_file(context, "rviz_config", "a configuration of RViz")
        actions.append(_rviz())
    actions.append(
        LifecycleNode(
            package="yolact_ros",
            executable="yolact_node",
            name=LaunchConfiguration("name"),
            namespace=LaunchConfiguration("namespace"),
            output="screen",
            emulate_tty=True,
            parameters=[
                ParameterFile(LaunchConfiguration("params_file"), allow_substs=True),
                *([driver["parameters"]] if driver.get("parameters") else []),
                *([values] if values else []),
            ],
            remappings=[(TOPICS[name], topic) for name, topic in topics.items() if topic],
            arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
            respawn=LaunchConfiguration("respawn"),
            respawn_delay=2.0,
        )
    )
    return actions


def _text(context: LaunchContext, name: str) -> str:
    return LaunchConfiguration(name).perform(context).strip()


def _driver(share: Path, name: str) -> dict:
    """Return topics and parameters of a camera's driver; empty without a name."""
    if not name:
        return {}
    return yaml.safe_load((share / "config" / "cameras" / f"{name}.yaml").read_text())


def _value(name: str, text: str, kind: type) -> object:
    """Convert an argument to the type of its parameter; `1` as text is not a valid threshold."""
    if kind is str:
        return text
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = None
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    fits = isinstance(value, kind)
    if kind is list:
        fits = fits and bool(value) and all(isinstance(item, str) and item for item in value)
    if not fits:
        raise RuntimeError(f"Launch argument {name} is {text!r}; expected {EXPECTED[kind]}.")
    return value


def _check_file(context: LaunchContext, name: str, expected: str) -> None:
    """Report a missing file by the name of its argument."""
    if not Path(_text(context, name)).is_file():
        raise RuntimeError(
            f"Launch argument {name} is {_text(context, name)!r}, which is not a file; expected "
            f"{expected}."
        )


def _profile(context: LaunchContext) -> str:
    """Return the Fast DDS profile to set; empty to leave the environment unchanged."""
    chosen = _text(context, "dds_profile")
    variable, shipped = image_profile()
    if chosen == "off" or (chosen == "auto" and os.environ.get(variable)):
        return ""
    if chosen == "auto":
        return shipped
    _check_file(context, "dds_profile", "auto, off or an XML file of Fast DDS")
    return chosen


def _rviz() -> Node:
    try:
        get_package_prefix("rviz2")
    except PackageNotFoundError:
        raise RuntimeError(
            "Launch argument rviz is true, but rviz2 is not installed. Install it (apt install "
            "ros-$ROS_DISTRO-rviz2), or leave rviz out."
        ) from None
    return Node(
        package="rviz2",
        executable="rviz2",
        namespace=LaunchConfiguration("namespace"),
        arguments=[
            *("-d", LaunchConfiguration("rviz_config")),
            *("-f", LaunchConfiguration("fixed_frame")),
        ],
        # The file contains the topics of a node with the default name and without a namespace.
        remappings=[
            (f"/yolact/{topic}", [LaunchConfiguration("name"), f"/{topic}"])
            for topic in ("overlay", "markers", "points")
        ],
    )
