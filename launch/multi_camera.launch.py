"""Launch one node with one model for several cameras, e.g. with results on `/yolact/front/...`.

ros2 launch yolact_ros multi_camera.launch.py cameras:='[front, rear]' images:={camera}/image_raw
"""

import yaml
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import SetRemap
from launch_ros.substitutions import FindPackageShare

# Argument -> name of the topic in the node, after the camera's name; default; what it carries.
TOPICS = {
    "images": ("image", "{camera}/image_raw", "images"),
    "depths": ("depth/image", "{camera}/depth/image_raw", "depth images, for 3-D results"),
    "camera_infos": ("camera_info", "{camera}/camera_info", "calibration"),
}


def generate_launch_description() -> LaunchDescription:
    node = PathJoinSubstitution([FindPackageShare("yolact_ros"), "launch", "yolact.launch.py"])
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "cameras", default_value="[front, rear]", description="Names of the cameras."
            ),
            *(
                DeclareLaunchArgument(
                    argument,
                    default_value=default,
                    description=f"Topic of each camera's {content}, where {{camera}} stands for "
                    "its name; a relative topic lies in the namespace.",
                )
                for argument, (_, default, content) in TOPICS.items()
            ),
            OpaqueFunction(function=_remappings),
            IncludeLaunchDescription(
                node, launch_arguments={"cameras": LaunchConfiguration("cameras")}.items()
            ),
        ]
    )


def _remappings(context: LaunchContext) -> list[SetRemap]:
    text = LaunchConfiguration("cameras").perform(context)
    try:
        cameras = yaml.safe_load(text)
    except yaml.YAMLError:
        cameras = None
    named = isinstance(cameras, list) and all(isinstance(n, str) and n for n in cameras)
    if not cameras or not named:
        raise RuntimeError(
            f"Launch argument cameras is {text!r}; expected a list of names, as in "
            "'[front, rear]'."
        )
    return [
        SetRemap(
            f"{camera}/{name}",
            LaunchConfiguration(argument).perform(context).replace("{camera}", camera),
        )
        for camera in cameras
        for argument, (name, _, _) in TOPICS.items()
    ]
