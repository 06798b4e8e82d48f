"""Pixels to network input, and boxes of the network to the detections that are kept; pure functions of arrays."""
