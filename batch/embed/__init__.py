"""Describe crops of the detections that a view shows by vectors, without detecting again.

view, results --plan--> boxes without a row --stage--> rows of `embeddings`

The key of a row is the detection (inference key, image, rank) and the embedder key (model, margin).
"""
