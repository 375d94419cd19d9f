"""Several cameras, one node, one model; results of the camera `front` are on /yolact/front/...

ros2 launch yolact_ros multi_camera.launch.py cameras:='[front, rear]' topic:=/{camera}/image_raw
"""

import yaml
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import SetRemap
from launch_ros.substitutions import FindPackageShare


def generate_launch_description() -> LaunchDescription:
    node = PathJoinSubstitution([FindPackageShare("yolact_ros"), "launch", "yolact.launch.py"])
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "cameras", default_value="[front, rear]", description="Names of the cameras."
            ),
            DeclareLaunchArgument(
                "topic",
                default_value="/{camera}/image_raw",
                description="Topic of a camera's images; {camera} stands for its name.",
            ),
            OpaqueFunction(function=_remappings),
            IncludeLaunchDescription(
                node, launch_arguments={"cameras": LaunchConfiguration("cameras")}.items()
            ),
        ]
    )


def _remappings(context: LaunchContext) -> list[SetRemap]:
    topic = LaunchConfiguration("topic").perform(context)
    cameras = yaml.safe_load(LaunchConfiguration("cameras").perform(context))
    return [SetRemap(f"{camera}/image", topic.replace("{camera}", camera)) for camera in cameras]
