"""The node: instances of the objects in a camera's images.

ros2 launch yolact_ros yolact.launch.py image:=/camera/image_raw
"""

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterFile, ParameterValue
from launch_ros.substitutions import FindPackageShare

# Arguments that are parameters of the node; where one is empty, the parameter file decides.
PARAMETERS = {"model": str, "score_threshold": float, "mask_encoding": str}


def generate_launch_description() -> LaunchDescription:
    parameter_file = PathJoinSubstitution(
        [FindPackageShare("yolact_ros"), "config", "yolact_node.yaml"]
    )
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "image", default_value="image", description="Topic of the camera's images."
            ),
            DeclareLaunchArgument(
                "params_file", default_value=parameter_file, description="YAML file of parameters."
            ),
            DeclareLaunchArgument(
                "model",
                default_value="",
                description="Bundle (folder with model.json) or checkpoint; empty: as the "
                "parameter file says, and if it says nothing the model of the package.",
            ),
            DeclareLaunchArgument(
                "score_threshold",
                default_value="",
                description="Class score, 0 to 1, that a detection must exceed; empty: as the "
                "parameter file says.",
            ),
            DeclareLaunchArgument(
                "mask_encoding",
                default_value="",
                choices=["", "bits", "mono8", "rle", "none"],
                description="Form of the masks in the messages; empty: as the parameter file "
                "says.",
            ),
            DeclareLaunchArgument(
                "namespace", default_value="", description="Namespace of the node and its topics."
            ),
            DeclareLaunchArgument("name", default_value="yolact", description="Name of the node."),
            DeclareLaunchArgument(
                "use_sim_time",
                default_value="false",
                choices=["true", "false"],
                description="Take the time from /clock, for simulation and bags.",
            ),
            DeclareLaunchArgument(
                "log_level",
                default_value="info",
                choices=["debug", "info", "warn", "error", "fatal"],
                description="Least severity of what the node logs.",
            ),
            DeclareLaunchArgument(
                "respawn",
                default_value="false",
                choices=["true", "false"],
                description="Start the node again, after 2 s, whenever it ends.",
            ),
            OpaqueFunction(function=_node),
        ]
    )


def _node(context: LaunchContext) -> list[Node]:
    overrides = {
        name: ParameterValue(LaunchConfiguration(name), value_type=value_type)
        for name, value_type in PARAMETERS.items()
        if LaunchConfiguration(name).perform(context)
    }
    use_sim_time = ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool)
    return [
        Node(
            package="yolact_ros",
            executable="yolact_node",
            name=LaunchConfiguration("name"),
            namespace=LaunchConfiguration("namespace"),
            output="screen",
            emulate_tty=True,
            parameters=[
                ParameterFile(LaunchConfiguration("params_file"), allow_substs=True),
                {"use_sim_time": use_sim_time, **overrides},
            ],
            remappings=[("image", LaunchConfiguration("image"))],
            arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
            respawn=LaunchConfiguration("respawn"),
            respawn_delay=2.0,
        )
    ]
