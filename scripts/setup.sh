# Source this after `make env`: puts the environment, ROS 2 and this package on the paths.
#
#     source scripts/setup.sh
#
# After `python3 scripts/make_env.py --distro jazzy`:
#
#     YOLACT_DISTRO=jazzy source scripts/setup.sh
#
# Then `yolact`, `python` and ROS 2 programs find yolact_ros and its messages.

if [ -n "${BASH_VERSION:-}" ]; then
    _yolact_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
elif [ -n "${ZSH_VERSION:-}" ]; then
    _yolact_root=$(cd "$(dirname "${(%):-%x}")/.." && pwd)
else
    _yolact_root=$PWD
fi
_yolact_home=$_yolact_root
[ "${YOLACT_DISTRO:-kilted}" = kilted ] || _yolact_home=$_yolact_root/.$YOLACT_DISTRO
_yolact_venv=$_yolact_home/.venv
_yolact_prefix=$_yolact_home/install/yolact_ros

_yolact_prepend() { # NAME FOLDER: put FOLDER first in the path list NAME, once
    eval "_yolact_list=\${$1:-}"
    case ":$_yolact_list:" in
    *":$2:"*) ;;
    *) export "$1=$2${_yolact_list:+:$_yolact_list}" ;;
    esac
}

if [ ! -d "$_yolact_prefix" ]; then
    echo "yolact_ros is not built yet: run \`python3 scripts/make_env.py\` in $_yolact_root first." >&2
else
    _yolact_site=$(echo "$_yolact_venv"/lib/python3.*/site-packages)
    if [ -d "$_yolact_venv/share/rclpy" ]; then # ROS 2 came as wheels into the environment
        _yolact_prepend AMENT_PREFIX_PATH "$_yolact_venv"
        _yolact_prepend CMAKE_PREFIX_PATH "$_yolact_venv"
        for _yolact_libs in "$_yolact_site"/ros_*.libs "$_yolact_venv/lib"; do
            _yolact_prepend LD_LIBRARY_PATH "$_yolact_libs"
        done
        # The wheels restart every interpreter to set LD_LIBRARY_PATH, unless this is set.
        export _ROS_WHEELS_BOOTSTRAP_COMPLETE=1
        export ROS_VERSION=2 ROS_PYTHON_VERSION=3
        : "${RMW_IMPLEMENTATION:=rmw_fastrtps_cpp}" && export RMW_IMPLEMENTATION
    elif [ -z "${ROS_DISTRO:-}" ]; then
        echo "This environment was made with an installed ROS 2: source that ROS 2 first." >&2
    fi
    _yolact_prepend AMENT_PREFIX_PATH "$_yolact_prefix"
    _yolact_prepend CMAKE_PREFIX_PATH "$_yolact_prefix"
    _yolact_prepend LD_LIBRARY_PATH "$_yolact_prefix/lib"
    _yolact_prepend PYTHONPATH "$(echo "$_yolact_prefix"/lib/python3.*/site-packages)"
    _yolact_prepend PATH "$_yolact_venv/bin"
    export VIRTUAL_ENV=$_yolact_venv
fi
unset -f _yolact_prepend
unset _yolact_root _yolact_home _yolact_venv _yolact_prefix _yolact_site _yolact_list _yolact_libs
