from __future__ import annotations

import errno
import io
import os
import pickle
import stat
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sharp_maml.base import DataError
from sharp_maml.data import formats, open_dataset
from sharp_maml.data.formats import (
    Classes,
    Images,
    decode,
    open_tree,
    read_csv,
    read_folders,
    read_hdf5,
)
from sharp_maml.data.pickles import read_pickle
from tests.sharp_maml.data.conftest import WRITERS

Write = Callable[[str, Any], Path]
READ = {
    "zips": read_folders,
    "folders": read_folders,
    "csv": read_csv,
    "hdf5": read_hdf5,
    "pickles": read_pickle,
    "category-pickles": read_pickle,
}
HTML = b"\n<!DOCTYPE html><html><body>Quota exceeded</body></html>"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


def read(kind: str, path: Path) -> dict[str, list[np.ndarray]]:
    with ExitStack() as stack:
        return {label: list(images) for label, images in READ[kind](path, stack).items()}


def jpeg(size: int = 32) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)).save(buffer, "jpeg")
    return buffer.getvalue()


def a_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize("kind", WRITERS)
def test_every_form_of_miniimagenet_gives_the_same_pixels(kind: str, mini: Any, write: Write) -> None:
    dataset = open_dataset(write(kind, mini))
    assert dataset.name == ("miniimagenet-by-numbers" if kind == "category-pickles" else "miniimagenet")
    for split, classes in mini.items():
        expected = np.concatenate([np.stack(images) for images in classes.values()])
        np.testing.assert_array_equal(dataset.splits[split].images, expected)


def test_forms_with_wordnet_ids_have_one_digest(mini: Any, write: Write) -> None:
    kinds = [kind for kind in WRITERS if kind != "category-pickles"]
    assert len({open_dataset(write(kind, mini)).digest for kind in kinds}) == 1


def test_pickles_with_labels_name_their_classes_where_they_have_the_names(mini: Any, write: Write) -> None:
    directory = write("category-pickles", mini)
    first = 0
    for path, classes in zip(sorted(directory.iterdir(), key=lambda p: "train va te".find(p.stem.split("_")[-1][:2])),
                             mini.values(), strict=True):  # fmt: skip
        pack = pickle.loads(path.read_bytes())
        pack["labels"] = [label + first for label in pack["labels"]]
        pack["catname2label"] = {name: number for number, name in enumerate(classes, first)}
        path.write_bytes(pickle.dumps(pack, 2))
        first += len(classes)
    assert open_dataset(directory).digest == open_dataset(write("zips", mini)).digest


@pytest.mark.parametrize("protocol", range(2, 6))
def test_pickles_of_every_protocol_are_read(protocol: int, mini: Any, tmp_path: Path) -> None:
    data = np.stack(mini["test"]["n00000007"])
    pack = {"image_data": data, "class_dict": {"n00000007": list(np.arange(3))}}
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(pack, protocol))
    np.testing.assert_array_equal(read("pickles", path)["n00000007"], data)


def test_pickles_may_hold_a_list_of_arrays(tmp_path: Path) -> None:
    images = [np.full((4, 4, 3), value, np.uint8) for value in range(3)]
    (tmp_path / "x").write_bytes(pickle.dumps({"data": images, "labels": [64, 65, 64]}, 2))
    assert {label: len(found) for label, found in read("pickles", tmp_path / "x").items()} == {
        "label064": 2,
        "label065": 1,
    }


def test_pickles_of_python_2_are_read(tmp_path: Path) -> None:
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
        b"(I1\n(I1\nI1\nI1\nI3\ntcnumpy\ndtype\n(S'u1'\nI0\nI1\ntR"
        b"(I3\nS'|'\nNNNI-1\nI-1\nI0\ntbI00\nS'\\x00\\x80\\xff'\ntb"
    )
    (tmp_path / "x").write_bytes(b"(S'data'\n" + array + b"S'labels'\n(I7\nld.")
    ((image,),) = read("category-pickles", tmp_path / "x").values()
    assert image.tolist() == [[[0, 128, 255]]]


class Attack:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch attacked",)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_tries_to_run_code_is_refused_and_does_not_run(
    protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"image_data": Attack(), "class_dict": {}}, protocol))
    with pytest.raises(DataError, match=r"x\.pkl: this pickle asks for posix\.system.*Nothing was run"):
        read("pickles", tmp_path / "x.pkl")
    assert not (tmp_path / "attacked").exists()


@pytest.mark.parametrize("name", ["builtins eval", "numpy load", "numpy.core.multiarray fromfile", "codecs decode"])
def test_a_pickle_may_not_even_look_up_other_functions(name: str, tmp_path: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(b"c" + name.replace(" ", "\n").encode() + b"\n.")
    with pytest.raises(DataError, match="this pickle asks for"):
        read("pickles", tmp_path / "x.pkl")


@pytest.mark.parametrize("kind", ["O", "V8", "U3"])
def test_a_pickle_may_hold_arrays_of_plain_numbers_only(kind: str, tmp_path: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"image_data": np.zeros(2, kind), "class_dict": {}}))
    with pytest.raises(DataError, match=r"holds an array of type .*; only plain numbers are read"):
        read("pickles", tmp_path / "x.pkl")


