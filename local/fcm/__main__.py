"""`python -m local.fcm`: runs the fake as a process. Prints `listening on URL`, then serves until it is stopped."""

import argparse
import asyncio
import contextlib
import signal
from pathlib import Path

from local.fcm.account import service_account
from local.fcm.fake import FakeFcm
from local.fcm.server import serve


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m local.fcm", description="A fake of Firebase Cloud Messaging.")
    parser.add_argument("--host", default="127.0.0.1", help="the IP address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=9100, help="0 for any free one (default: 9100)")
    parser.add_argument(
        "--misbehave", type=float, default=0, metavar="SHARE", help="share of messages for which it misbehaves"
    )
    parser.add_argument("--account", type=Path, metavar="FILE", help="write a service account for it here")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(parser.parse_args()))


async def _serve(options: argparse.Namespace) -> None:
    server, url = await serve(FakeFcm(options.misbehave), options.port, options.host)
    if options.account:
        options.account.write_text(service_account(url))
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    print(f"listening on {url}", flush=True)
    await stopped.wait()
    server.close()


if __name__ == "__main__":
    main()
