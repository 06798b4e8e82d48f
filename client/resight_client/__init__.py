"""Client of Resight for field stations: send the images of a folder, resumable and each content once.

send_folder("/media/card", Options(url="http://server:8000", model="deer", camera="north", token="…")) -> Summary
"""

from resight_client.send import Options, Summary, send_folder
from resight_client.server import ClientError, Rejected, Unreachable

__all__ = ["ClientError", "Options", "Rejected", "Summary", "Unreachable", "send_folder"]
