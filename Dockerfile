# The node in a container. This file has not been built yet, because it was written without Docker.
#   docker build -t yolact_ros --build-arg DISTRIBUTION=jazzy .
#   docker run --rm --net=host --ipc=host yolact_ros image:=/camera/image_raw
ARG DISTRIBUTION=kilted
FROM ros:${DISTRIBUTION}
ARG DISTRIBUTION
ENV PIP_BREAK_SYSTEM_PACKAGES=1

RUN apt-get update && apt-get install -y --no-install-recommends python3-pip \
    && rm -rf /var/lib/apt/lists/* \
    # apt's OpenCV is compiled for NumPy 1.
    && python3 -m pip install --no-cache-dir 'numpy<2' 'onnxruntime>=1.18' simplejpeg

WORKDIR /workspace
COPY . src/yolact_ros
RUN apt-get update && rosdep update --rosdistro ${DISTRIBUTION} \
    && rosdep install --from-paths src --ignore-src -y --rosdistro ${DISTRIBUTION} \
        --skip-keys "python3-onnxruntime-pip python3-simplejpeg-pip" \
    && rm -rf /var/lib/apt/lists/*
RUN . /opt/ros/${DISTRIBUTION}/setup.sh && colcon build --packages-select yolact_ros

ENV FASTDDS_DEFAULT_PROFILES_FILE=/workspace/install/yolact_ros/share/yolact_ros/config/fastdds_shm.xml
ENV FASTRTPS_DEFAULT_PROFILES_FILE=/workspace/install/yolact_ros/share/yolact_ros/config/fastdds_shm.xml
ENTRYPOINT ["/bin/bash", "-c", \
    "source /workspace/install/setup.bash && exec ros2 launch yolact_ros yolact.launch.py \"$@\"", "--"]
