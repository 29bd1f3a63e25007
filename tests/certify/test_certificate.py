"""A certificate of a real run holds, names what was changed, and says what it cannot do."""

import hashlib
import json
import shutil

import numpy as np
import pytest

from jdet.certify import __main__ as certify_command
from jdet.certify import certificate, merkle
from jdet.verify import __main__ as verify_command
from jdet.verify import segments
from tests.certify.flips import Certified, count_found


@pytest.fixture(scope="module")
def certified(tmp_path_factory):
    return Certified(tmp_path_factory.mktemp("certified"))


def verify(certified, *arguments):
    return verify_command.main([str(certified.file), *arguments])


def test_the_root_is_that_of_certificate_transparency():
    """Known answers: the trees of RFC 9162's test vectors (from its reference implementation)."""
    entries = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657"]
    entries = [bytes.fromhex(each) for each in entries]
    roots = {
        0: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        5: "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        7: "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    }
    for count, root in roots.items():
        assert merkle.root(entries[:count]) == root

    def top_down(held):
        if len(held) == 1:
            return hashlib.sha256(b"\0" + held[0]).digest()
        half = 1 << (len(held) - 1).bit_length() - 1
        return hashlib.sha256(b"\1" + top_down(held[:half]) + top_down(held[half:])).digest()

    many = [bytes([i]) for i in range(77)]
    assert merkle.root(many) == top_down(many).hex()


def test_it_holds_and_a_segment_is_trained_again_bit_for_bit(certified, capsys):
    assert verify(certified, "--segments=1", "--seed=3") == 0
    said = capsys.readouterr().out
    assert "FAIL" not in said and "note:" not in said
    assert "1 of 2 segments are trained again" in said and "equal bit for bit" in said
    assert "the certificate holds" in said


def test_what_is_in_it(certified):
    found = certificate.read(certified.file)
    assert found["id"] == certificate.digest(found)
    assert found["classes"] == ["cat", "dog"] and list(found["checkpoints"]) == ["2", "4", "6"]
    assert found["data"]["train"]["images"] == 4 and found["data"]["eval"]["objects"] == 3
    assert found["config"] == json.loads((certified.run / "config.json").read_text())
    assert list(found["modules"]) == ["tests.own_detector:GridDetector"]
    assert found["metrics"] == json.loads((certified.run / "run.json").read_text())["metrics"]
    (licence,) = found["licences"]
    assert (licence["licence"], licence["source"]) == ("CC0", "stated")
    (stretch,) = found["stretches"]
    assert stretch["first"] == 0 and stretch["machine"]["devices"] == 1
    card = certified.file.with_suffix(".md").read_text()
    assert all(text in card for text in (found["id"], "CC0", "cat, dog", "random: no weights"))


def test_every_change_is_found_and_named(certified):
    assert not certified.wrong()
    assert count_found(certified, count=12, seed=1) == 12
    assert not certified.wrong()


def test_other_changes_of_the_data(certified, capsys):
    split = certified.data / "ImageSets" / "Main" / "train.txt"
    names, image = split.read_text(), certified.data / "JPEGImages" / "image1.png"
    split.write_text("".join(sorted(names.splitlines(keepends=True), reverse=True)))
    assert "the images come in another order" in certified.wrong()
    split.write_text(names.replace("image1\n", "image4\n"))
    assert "image1 is missing" in certified.wrong()
    assert "image4 " in certified.wrong() and "is new" in certified.wrong()
    split.write_text(names)
    labels = certified.data / "labels.txt"
    labels.write_text("dog\ncat\n")
    assert "the classes are dog, cat now, and were cat, dog" in certified.wrong()
    labels.write_text("cat\ndog\n")
    moved = image.rename(certified.data / "away.png")
    assert "image1" in certified.wrong()
    moved.rename(image)
    leaves = certificate.leaves_file(certified.file)
    kept, held = leaves.read_text(), image.read_bytes()
    image.write_bytes(held + b"\0")
    leaves.write_text("torn")
    assert "nothing says which image differs" in certified.wrong()
    leaves.write_text(kept)
    image.write_bytes(held)
    assert not certified.wrong()


