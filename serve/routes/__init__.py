"""The routes of the HTTP API, a file for each part; `http_api.py` puts them together. No Ray here."""
