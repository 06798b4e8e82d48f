"""Routes of the page: JSON at /ui/v1/…, HTML elsewhere under /ui. A module for each subject."""
