"""Load models from a folder on disk and run them: image bytes in, Detections out. Imports neither Ray nor HTTP.

bytes --images.decode--> RGB --transform.preprocess: prepare--> uint8 square + Fit --to_tensor-->
tensor --runtimes--> raw arrays --decoders--> boxes in network px --transform.nms--> boxes in image px

The store (`store.py`) keeps immutable versions and movable aliases; callers run a model through `detector.py`.
"""
