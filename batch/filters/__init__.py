"""Filters that correct which detections are shown, and how; the detections themselves never change.

A filter is a frozen config and a pure function from rows to assertions. The assertions of one filter form a layer.
"""
