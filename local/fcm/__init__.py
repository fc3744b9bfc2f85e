"""A fake of Firebase Cloud Messaging on a real socket: `python -m local.fcm --port 9100`.

It speaks FCM v1 and the OAuth token endpoint, records each request with its outcome, delivers messages to listeners,
and can be made to misbehave for a registration token, in responses and on the socket.
"""

from local.fcm.behaviours import Behaviour
from local.fcm.fake import FakeFcm
from local.fcm.server import running, serve

__all__ = ["Behaviour", "FakeFcm", "running", "serve"]
