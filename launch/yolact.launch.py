"""The node: instances of the objects in a camera's images.

ros2 launch yolact_ros yolact.launch.py image:=/camera/image_raw
"""

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode, Node
from launch_ros.parameter_descriptions import ParameterFile, ParameterValue
from launch_ros.substitutions import FindPackageShare

# Arguments that are parameters of the node; where one is empty, the parameter file decides.
PARAMETERS = {
    "model": str,
    "backend": str,
    "cameras": list[str],
    "image_transport": str,
    "queue_policy": str,
    "max_frame_age": float,
    "score_threshold": float,
    "mask_encoding": str,
}
SWITCH = ["true", "false"]
SHOWN = ("overlay", "points", "markers")  # what config/yolact.rviz shows, of a node /yolact


def generate_launch_description() -> LaunchDescription:
    share = FindPackageShare("yolact_ros")
    arguments = [
        DeclareLaunchArgument(
            "image", default_value="image", description="Topic of the camera's images."
        ),
        DeclareLaunchArgument(
            "depth",
            default_value="depth/image",
            description="Topic of the depth images, registered to the camera's, for 3-D results.",
        ),
        DeclareLaunchArgument(
            "camera_info", default_value="camera_info", description="Topic of the calibration."
        ),
        DeclareLaunchArgument(
            "params_file",
            default_value=PathJoinSubstitution([share, "config", "yolact_node.yaml"]),
            description="YAML file of parameters; arguments below that are given override it.",
        ),
        DeclareLaunchArgument(
            "model",
            default_value="",
            description="Bundle (folder with model.json) or checkpoint; if the parameter file "
            "names none either, the model of the package.",
        ),
        DeclareLaunchArgument(
            "backend", default_value="", description="Library that runs the network."
        ),
        DeclareLaunchArgument(
            "cameras",
            default_value="",
            description="Names of several cameras, as in '[front, rear]'; see "
            "multi_camera.launch.py.",
        ),
        DeclareLaunchArgument(
            "image_transport",
            default_value="",
            choices=["", "raw", "compressed"],
            description="Form of the images: raw on the topic, or compressed on TOPIC/compressed.",
        ),
        DeclareLaunchArgument(
            "queue_policy",
            default_value="",
            choices=["", "latest", "all"],
            description="latest: the newest image; all: every image in order, for bags.",
        ),
        DeclareLaunchArgument(
            "max_frame_age",
            default_value="",
            description="Age in seconds above which an image is not processed (0 = no limit).",
        ),
        DeclareLaunchArgument(
            "score_threshold",
            default_value="",
            description="Minimum class score of a detection, 0 to 1.",
        ),
        DeclareLaunchArgument(
            "mask_encoding",
            default_value="",
            choices=["", "bits", "mono8", "rle", "none"],
            description="Form of the masks in the messages.",
        ),
        DeclareLaunchArgument(
            "namespace", default_value="", description="Namespace of the node and its topics."
        ),
        DeclareLaunchArgument("name", default_value="yolact", description="Name of the node."),
        DeclareLaunchArgument(
            "use_sim_time",
            default_value="false",
            choices=SWITCH,
            description="Use the time on /clock, for simulation and bags.",
        ),
        DeclareLaunchArgument(
            "autostart",
            default_value="true",
            choices=SWITCH,
            description="Configure and activate the node at once; false = wait for lifecycle "
            "events or `ros2 lifecycle set`.",
        ),
        DeclareLaunchArgument(
            "respawn",
            default_value="false",
            choices=SWITCH,
            description="Restart the node 2 s after it ends.",
        ),
        DeclareLaunchArgument(
            "log_level",
            default_value="info",
            choices=["debug", "info", "warn", "error", "fatal"],
            description="Minimum severity of log messages.",
        ),
        DeclareLaunchArgument(
            "rviz", default_value="false", choices=SWITCH, description="Show the results in RViz."
        ),
        DeclareLaunchArgument(
            "rviz_config",
            default_value=PathJoinSubstitution([share, "config", "yolact.rviz"]),
            description="RViz configuration file.",
        ),
        DeclareLaunchArgument(
            "fixed_frame",
            default_value="camera_link",
            description="RViz's fixed frame: one with z up that TF connects to the camera, or the "
            "frame_id of the images.",
        ),
    ]
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        namespace=LaunchConfiguration("namespace"),
        arguments=[
            *("-d", LaunchConfiguration("rviz_config")),
            *("-f", LaunchConfiguration("fixed_frame")),
        ],
        parameters=[{"use_sim_time": _value("use_sim_time", bool)}],
        # The file has the topics of a node with the usual name in no namespace.
        remappings=[
            (f"/yolact/{topic}", [LaunchConfiguration("name"), f"/{topic}"])
            for topic in ("overlay", "markers", "points")
        ],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
    return LaunchDescription([*arguments, OpaqueFunction(function=_node), rviz])


def _node(context: LaunchContext) -> list[LifecycleNode]:
    given = {
        name: _value(name, value_type)
        for name, value_type in PARAMETERS.items()
        if LaunchConfiguration(name).perform(context)
    }
    switches = {name: _value(name, bool) for name in ("use_sim_time", "autostart")}
    return [
        LifecycleNode(
            package="yolact_ros",
            executable="yolact_node",
            name=LaunchConfiguration("name"),
            namespace=LaunchConfiguration("namespace"),
            output="screen",
            emulate_tty=True,
            parameters=[
                ParameterFile(LaunchConfiguration("params_file"), allow_substs=True),
                {**switches, **given},
            ],
            remappings=[
                ("image", LaunchConfiguration("image")),
                ("depth/image", LaunchConfiguration("depth")),
                ("camera_info", LaunchConfiguration("camera_info")),
            ],
            arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
            respawn=LaunchConfiguration("respawn"),
            respawn_delay=2.0,
        )
    ]


def _value(name: str, value_type: type) -> ParameterValue:
    """An argument as a parameter of that type; as text, `1` would not do for a threshold."""
    return ParameterValue(LaunchConfiguration(name), value_type=value_type)