@pytest.mark.parametrize(
    "pack",
    [
        {"image_data": np.zeros((2, 4, 4, 3), np.float32), "class_dict": {"a": [0]}},
        {"image_data": np.zeros((2, 4, 4), np.uint8), "class_dict": {"a": [0]}},
        {"image_data": np.zeros((2, 4, 4, 1), np.uint8), "class_dict": {"a": [0]}},
    ],
)
def test_a_pickle_of_other_arrays_is_refused(pack: Any, tmp_path: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(pack))
    with pytest.raises(DataError, match="expected uint8 images"):
        read("pickles", tmp_path / "x.pkl")


@pytest.mark.parametrize(
    "pack", [{"image_data": np.zeros((2, 4, 4, 3), np.uint8), "class_dict": {"a": [2]}}, {"data": []}, [1], {}]
)
def test_a_pickle_of_something_else_is_refused(pack: Any, tmp_path: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(pack))
    with pytest.raises(DataError, match="expected a pickled dictionary with image_data and class_dict"):
        read("pickles", tmp_path / "x.pkl")


@pytest.mark.parametrize("kind", ["zips", "pickles", "hdf5", "csv"])
@pytest.mark.parametrize(
    ("content", "message"),
    [(HTML, "found an HTML page"), (LFS, "found a git LFS pointer; run `git lfs pull`"), (b"", "found an empty file")],
)
def test_a_file_that_is_something_else_is_named_as_what_it_is(
    kind: str, content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / "train.file").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(kind, tmp_path / "train.file")


@pytest.mark.parametrize("kind", ["zips", "pickles", "hdf5"])
def test_a_truncated_file_is_named_so(kind: str, mini: Any, write: Write) -> None:
    path = next(path for path in write(kind, mini).iterdir() if "train" in path.name)
    os.truncate(path, path.stat().st_size * 2 // 3)
    with pytest.raises(DataError, match=r"train.*truncated or damaged file.*download it again"):
        read(kind, path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (HTML, "an HTML page"),
        (LFS, "a git LFS pointer"),
        (b"", "an empty file"),
        (jpeg()[:700], "truncated or damaged"),
    ],
)
def test_an_image_that_is_none_is_named_with_its_member(content: bytes, message: str, tmp_path: Path) -> None:
    path = a_zip(tmp_path / "train.zip", {"n00000001/1.jpg": jpeg(), "n00000001/2.jpg": content})
    with pytest.raises(DataError, match=rf"train\.zip: n00000001/2\.jpg: expected an image, found .*{message}"):
        read("zips", path)


def test_a_member_with_a_wrong_checksum_is_named(tmp_path: Path) -> None:
    path = a_zip(tmp_path / "train.zip", {"a/1.jpg": jpeg()})
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"expected to read a/1\.jpg, found .*CRC"):
        read("zips", path)


@pytest.mark.parametrize("name", ["../1.jpg", "a/../../1.jpg", "/etc/1.jpg", "C:/a/1.jpg", "..\\a\\1.jpg"])
def test_a_member_outside_the_archive_is_refused(name: str, tmp_path: Path) -> None:
    path = a_zip(tmp_path / "train.zip", {"a/1.jpg": jpeg(), name: jpeg()})
    with pytest.raises(DataError, match="points outside the archive"):
        read("zips", path)


def test_a_member_that_says_it_is_too_large_for_an_image_is_refused_unread(tmp_path: Path) -> None:
    path = a_zip(tmp_path / "train.zip", {"a/1.jpg": jpeg(), "a/2.jpg": b"small"})
    content = path.read_bytes()
    at = content.rindex(b"PK\x01\x02")  # of the last member in the directory, where its size is at 24
    path.write_bytes(content[: at + 24] + (1 << 30).to_bytes(4, "little") + content[at + 28 :])
    with pytest.raises(DataError, match=r"images of at most 256 MiB.* member 'a/2\.jpg' of 1024 MiB"):
        read("zips", path)


def test_a_large_member_that_is_no_image_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "MEMBER_BYTES", 10_000)
    assert list(read("zips", a_zip(tmp_path / "x.zip", {"a/1.jpg": jpeg(), "film.mp4": bytes(10_001)}))) == ["a"]


def test_no_more_of_a_member_is_unpacked_than_it_says_that_it_has(tmp_path: Path) -> None:
    path, size = tmp_path / "train.zip", 1 << 26
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/1.jpg", bytes(size))
    path.write_bytes(path.read_bytes().replace(size.to_bytes(4, "little"), (1000).to_bytes(4, "little")))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"expected to read a/1\.jpg, found .*CRC"):
            read("zips", path)
        assert tracemalloc.get_traced_memory()[1] < size / 8
    finally:
        tracemalloc.stop()


def test_compressions_that_cannot_be_unpacked_in_pieces_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "train.zip", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a/1.jpg", jpeg())
    with pytest.raises(DataError, match=r"stored or deflated, found .* in compression 12; .* pack them again"):
        read("zips", tmp_path / "train.zip")


