"""From a folder on disk to a Detector: image bytes in, Detections out. Knows neither Ray nor HTTP.

bytes --images.decode--> RGB --preprocess.prepare--> uint8 square + Fit --preprocess.to_tensor-->
tensor --runtimes--> raw arrays --decoders--> boxes in network px --nms--> boxes in image px

The store (`store.py`) keeps immutable versions and movable aliases; `detector.py` is the waist.
"""
