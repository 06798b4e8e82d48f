"""Classify crops of the detections that a view shows, without detecting again.

view, results --plan--> boxes without a row --stage (Ray Data)--> rows of `classifications`

The key of a row is the detection (inference key, image, rank) and the classifier key (model, margin, classes). A new
detector has a new inference key, so existing classifications stay valid.
"""
