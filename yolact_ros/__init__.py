"""Real-time instance segmentation for ROS 2: YOLACT, YOLACT++ and YolactEdge."""
