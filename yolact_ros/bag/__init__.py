"""Recorded bags, without ROS."""