def test_a_link_in_an_archive_is_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("a/1.jpg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "train.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(DataError, match="is a link"):
        read("zips", tmp_path / "train.zip")


def test_an_archive_may_have_a_folder_around_its_classes(tmp_path: Path) -> None:
    path = a_zip(tmp_path / "train.zip", {"train/a/1.jpg": jpeg(), "train/b/1.jpg": jpeg()})
    assert list(read("zips", path)) == ["a", "b"]


def test_members_may_be_spelt_with_a_leading_dot(tmp_path: Path) -> None:
    assert list(read("zips", a_zip(tmp_path / "x.zip", {"./a/1.jpg": jpeg()}))) == ["a"]


def test_files_that_are_no_images_are_passed_over(tmp_path: Path) -> None:
    members = {"a/1.jpg": jpeg(), "README.txt": b"x", "__MACOSX/a/1.jpg": b"x", "a/.hidden.jpg": b"x"}
    assert {label: len(found) for label, found in read("zips", a_zip(tmp_path / "x.zip", members)).items()} == {"a": 1}


@pytest.mark.parametrize(
    "members", [{"a/1.jpg": b"", "2.jpg": b""}, {"a/1.jpg": b"", "a/b/2.jpg": b""}, {"1.jpg": b""}]
)
def test_classes_at_different_depths_are_refused(members: dict[str, bytes], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected one folder of images a class, all side by side, found images in"):
        read("zips", a_zip(tmp_path / "x.zip", members))


def test_an_archive_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found no images"):
        read("zips", a_zip(tmp_path / "x.zip", {"README.txt": b""}))


def test_archives_are_read_in_place(tmp_path: Path) -> None:
    read("zips", a_zip(tmp_path / "x.zip", {"a/1.jpg": jpeg()}))
    assert [path.name for path in tmp_path.iterdir()] == ["x.zip"]


def test_a_csv_list_whose_images_are_absent_says_how_many(mini: Any, write: Write) -> None:
    directory = write("csv", mini)
    (directory / "images" / "n0000000100000000.jpg").unlink()
    with pytest.raises(DataError, match=r"12 files in .*images, found 11; n0000000100000000\.jpg is not there"):
        read("csv", directory / "train.csv")


def test_a_csv_list_without_its_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("filename,label\n1.jpg,a\n")
    with pytest.raises(DataError, match="found 0"):
        read("csv", tmp_path / "train.csv")


def test_a_csv_list_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "secret.jpg").write_bytes(jpeg())
    (tmp_path / "train.csv").write_text("filename,label\n../secret.jpg,a\n")
    with pytest.raises(DataError, match=r"\.\./secret\.jpg is not there"):
        read("csv", tmp_path / "train.csv")


def test_a_csv_list_with_other_columns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("name,class\n1.jpg,a\n")
    with pytest.raises(DataError, match="expected a list with the columns filename,label"):
        read("csv", tmp_path / "train.csv")


def test_without_h5py_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(DataError, match=r"pip install 'sharp-maml\[hdf5\]'"):
        read("hdf5", tmp_path / "train_data.hdf5")


def test_an_hdf5_file_without_the_group_is_refused(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    h5py.File(tmp_path / "x.hdf5", "w").close()
    with pytest.raises(DataError, match="expected an HDF5 file with the group `datasets`"):
        read("hdf5", tmp_path / "x.hdf5")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> bytes:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(b"")
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(DataError, match=r"1\.png: cannot be read \(Permission denied\)"):
        read("folders", tmp_path)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "CMYK"])
def test_images_of_any_8_bit_mode_become_rgb(mode: str) -> None:
    buffer = io.BytesIO()
    Image.new(mode, (5, 4)).save(buffer, "tiff")
    assert decode(buffer.getvalue(), "x", "RGB").mode == "RGB"


def test_an_image_of_16_bits_is_refused_rather_than_clipped() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4), 40000, np.uint16)).save(buffer, "png")
    with pytest.raises(DataError, match="x: expected 8 bits a channel, found mode I;16"):
        decode(buffer.getvalue(), "x", "RGB")


def test_images_come_in_order_however_many_threads_decode_them() -> None:
    images = Images(range(600), lambda i: Image.new("L", (1, 1), i % 256))
    assert [int(image.item()) for image in images] == [i % 256 for i in range(600)]
    assert len(images) == 600


def test_folders_and_zips_are_the_same_tree(mini: Any, write: Write) -> None:
    with ExitStack() as stack:
        zipped = open_tree(write("zips", mini) / "train.zip", stack)
        folder = open_tree(write("folders", mini) / "train", stack)
        assert zipped.names == folder.names
        assert all(zipped.read(name) == folder.read(name) for name in folder.names)


def test_the_readers_know_the_numbers_without_decoding(tmp_path: Path) -> None:
    path = a_zip(tmp_path / "x.zip", {"a/1.jpg": b"no image", "a/2.jpg": b"no image"})
    with ExitStack() as stack:
        classes: Classes = READ["zips"](path, stack)
        assert len(classes["a"]) == 2
