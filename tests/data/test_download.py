"""The scripts of data/, against a small server on this machine."""

import hashlib
import http.server
import io
import re
import sys
import tarfile
import threading
import zipfile
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "data"


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves ``server.files`` with ranges; can cut connections short."""

    def do_GET(self):
        server = self.server
        name = self.path.rpartition("/")[2]
        range_header = self.headers.get("Range")
        server.requests.append((name, range_header))
        if name not in server.files:
            self.send_error(404)
            return
        data, start = server.files[name], 0
        if range_header and server.ranges:
            start = int(re.fullmatch(r"bytes=(\d+)-", range_header)[1])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        end = server.cuts.pop(0) if server.cuts else len(data)
        self.wfile.write(data[start:end])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.files, server.requests, server.cuts, server.ranges = {}, [], [], True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def download(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    import _download

    monkeypatch.setattr(_download, "PAUSE", 0.0)
    monkeypatch.setattr(_download, "CHUNK", 1000)
    yield _download
    for name in ("_download", "get_voc", "get_coco"):
        sys.modules.pop(name, None)


def tar_of(members):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(data, tuple):  # a link
                info.type, info.linkname = data
                archive.addfile(info)
            else:
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def zip_of(members):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def serve(download, server, data, name="set.tar", makes="set/a.txt", **changes):
    server.files[name] = data
    archive = download.Archive(
        name=name,
        urls=(f"http://127.0.0.1:{server.server_port}/x/{name}",),
        size=len(data),
        md5=hashlib.md5(data).hexdigest(),
        unpacked_size=len(data),
        makes=makes,
    )
    return archive._replace(**changes)


CONTENT = {"set/a.txt": b"hello", "set/b.bin": bytes(range(256)) * 40}


@pytest.mark.parametrize("pack, name", [(tar_of, "set.tar"), (zip_of, "set.zip")])
def test_download_unpack_and_run_again(download, server, tmp_path, capsys, pack, name):
    archive = serve(download, server, pack(CONTENT), name)
    assert download.get_all([archive], tmp_path / "new", False) == 0
    for member, data in CONTENT.items():
        assert (tmp_path / "new" / member).read_bytes() == data
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == [f".{name}.unpacked", "set"]
    out = capsys.readouterr().out
    assert "100 % of 0 MB" in out and f"{name}: unpacked to" in out

    download.get(archive, tmp_path / "new")
    assert len(server.requests) == 1 and "already unpacked" in capsys.readouterr().out
    (tmp_path / "new" / "set" / "a.txt").unlink()
    download.get(archive, tmp_path / "new", keep=True)
    assert len(server.requests) == 2 and (tmp_path / "new" / name).exists()


def test_resumes_where_connections_were_cut(download, server, tmp_path):
    data = tar_of(CONTENT)
    archive = serve(download, server, data)
    server.cuts = [3000, 7000]
    download.download(archive, tmp_path / "set.tar")
    assert (tmp_path / "set.tar").read_bytes() == data
    assert [r for _, r in server.requests] == [None, "bytes=3000-", "bytes=7000-"]
    assert not (tmp_path / "set.tar.part").exists()


def test_resumes_a_part_file_of_an_earlier_run(download, server, tmp_path):
    data = tar_of(CONTENT)
    archive = serve(download, server, data)
    (tmp_path / "set.tar.part").write_bytes(data[:5000])
    download.get(archive, tmp_path)
    assert server.requests == [("set.tar", "bytes=5000-")]
    assert (tmp_path / "set" / "b.bin").read_bytes() == CONTENT["set/b.bin"]


def test_server_without_ranges_sends_everything_again(download, server, tmp_path):
    data = tar_of(CONTENT)
    archive = serve(download, server, data)
    server.ranges, server.cuts = False, [3000]
    download.download(archive, tmp_path / "set.tar")
    assert (tmp_path / "set.tar").read_bytes() == data


def test_gives_up_when_nothing_arrives(download, server, tmp_path):
    archive = serve(download, server, tar_of(CONTENT))
    server.cuts = [0] * 100
    with pytest.raises(download.DownloadError, match=r"closed after 0 of 20480 bytes[\s\S]*again"):
        download.download(archive, tmp_path / "set.tar")
    assert len(server.requests) == download.ATTEMPTS


def test_next_address_is_tried(download, server, tmp_path):
    archive = serve(download, server, tar_of(CONTENT))
    base = archive.urls[0].rpartition("/")[0]
    server.files["login.html"] = b"<html>please log in</html>"
    urls = (f"{base}/gone.tar", f"{base}/login.html", "http://127.0.0.1:1/x", archive.urls[0])
    download.download(archive._replace(urls=urls), tmp_path / "set.tar")
    assert (tmp_path / "set.tar").read_bytes() == server.files["set.tar"]
    with pytest.raises(download.DownloadError) as error:
        download.download(archive._replace(urls=urls[:2]), tmp_path / "other.tar")
    assert "gone.tar: HTTP 404" in str(error.value)
    assert "login.html: offers 26 bytes, not 20480" in str(error.value)


def test_wrong_checksum_is_kept_aside(download, server, tmp_path, capsys):
    archive = serve(download, server, tar_of(CONTENT), md5="0" * 32)
    assert download.get_all([archive], tmp_path, False) == 1
    message = capsys.readouterr().err
    assert "set.tar is not the file it should be: MD5" in message and "set.tar.bad" in message
    assert [p.name for p in tmp_path.iterdir()] == ["set.tar.bad"]

    (tmp_path / "set.tar").write_bytes(b"too short")
    with pytest.raises(download.DownloadError, match="9 bytes, expected 20480 bytes with MD5"):
        download.get(archive, tmp_path)
    assert (tmp_path / "set.tar.bad").read_bytes() == b"too short"


EVIL = [
    tar_of({"set/a.txt": b"x", "../evil": b"x"}),
    tar_of({"set/a.txt": b"x", "set/../../evil": b"x"}),
    tar_of({"set/a.txt": b"x", "set/link": (tarfile.SYMTYPE, "../../evil")}),
    tar_of({"set/a.txt": b"x", "set/link": (tarfile.LNKTYPE, "/etc/passwd")}),
    tar_of({"set/a.txt": b"x", "set/pipe": (tarfile.FIFOTYPE, "")}),
    zip_of({"set/a.txt": b"x", "../evil": b"x"}),
    zip_of({"set/a.txt": b"x", "/tmp/evil": b"x"}),
]


@pytest.mark.parametrize("data", EVIL, ids=range(len(EVIL)))
def test_archives_that_would_leave_their_folder(download, server, tmp_path, data):
    root = tmp_path / "root"
    archive = serve(download, server, data)
    with pytest.raises(download.DownloadError, match=r"set.tar cannot be unpacked: "):
        download.get(archive, root)
    assert [p.name for p in root.iterdir()] == ["set.tar"]  # nothing was written
    assert [p.name for p in tmp_path.iterdir()] == ["root"]


@pytest.mark.parametrize(("pack", "name"), [(tar_of, "set.tar"), (zip_of, "set.zip")])
def test_archives_that_unpack_to_more_than_they_should(download, server, tmp_path, pack, name):
    data = pack({"set/a.txt": b"x" * 600, "set/b.txt": b"x" * 600})
    archive = serve(download, server, data, name, unpacked_size=599)
    with pytest.raises(download.DownloadError, match="holds 1200 bytes and more than 1198, which"):
        download.get(archive, tmp_path / "small")
    assert [p.name for p in (tmp_path / "small").iterdir()] == [name]  # nothing was written
    download.get(archive._replace(unpacked_size=600), tmp_path / "large")
    assert (tmp_path / "large" / "set" / "b.txt").stat().st_size == 600


def test_zip_with_a_symbolic_link(download, server, tmp_path):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        info = zipfile.ZipInfo("set/link")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(download.DownloadError, match="'set/link' would leave"):
        download.get(serve(download, server, out.getvalue(), "set.zip"), tmp_path)


def test_damaged_archive_and_missing_result(download, server, tmp_path):
    archive = serve(download, server, b"neither tar nor zip" * 100)
    with pytest.raises(download.DownloadError, match="cannot be unpacked"):
        download.get(archive, tmp_path / "a")
    archive = serve(download, server, tar_of(CONTENT), makes="set/c.txt")
    with pytest.raises(download.DownloadError, match="c.txt is not there"):
        download.get(archive, tmp_path / "b")


def test_disk_without_room(download, server, tmp_path):
    archive = serve(download, server, tar_of(CONTENT), unpacked_size=10**18)
    with pytest.raises(download.DownloadError, match=r"needs 1000000000.0 GB in .* GB are free"):
        download.get(archive, tmp_path)
    assert server.requests == []


def test_scripts_put_the_sets_where_the_sources_look(download, server, tmp_path, monkeypatch):
    import get_coco
    import get_voc

    folder = "VOCdevkit/VOC2007"
    data = tar_of({f"{folder}/ImageSets/Main/test.txt": b"000001\n", f"{folder}/JPEGImages/x": b""})
    makes = f"{folder}/ImageSets/Main/test.txt"
    monkeypatch.setitem(get_voc.ARCHIVES, 2007, (serve(download, server, data, makes=makes),))
    assert get_voc.main(["--root", str(tmp_path), "--years", "2007"]) == 0
    assert (tmp_path / makes).read_text() == "000001\n"

    data = zip_of({"annotations/instances_val2017.json": b"{}"})
    makes = "annotations/instances_val2017.json"
    archive = serve(download, server, data, "annotations.zip", makes=makes)
    monkeypatch.setitem(get_coco.ARCHIVES, "annotations", archive)
    assert get_coco.main(["--root", str(tmp_path), "--parts", "annotations"]) == 0
    assert (tmp_path / "coco" / makes).read_text() == "{}"


def test_known_archives(download):
    import get_coco
    import get_voc

    archives = [a for year in get_voc.ARCHIVES.values() for a in year]
    archives += get_coco.ARCHIVES.values()
    assert len({a.md5 for a in archives}) == len(archives) == 6
    for archive in archives:
        assert re.fullmatch("[0-9a-f]{32}", archive.md5) and archive.size > 10**8
        assert all(url.endswith("/" + archive.name) for url in archive.urls)
