"""The page at /ui: look at images, review detections, upload, compare and publish, in a browser or by its JSON API."""
