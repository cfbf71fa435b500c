"""Every message goes to all other connections, with trio-websocket as it comes."""

import sys

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, serve_websocket

clients: set[WebSocketConnection] = set()


async def send(client: WebSocketConnection, message: str | bytes) -> None:
    try:
        await client.send_message(message)
    except ConnectionClosed:
        clients.discard(client)


async def handle(request: WebSocketRequest) -> None:
    connection = await request.accept()
    clients.add(connection)
    try:
        while True:
            message = await connection.get_message()
            for client in clients - {connection}:
                await send(client, message)
    except ConnectionClosed:
        pass
    finally:
        clients.discard(connection)


trio.run(serve_websocket, handle, "127.0.0.1", int(sys.argv[1]), None)
