"""What goes with each decoder unless the config says otherwise: resize, scale, suppression.

Sources: the exporters' own inference code, as collected in the table of docs/models.md.
"""

from __future__ import annotations

from typing import Any

LETTERBOX = {"resize": "letterbox", "pad_value": 114}
STRETCH = {"resize": "stretch"}
RANKED: dict[str, Any] = {"kind": "none", "max_detections": 300}
"""Heads that suppress by themselves: rank, cut, and nothing else."""

IMAGENET: dict[str, Any] = {
    "divide_by": 255.0,
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
}
"""As torchvision's and timm's classifiers are trained, and RF-DETR."""
CLASSIFIER_SIDE_PX = 224
CLASSIFIER_FAMILIES: dict[str, dict[str, Any]] = {
    "efficientnet-lite": {"divide_by": 1.0, "mean": [127.0] * 3, "std": [128.0] * 3},
}
"""By what metadata call them, lower case and with hyphens; tensorflow/tpu, efficientnet/lite (MEAN_RGB, STDDEV_RGB)."""

PRESETS: dict[str, dict[str, Any]] = {
    "yolov5": {"preprocess": LETTERBOX, "nms": {"iou": 0.45}},
    "yolov8": {"preprocess": LETTERBOX, "nms": {"iou": 0.7}},
    "end2end": {"preprocess": LETTERBOX, "nms": RANKED},
    "yolox": {
        "preprocess": {
            "resize": "fit_top_left",
            "pad_value": 114,
            "channel_order": "BGR",
            "divide_by": 1.0,
        },
        "nms": {"iou": 0.45, "class_aware": False, "inclusive_px": True},
    },
    "rtdetr": {"preprocess": STRETCH, "nms": RANKED},
    "rtdetr_topk": {"preprocess": STRETCH, "nms": RANKED},
    "rtdetr_labels": {"preprocess": STRETCH, "nms": RANKED},
    "rfdetr": {
        "preprocess": {
            **STRETCH,
            "mean": [0.485, 0.456, 0.406],  # ImageNet, as RF-DETR is trained
            "std": [0.229, 0.224, 0.225],
        },
        "nms": RANKED,
    },
    "ssd": {"preprocess": STRETCH, "nms": {"iou": 0.6}},
    "tf_detection": {"preprocess": STRETCH, "nms": RANKED},
    "torchvision": {"preprocess": STRETCH, "nms": RANKED},
    "mmdet": {"preprocess": STRETCH, "nms": RANKED},
}
PRESETS["yolox_raw"] = PRESETS["yolox"]
PRESETS["yolov5_seg"] = PRESETS["yolov5"]
PRESETS["yolov8_seg"] = PRESETS["yolov8"]
PRESETS["end2end_seg"] = PRESETS["end2end"]

RECT_WHERE_FREE = {"yolov8", "yolov8_seg", "end2end", "end2end_seg"}
"""Ultralytics pads to the stride only, not to the square, where an export takes any size (`auto` of its
LetterBox); YOLOv5's own code does not."""
