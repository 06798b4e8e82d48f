"""What others need to know to find the detectors by handle."""

APP = "detect"
DEPLOYMENT = "Detector"
