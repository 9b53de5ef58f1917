"""The floor under large GETs: a blocking server that answers every request with one file.

``python perf/bare.py sendfile|pread FILE PORT``: a thread a connection, nothing parsed but the end
of the request, the file already in the page cache. It serves until it is terminated.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from pathlib import Path

PIECE = 1 << 20


def send_file(client: socket.socket, file: int, size: int) -> None:
    sent = 0
    while sent < size:
        sent += os.sendfile(client.fileno(), file, sent, size - sent)


def send_pieces(client: socket.socket, file: int, size: int) -> None:
    piece = bytearray(min(PIECE, size))
    view = memoryview(piece)
    for offset in range(0, size, PIECE):
        length = os.preadv(file, [view[: size - offset]], offset)
        client.sendall(view[:length])


def serve(client: socket.socket, how: str, file: int, size: int) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode()
    send = {"sendfile": send_file, "pread": send_pieces}[how]
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    request = b""
    with client:
        while data := client.recv(65536):
            request += data
            if not request.endswith(b"\r\n\r\n"):
                continue
            request = b""
            try:
                client.sendall(head)
                send(client, file, size)
            except OSError:
                return  # the client has what it wanted


def main() -> None:
    how, name, port = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    file = os.open(name, os.O_RDONLY)
    size = os.fstat(file).st_size
    with socket.create_server(("127.0.0.1", port), backlog=1024) as listener:
        print("ready", flush=True)
        while True:
            client, _ = listener.accept()
            threading.Thread(target=serve, args=(client, how, file, size), daemon=True).start()


if __name__ == "__main__":
    main()
