"""Launch a camera that plays a video, and the node that segments it.

ros2 launch yolact_ros demo.launch.py
"""

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    LogInfo,
    SetEnvironmentVariable,
)
from launch.substitutions import EnvironmentVariable, LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from yolact_ros.ros.inputs.transport import image_profile


def generate_launch_description() -> LaunchDescription:
    share = FindPackageShare("yolact_ros")
    variable, profile = image_profile()
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "video",
                default_value=PathJoinSubstitution([share, "models", "demo", "tabletop.mp4"]),
                description="Video file for the camera to play.",
            ),
            DeclareLaunchArgument(
                "rate", default_value="0.0", description="Images per second (0 = as in the video)."
            ),
            DeclareLaunchArgument(
                "loop",
                default_value="true",
                choices=["true", "false"],
                description="Restart the video whenever it ends.",
            ),
            DeclareLaunchArgument(
                "model",
                default_value="",
                description="Shipped model, bundle folder or checkpoint file (empty = the "
                "default model).",
            ),
            # With its default settings, Fast DDS loses most images of a best-effort camera.
            SetEnvironmentVariable(variable, EnvironmentVariable(variable, default_value=profile)),
            IncludeLaunchDescription(
                PathJoinSubstitution([share, "launch", "yolact.launch.py"]),
                launch_arguments={
                    "image": "/camera/image_raw",
                    "model": LaunchConfiguration("model"),
                }.items(),
            ),
            Node(
                package="yolact_ros",
                executable="camera",
                name="camera",
                output="screen",
                emulate_tty=True,
                parameters=[
                    {
                        "video": ParameterValue(LaunchConfiguration("video"), value_type=str),
                        "rate": ParameterValue(LaunchConfiguration("rate"), value_type=float),
                        "loop": ParameterValue(LaunchConfiguration("loop"), value_type=bool),
                    }
                ],
            ),
            *_camera_frame(),
            LogInfo(
                msg="See the results with `ros2 topic echo /yolact/instances` or `ros2 topic hz "
                "/yolact/instances`, or launch with rviz:=true to see the overlay."
            ),
        ]
    )


def _camera_frame() -> list[Node | LogInfo]:
    """Connect the optical frame (z forward) to a frame with z up, which RViz can show."""
    try:
        get_package_prefix("tf2_ros")
    except PackageNotFoundError:
        return [
            LogInfo(msg="tf2_ros is not installed, so the frame camera_link is not published.")
        ]
    quarter = "-1.5707963267948966"
    return [
        Node(
            package="tf2_ros",
            executable="static_transform_publisher",
            name="camera_link",
            arguments=[
                *("--roll", quarter, "--yaw", quarter),
                *("--frame-id", "camera_link", "--child-frame-id", "camera_optical_frame"),
            ],
        )
    ]
