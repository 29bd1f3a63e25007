"""The serving example over loopback, with what is sent to servers on the open net."""

import concurrent.futures
import contextlib
import http.client
import io
import json
import socket
import struct
import sys
import threading
import types
import zlib

import numpy as np
import pytest
from PIL import Image

from jdet.export.onnx.environment import RUNTIME

KIND = {"channels": 3, "dtype": "uint8", "colour": "rgb", "reading": ""}


class Detector:
    """Finds one object, as large as the image; waits for ``gate`` where it is closed."""

    about = {"image": KIND}

    def __init__(self, unlike=None):
        self.unlike = unlike
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, image):
        assert self.gate.wait(20)
        if image.dtype != np.uint8:
            raise self.unlike(f"the image is {image.dtype}")
        if image.shape[0] == 13:
            raise self.unlike("the image is 13 high; the detector takes others")
        if image.shape[0] == 17:
            raise RuntimeError("the network broke\nin two")
        box = np.array([[0, 0, image.shape[1], image.shape[0]]], np.float32)
        found = {"boxes": box, "scores": np.float32([0.5]), "labels": np.int32([0])}
        return {**found, "names": ["all"], "masks": None}


@pytest.fixture(scope="module")
def serve():
    kept = {name: sys.modules.get(name) for name in ("onnxruntime", "jdet_runtime", "jdet_serve")}
    sys.modules["onnxruntime"] = types.ModuleType("onnxruntime")
    sys.path.insert(0, str(RUNTIME.parent))
    try:
        import jdet_serve  # pyrefly: ignore

        return jdet_serve
    finally:
        sys.path.remove(str(RUNTIME.parent))
        for name, module in kept.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module


@pytest.fixture
def server(serve):
    with running(serve, waiting=3, most_bytes=20_000, most_pixels=10_000, seconds=1.0) as server:
        yield server


@contextlib.contextmanager
def running(serve, **limits):
    detector = Detector(serve.jdet_runtime.Unlike)
    with serve.Server(("127.0.0.1", 0), detector, **limits) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def upload(width=40, height=30, format="PNG"):
    out = io.BytesIO()
    Image.new("RGB", (width, height), (9, 99, 200)).save(out, format)
    return out.getvalue()


def ask(server, body=b"", method="POST", path="/detect", headers=None):
    connection = http.client.HTTPConnection(*server.server_address, timeout=20)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read() or b"{}")
    finally:
        connection.close()


def bomb():
    """A PNG of a few bytes that says it has 60,000 × 60,000 pixels."""

    def chunk(kind, data):
        end = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + end

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 999)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_an_image_is_answered(server):
    for format in ("PNG", "JPEG"):
        status, found = ask(server, upload(format=format))
        assert status == 200 and found["boxes"] == [[0, 0, 40, 30]] and found["names"] == ["all"]
    assert ask(server, method="GET", path="/health") == (200, {"status": "ok", "answered": 2})


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({"body": b""}, 400),
        ({"body": b"hello"}, 400),
        ({"body": upload()[:60]}, 400),
        ({"body": upload(format="GIF")}, 400),
        ({"body": bomb()}, 413),
        ({"body": upload(200, 200)}, 413),
        ({"body": b"\xff" * 30_000}, 413),
        ({"body": upload(40, 13)}, 422),
        ({"body": upload(), "path": "/../etc/passwd"}, 404),
        ({"method": "GET"}, 404),
        ({"method": "DELETE"}, 501),
        ({"body": upload(), "headers": {"Content-Length": "-5"}}, 411),
        ({"body": upload(), "headers": {"Content-Length": "9" * 40}}, 413),
        ({"body": iter([upload()]), "headers": {"Transfer-Encoding": "chunked"}}, 411),
    ],
)
def test_what_is_no_image_is_refused(server, sent, status):
    if sent.get("method") == "DELETE":
        connection = http.client.HTTPConnection(*server.server_address, timeout=20)
        connection.request("DELETE", "/detect")
        assert connection.getresponse().status == status
        connection.close()
    else:
        assert ask(server, **sent)[0] == status
    assert ask(server, upload())[0] == 200


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\0\xff\n\r\n",
        b"POST /detect HTTP/1.1\r\nContent-Length: 500\r\n\r\nonly this",
        b"GET " + b"a" * 100_000,
        b"POST /detect HTTP/1.1\r\n" + b"x: y\r\n" * 500 + b"\r\n",
    ],
    ids=["nothing", "noise", "part", "long", "headers"],
)
def test_broken_connections_do_no_harm(server, sent):
    """Left open without an end: the server's time is over first."""
    with socket.create_connection(server.server_address, timeout=20) as connection:
        connection.sendall(sent)
        assert ask(server, upload())[0] == 200
        connection.settimeout(20)
        while True:  # until the server closes it
            try:
                if not connection.recv(1 << 16):
                    break
            except ConnectionResetError:
                break
    assert ask(server, upload())[0] == 200


def test_a_failing_detector_is_said(server, capfd):
    status, found = ask(server, upload(40, 17))
    assert status == 500 and found == {"error": "the detector failed (RuntimeError)"}
    assert capfd.readouterr().err == "RuntimeError: the network broke\n"
    assert ask(server, upload())[0] == 200


def test_only_the_formats_that_are_named_are_decoded(server, monkeypatch):
    """One of Pillow's other formats must not get at bytes whose size another format has told."""
    opened, real = [], Image.open

    def spy(file, *args, **kwargs):
        opened.append(kwargs.get("formats"))
        return real(file, *args, **kwargs)

    monkeypatch.setattr(Image, "open", spy)
    assert ask(server, upload())[0] == 200
    assert opened == [("JPEG", "PNG", "WEBP", "BMP", "TIFF")]


def test_deep_images_are_unlike_the_training(server):
    out = io.BytesIO()
    Image.fromarray(np.full((30, 40), 999, np.uint16)).save(out, "PNG")
    status, found = ask(server, out.getvalue())
    assert status == 422 and "the image is uint16" in found["error"]


def test_who_sends_much_hears_the_answer(serve):
    """What a refusal has not read would break the connection, and with it the answer."""
    with running(serve, waiting=1, most_bytes=3 << 20, most_pixels=10_000, seconds=5.0) as server:
        assert ask(server, b"\xff" * (6 << 20))[0] == 413
        assert ask(server, b"\xff" * (6 << 20), path="/other")[0] == 404
        server.room.acquire()
        assert ask(server, b"\xff" * (2 << 20))[0] == 503
        server.room.release()
        assert ask(server, upload())[0] == 200


def test_one_too_many_is_told_to_come_again(server):
    server.detector.gate.clear()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(ask, server, upload()) for _ in range(8)]
        done, _ = concurrent.futures.wait(
            asked, timeout=20, return_when=concurrent.futures.FIRST_COMPLETED
        )
        assert done and ask(server, method="GET", path="/health")[0] == 200
        while sum(each.done() for each in asked) < 5:
            concurrent.futures.wait([x for x in asked if not x.done()], timeout=0.05)
        server.detector.gate.set()
        statuses = sorted(each.result()[0] for each in asked)
    assert statuses == [200] * 3 + [503] * 5
