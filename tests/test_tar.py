"""Tar archives read where they lie: what is accepted, what is refused by name, and that nothing is unpacked."""

from __future__ import annotations

import gzip
import os
import pickle
import random
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest
from image_folders import files, labels
from imagenet_layouts import pack

from vggbench.errors import DataError, VggbenchError
from vggbench.images import archives, open_dataset, read_image
from vggbench.images.folder import open_folder
from vggbench.images.source import Member
from vggbench.images.tar_index import BLOCK, index, index_file

PICTURES = {f"{name}/{i}.jpg": f"{name} {i}".encode() * (50 * i + 1) for name in ("ant", "bee") for i in range(5)}


def member(name: str, data: bytes = b"", **fields) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_those_that_tarfile_sees(tmp_path, form):
    long = (
        {f"{'deep/' * 40}{'x' * 90}{i}.jpg": bytes([i]) * 700 for i in range(3)} if form != tarfile.USTAR_FORMAT else {}
    )
    named = {"ä ö.jpg": b"1", "./dot.jpg": b"22", "p" * 90 + "/" + "q" * 90: b"333", **long, **PICTURES}
    path = pack(tmp_path / "a.tar", named, format=form)
    with tarfile.open(path) as archive:
        expected = [(os.path.normpath(info.name), info.offset_data, info.size) for info in archive if info.isfile()]
    assert [(entry.name, entry.offset, entry.size) for entry in index_file(path)] == expected


def test_an_archive_is_as_good_as_the_folder_packed(tmp_path):
    folder = tmp_path / "set"
    for name, data in PICTURES.items():
        files(folder, name)
        (folder / name).write_bytes(data)
    packed = open_folder(pack(tmp_path / "set.tar", {f"top/{name}": data for name, data in PICTURES.items()}))
    plain = open_folder(folder)
    assert (labels(packed), packed.digests, packed.fingerprint) == (labels(plain), plain.digests, plain.fingerprint)
    assert (packed.name, packed.classes) == ("set", ("ant", "bee"))


def test_many_threads_read_members_at_once_and_another_process_could(tmp_path):
    path = pack(tmp_path / "set.tar", PICTURES)
    dataset = open_folder(path)
    order = random.Random(5).choices(range(len(dataset.images)), k=400)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda index: read_image(dataset, index), order))
    assert all(data == PICTURES[dataset.images[index].id] for index, data in zip(order, found, strict=True))
    again = pickle.loads(pickle.dumps(dataset.images[0].path))
    assert isinstance(again, Member)
    assert again.read_bytes() == PICTURES[dataset.images[0].id]


def test_nothing_is_written_beside_an_archive(tmp_path):
    path = pack(tmp_path / "data" / "set.tar", PICTURES)
    os.utime(path, (10**9, 10**9))  # digests are kept of what has not changed just now
    dataset = open_dataset(str(path), cache_root=tmp_path / "cache")
    read_image(dataset, 0)
    assert [each.name for each in (tmp_path / "data").iterdir()] == ["set.tar"]
    assert {each.name for each in (tmp_path / "cache").iterdir()} == {"datasets"}


def test_an_archive_that_changed_since_it_was_opened_is_named(tmp_path):
    path = pack(tmp_path / "set.tar", PICTURES)
    dataset = open_folder(path, cache_root=tmp_path / "cache")
    pack(path, {name: data[::-1] for name, data in PICTURES.items()})
    with pytest.raises(DataError, match="was changed while the run was on"):
        read_image(dataset, 0)
    os.utime(path, (1, 1))
    assert open_folder(path, cache_root=tmp_path / "cache").digests != dataset.digests
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(DataError, match="cannot be read: the archive ends before it does"):
        read_image(dataset, 9)
    path.unlink()
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_image(dataset, 0)


