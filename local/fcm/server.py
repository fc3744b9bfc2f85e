"""The fake's server. HTTP is parsed by h11 over asyncio streams, so that a response can break off anywhere."""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

import h11

from local.fcm import control
from local.fcm.behaviours import Behaviour, Reply, json_reply, reply
from local.fcm.fake import SEND, TOKEN, FakeFcm

LONGEST_SILENCE = 300


async def serve(fake_fcm: FakeFcm, port: int = 0, host: str = "127.0.0.1") -> tuple[asyncio.Server, str]:
    """Start the server; return it and its URL."""
    server = await asyncio.start_server(lambda r, w: _Connection(fake_fcm, r, w).run(), host, port)
    return server, f"http://{host}:{server.sockets[0].getsockname()[1]}"


@contextlib.contextmanager
def running(fake_fcm: FakeFcm, port: int = 0) -> Iterator[str]:
    """Serve in a separate thread; yields the URL."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="fcm-double", daemon=True)
    thread.start()
    server, url = asyncio.run_coroutine_threadsafe(serve(fake_fcm, port), loop).result()
    try:
        yield url
    finally:
        asyncio.run_coroutine_threadsafe(_stop(server), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _stop(server: asyncio.Server) -> None:
    server.close()
    connections = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in connections:
        task.cancel()
    await asyncio.gather(*connections, return_exceptions=True)


class _Connection:
    def __init__(self, fake_fcm: FakeFcm, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._double, self._reader, self._writer = fake_fcm, reader, writer
        self._http = h11.Connection(h11.SERVER)

    async def run(self) -> None:
        try:
            while (request := await self._request()) is not None:
                if not await self._answer(*request):
                    break
                self._http.start_next_cycle()
        except (h11.ProtocolError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._writer.close()

    async def _request(self) -> tuple[h11.Request, bytes] | None:
        request: h11.Request | None = None
        body = bytearray()
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                if self._http.they_are_waiting_for_100_continue:
                    await self._write(h11.InformationalResponse(status_code=100, headers=[]))
                self._http.receive_data(await self._reader.read(65_536))
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                assert request is not None
                return request, bytes(body)
            else:
                return None

    async def _answer(self, request: h11.Request, body: bytes) -> bool:
        """Respond to a request; return False when the connection has ended."""
        target = request.target.decode()
        path = target.partition("?")[0]
        if request.method == b"POST" and (send := SEND.fullmatch(path)):
            return await self._answer_message(path, send["project"], request, body)
        if request.method == b"POST" and path == TOKEN:
            return await self._reply(self._double.grant(b"assertion=" in body))
        answer = await control.answer(self._double, request.method.decode(), target, body)
        return await self._reply(answer or json_reply(404, {"error": "not found"}))

    async def _answer_message(self, path: str, project: str, request: h11.Request, body: bytes) -> bool:
        headers = {name.decode(): value.decode("latin-1") for name, value in request.headers}
        record, behaviour = await self._double.receive(path, headers, body)
        going_on = await self._act(behaviour, project)
        self._double.answered(record)
        return going_on

    async def _act(self, behaviour: Behaviour, project: str) -> bool:
        answer = reply(behaviour, project)
        if behaviour.kind == "half":
            assert answer is not None
            await self._write(_head(answer))
            self._writer.write(answer.body[: len(answer.body) // 2])
            await self._writer.drain()
            return False
        if behaviour.kind == "reset":
            linger = struct.pack("ii", 1, 0)  # close() then sends RST
            self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self._writer.transport.abort()
            return False
        if behaviour.kind == "silence":
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._reader.read(1), LONGEST_SILENCE)  # ends when the caller gives up
            return False
        return await self._reply(answer) if answer else False

    async def _reply(self, answer: Reply) -> bool:
        await self._write(_head(answer))
        await self._write(h11.Data(data=answer.body))
        await self._write(h11.EndOfMessage())
        return self._http.our_state is h11.DONE and self._http.their_state is h11.DONE

    async def _write(self, event: h11.Event) -> None:
        self._writer.write(self._http.send(event) or b"")
        await self._writer.drain()


def _head(answer: Reply) -> h11.Response:
    headers = [("Content-Type", answer.content_type), ("Content-Length", str(len(answer.body))), *answer.headers]
    return h11.Response(status_code=answer.status, headers=headers)
