"""The model server beside clients that mean it harm: what healthy requests get meanwhile, and what it keeps of it.

Usage: python benchmarks/attacks.py [--seconds N]

A server with its default limits, and for each attack a process that carries it out from another loopback address. A
healthy client asks for one image again as soon as it is answered, each time by a connection of its own, for so many
seconds alone, and for as many beside the attack. The ratio of the p99s is the result; a health check is asked each half
second.

Attackers and client share the processors with the server. What that alone costs is measured by the same client with a
bare server, a process that nobody attacks and that does nothing but answer: its p99 beside the attack on the other,
over its own alone.
"""

import argparse
import asyncio
import contextlib
import http.client
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from serving import Served, free_port, request  # noqa: E402  (benchmarks/serving.py, not the package)

HEAD = "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"


def connected(port: int) -> socket.socket:
    """A connection from another address of this machine."""
    return socket.create_connection(("127.0.0.1", port), 10, ("127.0.0.2", 0))


def held(port: int, many: int, sent: bytes) -> None:
    """So many connections that have sent this and wait; a closed one is opened again."""
    opened: list[socket.socket | None] = [None] * many
    while True:
        for place, one in enumerate(opened):
            with contextlib.suppress(OSError):
                if one is not None:
                    one.setblocking(False)
                    try:
                        if one.recv(65_536):
                            continue
                    except BlockingIOError:
                        continue
                    one.close()
                opened[place] = None
                opened[place] = connected(port)
                opened[place].sendall(sent)  # type: ignore[union-attr]
        time.sleep(0.2)


def no_body(port: int) -> None:
    """1,000 connections with headers and no body."""
    held(port, 1_000, HEAD.format(path="/invocations", length=9_999).encode())


def wrong_path(port: int) -> None:
    """1,040 connections with a body for nobody: one byte of it, and silence."""
    held(port, 1_040, HEAD.format(path="/nowhere", length=9_999).encode() + b"x")


def silent(port: int) -> None:
    """2,000 connections that say nothing."""
    held(port, 2_000, b"")


def junk(port: int) -> None:
    """4 MiB of numbers of no use, again and again."""
    body = b'{"inputs": [[' + b"1," * (2 * 2**20 - 20) + b"1]]}"
    while True:
        with contextlib.suppress(OSError), connected(port) as one:
            one.sendall(HEAD.format(path="/invocations", length=len(body)).encode() + body)
            one.recv(65_536)


def no_reader(port: int) -> None:
    """Requests for 500 images each, of which no answer is read."""
    sent = request(500, 0)
    opened = []
    while True:
        with contextlib.suppress(OSError):
            opened.append(connected(port))
            opened[-1].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_048)
            opened[-1].settimeout(1)
            for _ in range(5):
                opened[-1].sendall(sent)
        time.sleep(0.05)
        opened = opened[-200:]


ATTACKS = {work.__name__: (work, 4 if work is junk else 1) for work in (no_body, wrong_path, silent, junk, no_reader)}


def bare(port: int) -> None:
    """A server that answers whatever comes with the same few bytes."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
        await reader.readexactly(int(length or 0))
        writer.write(answer)
        writer.close()

    async def listen() -> None:
        await (await asyncio.start_server(serve, "127.0.0.1", port, backlog=2_048)).serve_forever()

    asyncio.run(listen())


def p99(taken: list[float]) -> float:
    """Milliseconds."""
    return 1e3 * float(np.percentile(taken, 99))


def healthy(port: int, seconds: float) -> tuple[list[float], dict[int, int], int]:
    """Seconds of requests, how many had which status, and how many health checks failed."""
    sent, taken, statuses, failed = request(1, 0), [], {}, 0
    begun = checked = time.perf_counter()
    while time.perf_counter() - begun < seconds:
        started, status = time.perf_counter(), 0
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 30) as one:
            one.sendall(sent)
            status = int(one.recv(65_536).split(b" ")[1])
        taken.append(time.perf_counter() - started)
        statuses[status] = statuses.get(status, 0) + 1
        if time.perf_counter() - checked > 0.5:
            checked = time.perf_counter()
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            try:
                connection.request("GET", "/health")
                failed += connection.getresponse().status != 200
            except OSError:
                failed += 1
            connection.close()
    return taken, statuses, failed


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--only", nargs="*", choices=ATTACKS, default=list(ATTACKS), help="these attacks (all)")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each attack, and before it (%(default)g)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ |= {
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        script = [sys.executable, str(ROOT / "benchmarks" / "serving.py"), "--register", name]
        uri = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db", "PYTHONPATH": str(ROOT)}
        subprocess.run(script, check=True, capture_output=True, cwd=folder, env=os.environ | uri)
        server = Served([sys.executable, "-m", "serving"], ROOT, folder)
        other = free_port()
        beside_it = multiprocessing.Process(target=bare, args=(other,), daemon=True)
        beside_it.start()
        head = ("attack", "answers beside it", "failed health checks", "p99 alone", "p99 beside", "ratio", "of a bare")
        print(f"| {' | '.join([*head, 'memory'])} |")
        print("|---|---|---:|---:|---:|---:|---:|---:|")
        try:
            for attack, (work, many) in ((name, ATTACKS[name]) for name in options.only):
                alone, bare_alone = (healthy(port, options.seconds)[0] for port in (server.port, other))
                processes = [
                    multiprocessing.Process(target=work, args=(server.port,), daemon=True) for _ in range(many)
                ]
                for process in processes:
                    process.start()
                time.sleep(2)
                beside, statuses, failed = healthy(server.port, options.seconds)
                bare_beside = healthy(other, options.seconds)[0]
                memory = server.memory()
                for process in processes:
                    process.kill()
                    process.join()
                says = ", ".join(f"{many} × {status or 'none'}" for status, many in sorted(statuses.items()))
                cells = [
                    *(attack, says, str(failed), f"{p99(alone):.1f} ms", f"{p99(beside):.1f} ms"),
                    *(f"{p99(beside) / p99(alone):.1f}", f"{p99(bare_beside) / p99(bare_alone):.1f}"),
                ]
                print(f"| {' | '.join([*cells, f'{memory:.0f} MiB'])} |", flush=True)
        finally:
            server.end()
            beside_it.kill()


if __name__ == "__main__":
    main()