@pytest.mark.parametrize(
    ("info", "message"),
    [
        (member("../../etc/cron.d/x.jpg"), r"the name '../../etc/cron.d/x.jpg' leads out of the archive"),
        (member("a/../../x.jpg"), "leads out of the archive"),
        (member("/etc/passwd"), "the name '/etc/passwd' leads out"),
        (
            member("a/1.jpg", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
            "'a/1.jpg' is a symbolic link; accepted are plain",
        ),
        (member("a/1.jpg", type=tarfile.LNKTYPE, linkname="a/0.jpg"), "'a/1.jpg' is a hard link"),
        (member("a/1.jpg", type=tarfile.GNUTYPE_SPARSE), "'a/1.jpg' is a sparse file"),
        (member("a/1.jpg", pax_headers={"GNU.sparse.major": "1"}), "'a/1.jpg' is a sparse file"),
        (member("a/1.jpg", pax_headers={"path": "../x.jpg"}), "leads out of the archive"),
        (member("ant/0.jpg"), "holds 'ant/0.jpg' twice"),
        (member("ant/./0.jpg"), "holds 'ant/0.jpg' twice"),
    ],
)
def test_members_that_no_archive_of_images_holds_are_refused_by_name(tmp_path, info, message):
    path = pack(tmp_path / "set.tar", PICTURES)
    with tarfile.open(path, "a", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info)
    with pytest.raises(DataError, match=message) as caught:
        open_folder(path)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 4


def test_folders_pipes_devices_and_other_files_are_left_out(tmp_path):
    path = pack(
        tmp_path / "set.tar", PICTURES | {"README.md": b"x", "ant/.hidden.jpg": b"x", "__MACOSX/ant/0.jpg": b"x"}
    )
    with tarfile.open(path, "a") as archive:
        archive.addfile(member("folder.jpg", type=tarfile.DIRTYPE))
        archive.addfile(member("pipe.jpg", type=tarfile.FIFOTYPE))
        archive.addfile(member("disk.jpg", type=tarfile.BLKTYPE))
    dataset = open_folder(path)
    assert set(labels(dataset)) == set(PICTURES)
    assert "1 other file, 2 hidden files" in dataset.layout


@pytest.mark.parametrize("cut", [100, BLOCK, BLOCK + 10, 3 * BLOCK, -2 * BLOCK - 9000, -1])
def test_a_cut_archive_is_refused_wherever_it_is_cut(tmp_path, cut):
    path = pack(tmp_path / "set.tar", PICTURES)
    end = index_file(path)[-1]
    data = path.read_bytes()
    last = end.offset + -(-end.size // BLOCK) * BLOCK
    path.write_bytes(data[:last] if cut == -1 else data[:cut])
    with pytest.raises(DataError, match=r"cut|damaged|not a tar"):
        index_file(path)


def _refusal(path) -> VggbenchError | None:
    try:
        open_folder(path)
    except VggbenchError as error:
        return error
    return None


def test_damage_never_ends_in_anything_but_one_line(tmp_path):
    path = pack(tmp_path / "set.tar", PICTURES, format=tarfile.PAX_FORMAT, pax_headers={"comment": "x" * 300})
    data, dice = path.read_bytes(), random.Random(11)
    refused = 0
    for _ in range(300):
        damaged = bytearray(data)
        for _ in range(dice.randint(1, 8)):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        path.write_bytes(damaged[: dice.randint(1, len(damaged))] if dice.random() < 0.3 else damaged)
        why = _refusal(path)
        refused += why is not None
        assert why is None or (why.exit_code == 4 and "\n" not in str(why))
    assert refused > 50


def header(name: bytes, size: bytes, kind: bytes) -> bytes:
    """One whose checksum is right, whatever else it says."""
    fields = name.ljust(100, b"\0") + b"0" * 24 + size.ljust(12, b"\0") + b"0" * 12 + b" " * 8 + kind
    block = fields.ljust(257, b"\0") + b"ustar\x0000"
    block = block.ljust(BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


@pytest.mark.parametrize(
    ("size", "kind", "message"),
    [
        (b"77777777777", b"0", "should have 8,589,934,591 bytes from byte 512 on, but the archive ends at"),
        (b"\x80" + b"\xff" * 11, b"0", "should have .* bytes"),
        (b"\xff" * 12, b"0", "is no size"),
        (b"-1", b"0", r"should have -1 bytes"),
        (b"12x", b"0", "b'12x' is no size"),
        (b"77777777777", b"x", "should have 8,589,934,591 bytes"),
        (b"77777777777", b"L", "should have 8,589,934,591 bytes"),
        (b"0400000", b"x", "a header of 131,072 bytes at byte 512; accepted are 65,536"),
        (b"0400000", b"L", "a header of 131,072 bytes"),
    ],
)
def test_a_header_cannot_ask_for_memory_or_lead_elsewhere(tmp_path, size, kind, message):
    path = tmp_path / "set.tar"
    path.write_bytes(header(b"a/1.jpg", size, kind) + bytes(300 * BLOCK))
    with pytest.raises(DataError, match=message):
        index_file(path)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (b"20 size=99999999999\n", r"'a/1.jpg' should have 99,999,999,999 bytes"),
        (b"5012 size=" + b"9" * 5001 + b"\n", r"'a/1.jpg' should have -1 bytes"),
        (b"9" * 5000 + b" size=1\n", None),
    ],
    ids=["too large", "thousands of digits", "a length of thousands of digits"],
)
def test_a_pax_header_that_lies_is_refused_or_left_aside(tmp_path, record, message):
    path = tmp_path / "set.tar"
    path.write_bytes(
        header(b"p", b"%o" % len(record), b"x")
        + record.ljust(-(-len(record) // BLOCK) * BLOCK, b"\0")
        + header(b"a/1.jpg", b"0", b"0")
        + bytes(1024)
    )
    if message is None:
        assert [entry.size for entry in index_file(path)] == [0]
        return
    with pytest.raises(DataError, match=message):
        index_file(path)


def test_a_huge_image_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_IMAGE_BYTES", 100)
    with pytest.raises(DataError, match=r"'ant/1.jpg' has 255 bytes; accepted are 100 an image"):
        open_folder(pack(tmp_path / "set.tar", PICTURES))


def test_what_is_no_plain_tar_says_what_it_is(tmp_path):
    path = tmp_path / "set.tar"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../a/1.jpg", "x" * 600)
    with pytest.raises(DataError, match=r"is a zip archive\. Accepted are tar archives"):
        open_folder(path)
    path.write_bytes(gzip.compress(os.urandom(2000)))
    with pytest.raises(DataError, match=r"is compressed \(gzip\), so its members cannot be read one by one"):
        open_folder(path)
    path.write_bytes(b"GIF89a" + bytes(2000))
    with pytest.raises(DataError, match="is not a tar archive"):
        open_folder(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="is cut at byte 0"):
        open_folder(path)
    inner = pack(tmp_path / "inner.tar", PICTURES).read_bytes()
    with pytest.raises(DataError, match=r"archives in an archive \('n01440764.tar', ...\)"):
        open_folder(pack(path, {"n01440764.tar": inner}))
    files(tmp_path / "home", "x").joinpath("x").rename(tmp_path / "home" / "ILSVRC2012_img_train.tar")
    with pytest.raises(DataError, match="training archive holds an archive a class"):
        open_folder(tmp_path / "home")


def test_a_devkit_archive_that_would_unpack_without_end_is_refused(tmp_path, monkeypatch):
    from vggbench.images import truth

    monkeypatch.setattr(truth, "_MAX_DEVKIT_BYTES", 10_000)
    pack(tmp_path / "set" / "images.tar", {"ILSVRC2012_val_00000030.JPEG": b"x"})
    (tmp_path / "set" / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(gzip.compress(bytes(10_000_000)))
    with pytest.raises(DataError, match="holds more than 10,000 bytes, which the devkit does not"):
        open_folder(tmp_path / "set")
    (tmp_path / "set" / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(b"junk")
    with pytest.raises(DataError, match="cannot be decompressed"):
        open_folder(tmp_path / "set")


def test_an_index_reads_headers_only():
    """Of an archive of 6.7 GB it must not read the images."""
    headers = {
        number * ((64 << 20) + BLOCK): header(b"a/%d.jpg" % number, b"%o" % (64 << 20), b"0") for number in range(4)
    }
    asked = []

    def read(position: int, count: int) -> bytes:
        asked.append(count)
        return headers.get(position, bytes(count))

    assert [entry.size for entry in index(read, 1 << 40, "big.tar")] == [64 << 20] * 4
    assert asked == [BLOCK] * 5