def test_moved_data_and_a_moved_run(certified, tmp_path, capsys):
    data = shutil.move(certified.data, tmp_path / "data")
    try:
        assert verify(certified, "--segments=0") == 1
        assert "--data=OLD=NEW" in capsys.readouterr().out
        place = f"--data={certified.data}={data}"
        assert verify(certified, "--segments=0", place) == 0
        assert verify(certified, "--segments=0", f"--data=elsewhere={data}") == 2
        assert f"--data={certified.data}=NEW" in capsys.readouterr().err
    finally:
        shutil.move(data, certified.data)
    for file in (certified.file, certificate.leaves_file(certified.file)):
        shutil.copy(file, tmp_path)
    copied = str(tmp_path / certified.file.name)
    assert verify_command.main([copied, "--segments=0"]) == 0  # where it was
    assert verify_command.main([copied, "--segments=0", f"--run={tmp_path}"]) == 2
    assert "--run=FOLDER" in capsys.readouterr().err


def test_nothing_is_replaced_unasked(certified, tmp_path, capsys):
    before = certified.file.read_bytes()
    assert certify_command.main([str(certified.run)]) == 2
    assert "--force" in capsys.readouterr().err and certified.file.read_bytes() == before
    out, card = tmp_path / "mine.json", tmp_path / "card.md"
    arguments = [str(certified.run), f"--out={out}", f"--card={card}"]
    assert certify_command.main(arguments) == 0
    assert "no licence is known of" in capsys.readouterr().out and "not stated" in card.read_text()
    (certified.data / "JPEGImages" / "LICENSE.txt").write_text("\nMIT License\nmore")
    assert certify_command.main([*arguments, "--force"]) == 0
    (licence,) = certificate.read(out)["licences"]
    assert licence["licence"] == "MIT License" and licence["source"].endswith("LICENSE.txt")
    (certified.data / "JPEGImages" / "LICENSE.txt").write_text("mine")
    assert verify_command.main([str(out), "--segments=0"]) == 1
    assert "LICENSE.txt was changed" in capsys.readouterr().out


def test_other_bits_fail_here_and_are_measured_elsewhere():
    near = segments.Retrained(2, 4, arrays=9, different=("params/a",), apart=0.01)
    assert not near.holds(0.05) and "bits must be equal" in near.describe(0.05)[-1]
    other = near._replace(elsewhere=("jax: 1 then, 2 now",))
    assert other.holds(0.05) and not other.holds(0.001)
    assert "within the tolerance" in other.describe(0.05)[1]
    assert "beyond the tolerance" in other.describe(0.001)[1]


def test_distance_is_a_share_of_the_way():
    before, there, here = ({"a": np.array([0.0, x], np.float32)} for x in (0.0, 2.0, 2.1))
    assert segments._apart(here, there, before) == pytest.approx(0.05, rel=1e-5)


def test_which_stretches_count():
    def stretch(first, jax):
        machine = {"cores": 1}
        return {"first": first, "code": "c", "versions": {"jax": jax}, "machine": machine}

    known, here = [stretch(0, "1"), stretch(4, "2")], stretch(0, "2")
    assert segments._elsewhere(known, here, 4, 6) == ()
    assert segments._elsewhere(known, here, 2, 4) == ("jax: 1 then, 2 now",)
    assert segments._elsewhere(known, here, 2, 6) == ("jax: 1 then, 2 now",)
    assert "earlier version" in segments._elsewhere([], here, 2, 6)[0]


def test_choice_of_segments():
    known = segments.segments([2, 4, 6, 8], from_start=True)
    assert known == [(0, 2), (2, 4), (4, 6), (6, 8)]
    assert segments.choose(known, 9, 0) == known
    assert segments.choose(known, 2, 1) == segments.choose(known, 2, 1)
    assert segments.segments([2], from_start=False) == []
