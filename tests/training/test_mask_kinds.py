"""What the numbers, colours and names of masks mean: each is read, or refused with the option that reads it."""

import contextlib

import numpy as np
import pytest

from _folders import SIZE, ids, mask, pairs, picture
from dropzoo.training.data.files.table import Reading
from dropzoo.training.data.folders import read_folder
from dropzoo.training.data.load import load_data


def numbered_objects(n):
    return np.arange(48, dtype=np.uint16).reshape(SIZE) // 4 * (1 + n % 2) + 1


GRID = np.arange(48).reshape(SIZE)
COLOURS = np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0]], np.uint8)

# The mask of a number, what refuses it, what reads it, and the number of classes.
MASKS = {
    "ids": (lambda n: ids(3), None, None, 3),
    "white": (lambda n: 255 * ids(), None, None, 2),
    "16 bits": (lambda n: 65535 * ids().astype(np.uint16), None, None, 2),
    "true": (lambda n: ids().astype(bool), None, None, 2),
    "own numbers": (lambda n: (GRID + 48 * n).astype(np.uint16), "instances", "instances", 2),
    "from one on": (lambda n: (GRID // (2 + n)).astype(np.uint8), "instances", "instances", 2),
    "one object": (lambda n: ids() * np.uint8(n + 1), "instances", "instances", 2),
    "former jpeg": (lambda n: abs(255 * (ids() > 0) - ids(3)).astype(np.uint8), "threshold", "threshold", 2),
    "smooth": (lambda n: (248 * ids() + np.eye(*SIZE) * 7).astype(np.uint8), "threshold", "threshold=100", 2),
    "colours": (lambda n: COLOURS[ids(3)], "palette", "palette", 3),
    "grey in colour": (lambda n: np.stack([ids(3)] * 3, -1), None, None, 3),
    "alpha": (lambda n: np.dstack([np.zeros((*SIZE, 3), np.uint8), 255 * ids()]), "alpha", "alpha", 2),
}


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize("name", MASKS)
def test_masks_are_read_or_refused_with_the_option_that_reads_them(tmp_path, name):
    make, refused, said, classes = MASKS[name]
    for number in range(9):
        picture(tmp_path / "images" / f"{number}.png")
        mask(tmp_path / "masks" / f"{number}.png", make(number))
    with pytest.raises(ValueError, match=f"--masks-as {refused}") if refused else contextlib.nullcontext():
        assert len(read_folder(tmp_path, Reading()).class_names) == classes
    source = read_folder(tmp_path, Reading(masks_as=said))
    assert len(source.class_names) == classes
    found = {int(value) for _, each in source.train.examples for value in np.unique(each)}
    assert found <= set(range(classes)) and len(found) > 1


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_ids_of_few_bits_are_not_spread_over_eight(tmp_path, bits):
    """A PNG of four bits stores 0 to 15, and decoders show them as 0 to 255."""
    import struct
    import zlib

    values = ids(min(3, 2**bits))
    packed = b"".join(b"\0" + np.packbits(_bits(row, bits)).tobytes() for row in values)

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", SIZE[1], SIZE[0], bits, 0, 0, 0, 0)
    png = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(packed)) + chunk(b"IEND", b"")
    )
    for n in range(3):
        picture(tmp_path / "images" / f"{n}.png")
        (tmp_path / "masks").mkdir(exist_ok=True)
        (tmp_path / "masks" / f"{n}.png").write_bytes(png)
    _, found = next(iter(read_folder(tmp_path, Reading()).train.examples))
    np.testing.assert_array_equal(found[..., 0], values)


def _bits(row, bits):
    return (row[:, None] >> np.arange(bits - 1, -1, -1)) & 1


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize(
    "lines",
    ["0,0,0,road\n255,0,0,car\n", "0 0 0\troad\n255 0 0\tcar\n", "road:0,0,0::\ncar:255,0,0::\n",
     "name,r,g,b\nroad,0,0,0\ncar,255,0,0\n", "#000000 road\n#ff0000 car\n"],
)  # fmt: skip
def test_files_of_colours(tmp_path, lines):
    colours = np.array([[0, 0, 0], [255, 0, 0]], np.uint8)
    for n in range(3):
        picture(tmp_path / "images" / f"{n}.png")
        mask(tmp_path / "masks" / f"{n}.png", colours[ids()])
    (tmp_path / "class_dict.csv").write_text(lines)
    for said in ("palette", f"palette={tmp_path / 'class_dict.csv'}"):
        source = read_folder(tmp_path, Reading(masks_as=said))
        assert source.class_names == ("road", "car")
        np.testing.assert_array_equal(next(iter(source.train.examples))[1][..., 0], ids())


@pytest.mark.parametrize(
    "greys, names",
    [((0, 100, 1003), ("0", "100", "1003")), ((0, 100, 200), ("#000000", "#646464", "#c8c8c8"))],
)
def test_greys_as_colours_are_named_by_their_values_if_these_have_16_bits(tmp_path, greys, names):
    for n in range(3):
        picture(tmp_path / "images" / f"{n}.png")
        mask(tmp_path / "masks" / f"{n}.png", np.array(greys, np.uint16)[ids(3)])
    source = read_folder(tmp_path, Reading(masks_as="palette"))
    assert source.class_names == names
    np.testing.assert_array_equal(next(iter(source.train.examples))[1][..., 0], ids(3))


@pytest.mark.parametrize("void, values", [(255, 3), (11, 11), (0, 3), (128, 2)])
def test_void_pixels_are_no_class(tmp_path, void, values):
    for n in range(5):
        annotation = ids(values)
        annotation[0] = void
        picture(tmp_path / "images" / f"{n}.png")
        mask(tmp_path / "masks" / f"{n}.png", annotation)
    data = load_data(tmp_path, ignore_class=void, batch_size=2)
    assert (data.info.num_classes, data.info.ignore_class) == (values, void)
    assert (next(iter(data.train))[1].numpy()[:, 0] == void).all()
    assert data.summary.counts["train"]["ignored"] == 8 * data.info.num_train if void else True


def test_names_of_classes(tmp_path):
    pairs(tmp_path, 5, "images/{}.png", "masks/{}.png", values=ids(3))
    for text, found in (
        ("sky\nroad\ncar\n", ("sky", "road", "car")),
        ("0 sky\n1 road\n2 car\n", ("sky", "road", "car")),
        ("id,name\n0,sky\n1,road\n2,car\n", ("sky", "road", "car")),
    ):
        (tmp_path / "classes.txt").write_text(text)
        assert read_folder(tmp_path, Reading()).class_names == found
    assert read_folder(tmp_path, Reading(class_names="a,b,c")).class_names == ("a", "b", "c")
    assert read_folder(tmp_path, Reading(class_names=["a", "b", "c", "d"])).class_names == ("a", "b", "c", "d")
    with pytest.raises(ValueError, match=r"Received: 2, at \d+ pixels, in .*0.png.*--ignore-class 2"):
        read_folder(tmp_path, Reading(class_names="a,b"))
