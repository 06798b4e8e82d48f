"""Routes of the HTTP API, one file per resource; `serve/api/app.py` assembles them. Does not import Ray."""
