"""Serves a detector over HTTP, with the standard library alone. Copy this file beside ``jdet_runtime.py``.

    python jdet_serve.py detector.onnx --port=8000
    curl --data-binary @image.jpg http://127.0.0.1:8000/detect
    curl http://127.0.0.1:8000/health

``POST /detect`` takes the bytes of an image and answers with JSON: boxes, scores, labels, names. What is
sent is limited in bytes, pixels and time, and what waits in number; whatever else happens, the next request
is answered. There is neither TLS nor a password: a proxy that has them belongs in front of it.
"""

import argparse
import contextlib
import io
import json
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jdet_runtime
import numpy as np
from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")


class Refused(Exception):
    """A request that is not answered: the HTTP status, and why."""


class Server(ThreadingHTTPServer):
    """One detector for all requests.

    Args:
        address: host and port.
        detector: image array or file → ``boxes``, ``scores``, ``labels``, ``names``, ``masks``.
        waiting: requests that may wait or be worked on; one more is answered 503.
        at_once: that are worked on at a time.
        most_bytes: of an upload.
        most_pixels: of an image.
        seconds: until a request must have arrived.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self,
        address,
        detector,
        waiting=32,
        at_once=1,
        most_bytes=32 << 20,
        most_pixels=50_000_000,
        seconds=10.0,
    ):
        super().__init__(address, Handler)
        Image.MAX_IMAGE_PIXELS = None  # ``most_pixels`` is looked at before anything is decoded
        self.detector, self.seconds = detector, seconds
        self.most_bytes, self.most_pixels = most_bytes, most_pixels
        self.room = threading.BoundedSemaphore(waiting)
        self.turn = threading.BoundedSemaphore(at_once)
        self.connections = threading.BoundedSemaphore(4 * waiting)
        self.arriving = {}  # connections, and until when their requests must be there
        self.answered = 0

    def verify_request(self, request, client_address):
        """Whether a connection is taken; one too many is closed."""
        return self.connections.acquire(blocking=False)

    def service_actions(self):
        """Ends the reading of what is late; called between connections, twice a second at least."""
        for connection, until in list(self.arriving.items()):
            if time.monotonic() > until and self.arriving.pop(connection, None):
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RD)

    def process_request_thread(self, request, client_address):
        """Answers one connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.arriving.pop(request, None)
            self.connections.release()

    def handle_error(self, request, client_address):
        """Says what went wrong; a connection that breaks is its client's affair."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            say(error)


def say(error):
    """One line on stderr."""
    print(f"{type(error).__name__}: {error}".splitlines()[0], file=sys.stderr, flush=True)


class Handler(BaseHTTPRequestHandler):
    """One connection, which is closed after its answer."""

    server_version = "jdet"
    sys_version = ""

    server: Any

    def setup(self):
        """Starts the time of the request."""
        super().setup()
        self.connection.settimeout(self.server.seconds)
        self.server.arriving[self.connection] = time.monotonic() + self.server.seconds

    def finish(self):
        """Reads what still comes, a while: closed before, a connection breaks and the answer with it."""
        super().finish()
        until, most = time.monotonic() + self.server.seconds, 4 * self.server.most_bytes
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            while most > 0 and (left := until - time.monotonic()) > 0:
                self.connection.settimeout(left)
                came = len(self.connection.recv(1 << 16))
                most = most - came if came else 0

    def do_GET(self):
        """``/health``: whether the server lives, and what it has done."""
        if self.path != "/health":
            return self.answer(404, {"error": "GET /health, or POST /detect"})
        return self.answer(200, {"status": "ok", "answered": self.server.answered})

    def do_POST(self):
        """``/detect``."""
        if self.path != "/detect":
            return self.answer(404, {"error": "POST /detect"})
        if not self.server.room.acquire(blocking=False):
            return self.answer(503, {"error": "too many requests at a time; try again"})
        try:
            data = self.body()
            with self.server.turn:
                found = self.server.detector(self.image(data))
            shown = {key: found[key] for key in ("boxes", "scores", "labels", "names")}
            if found["masks"] is not None:
                shown["masks"] = [jdet_runtime.runs(mask) for mask in found["masks"]]
            plain = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in shown.items()}
        except Refused as error:
            status, reason = error.args
            return self.answer(status, {"error": reason})
        except jdet_runtime.Unlike as error:
            return self.answer(422, {"error": str(error)})
        except MemoryError:
            return self.answer(413, {"error": "the image needs more memory than there is"})
        except Exception as error:  # of the detector, of many kinds
            say(error)
            return self.answer(500, {"error": f"the detector failed ({type(error).__name__})"})
        finally:
            self.server.room.release()
        self.server.answered += 1
        return self.answer(200, plain)

    def body(self):
        """The bytes sent, as many as announced."""
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            raise Refused(411, "a Content-Length is needed")
        if int(length) > self.server.most_bytes:
            raise Refused(413, f"{length} bytes; at most {self.server.most_bytes}")
        data = b""
        with contextlib.suppress(TimeoutError):
            data = self.rfile.read(int(length))
        if self.server.arriving.pop(self.connection, None) is None or len(data) < int(length):
            raise Refused(408, f"{len(data)} of {length} bytes within {self.server.seconds} s")
        return data

    def image(self, data):
        """Decoded, once its header says that it is no larger than it may be."""
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
                width, height = opened.size
                if width * height > self.server.most_pixels:
                    most = self.server.most_pixels
                    raise Refused(413, f"{width}x{height} pixels; at most {most}")
                return jdet_runtime.read(opened, self.server.detector.about["image"])
        except (Refused, jdet_runtime.Unlike, MemoryError):
            raise
        except Exception as error:  # of many kinds, by what is broken
            raise Refused(
                400, f"no image of {', '.join(FORMATS)} ({type(error).__name__})"
            ) from error

    def answer(self, status, record):
        """Sends JSON."""
        data = json.dumps(record).encode()
        self.close_connection = True
        with contextlib.suppress(OSError):  # the client has left
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(data)

    def log_message(self, format, *args):
        """One line per request on stderr would be the log of a proxy."""


def main():
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("detector")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--waiting", type=int, default=32, help="requests that may wait")
    parser.add_argument("--at_once", type=int, default=1, help="that are worked on at a time")
    args = parser.parse_args()
    detector = jdet_runtime.Detector(args.detector)
    with Server((args.host, args.port), detector, args.waiting, args.at_once) as server:
        print(f"http://{args.host}:{server.server_port}/detect", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


if __name__ == "__main__":
    sys.exit(main())
