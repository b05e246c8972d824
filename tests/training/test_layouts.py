"""The layouts that people have: each is read with its split, pairs and classes, or refused with a way on."""

import contextlib
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from dropzoo.training.data.files.table import Reading
from dropzoo.training.data.folders import read_folder
from dropzoo.training.data.load import find_folder, load_data

SIZE = (6, 8)
_RANDOM = np.random.default_rng(0)


def picture(path: Path, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = _RANDOM.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)


def ids(classes: int = 2) -> np.ndarray:
    mask = np.zeros(SIZE, np.uint8)
    mask[1:3, 1:4] = 1
    mask[4:, 5:] = classes - 1
    return mask


def mask(path: Path, values: np.ndarray | None = None, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids() if values is None else values).save(path, **options)


def pairs(root: Path, count: int, image: str, annotation: str, **options) -> None:
    for number in range(count):
        picture(root / image.format(number))
        mask(root / annotation.format(number), **options)


def counts(source) -> tuple[int, int, int]:
    return tuple(part.count if part else 0 for part in (source.train, source.validation, source.test))


def camvid(root):
    for split, count in (("train", 8), ("val", 3), ("test", 5)):
        pairs(root, count, f"{split}/{{}}.png", f"{split}annot/{{}}.png")


def inside(root):
    for split, count in (("training", 8), ("validation", 3), ("testing", 5)):
        pairs(root, count, f"{split}/images/{{}}.png", f"{split}/masks/{{}}.png")


def ade(root):
    for split, count in (("training", 8), ("validation", 3), ("test", 5)):
        pairs(root, count, f"images/{split}/{{}}.jpg", f"annotations/{split}/{{}}.png")


def cityscapes(root):
    for split, count in (("train", 8), ("val", 3), ("test", 5)):
        name = f"{split}/city/a_{{}}"
        pairs(root, count, f"leftImg8bit/{name}_leftImg8bit.png", f"gtFine/{name}_gtFine_labelIds.png")
        pairs(root, count, f"leftImg8bit/{name}_leftImg8bit.png", f"gtFine/{name}_gtFine_instanceIds.png")


def underscores(root):
    for split, count in (("train", 8), ("valid", 3), ("test", 5)):
        pairs(root, count, f"{split}/{{}}.jpg", f"{split}_masks/{{}}_mask.gif")


def voc(root):
    pairs(root, 16, "JPEGImages/{:02}.jpg", "SegmentationClass/{:02}.png")
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for name, numbers in (("train", range(8)), ("val", range(8, 11)), ("test", range(11, 16))):
        (lists / f"{name}.txt").write_text("".join(f"{n:02}\n" for n in numbers))


def fastai(root):
    pairs(root, 16, "images/{:02}.png", "labels/{:02}_P.png")
    (root / "valid.txt").write_text("".join(f"{n:02}.png\n" for n in (8, 9, 10)))


def listed(root):
    pairs(root, 16, "a/{:02}.png", "b/{:02}.png")
    rows = [("train", "val", "test")[(n >= 8) + (n >= 11)] for n in range(16)]
    lines = [f"a/{n:02}.png;b/{n:02}.png;{split}" for n, split in enumerate(rows)]
    (root / "split.csv").write_text("image;mask;subset\n" + "\n".join(lines))


def split_alone(root):
    pairs(root, 17, "images/{:02}.png", "masks/{:02}.png")
    rows = [f"{n:02},{('train', 'val', 'test')[(n >= 8) + (n >= 11)]}" for n in range(16)]
    (root / "split.csv").write_text("file,split\n" + "\n".join(rows))


def kvasir(root):
    pairs(root, 16, "photos/{:02}.jpg", "outlines/{:02}.png", values=255 * ids())


def globbed(root):
    pairs(root, 16, "p{0}/{0}.png", "p{0}/{0}_mask.png")


def one_folder(root):
    pairs(root, 16, "{:02}.png", "{:02}_seg.png")


def coco(root):
    images, shapes = [], []
    for n in range(16):
        picture(root / "photos" / f"{n:02}.jpg")
        images.append({"id": n, "file_name": f"{n:02}.jpg", "height": SIZE[0], "width": SIZE[1]})
        corners = [1, 1, 5, 1, 5, 4, 1, 4]
        shapes.append({"id": n, "image_id": n, "category_id": 7, "segmentation": [corners]})
    content = {"images": images, "annotations": shapes, "categories": [{"id": 7, "name": "cell"}]}
    (root / "annotations.json").write_text(json.dumps(content))


GIVEN, FIFTH = (8, 3, 5), (12, 1, 3)


@pytest.mark.parametrize(
    "make, options, expected",
    [
        (camvid, {}, GIVEN),
        (inside, {}, GIVEN),
        (ade, {}, GIVEN),
        (cityscapes, {}, GIVEN),
        (underscores, {}, GIVEN),
        (voc, {}, GIVEN),
        (fastai, {}, (13, 3, 0)),
        (listed, {"split_file": "split.csv"}, GIVEN),
        (listed, {}, GIVEN),
        (split_alone, {"split_file": "split.csv"}, GIVEN),
        (kvasir, {"images": "photos", "masks": "outlines"}, FIFTH),
        (globbed, {"images": "**/*.png", "masks": "**/*_mask.png"}, FIFTH),
        (one_folder, {}, FIFTH),
        (coco, {}, FIFTH),
    ],
    ids=lambda each: getattr(each, "__name__", None),
)
@pytest.mark.filterwarnings("ignore:.*are left out", "ignore:Names such as")
def test_masks_and_their_splits(tmp_path, make, options, expected):
    make(tmp_path)
    source = read_folder(tmp_path, Reading(**options))
    assert source.task == "segmentation" and len(source.class_names) == 2
    assert counts(source) == expected
    image, annotation = next(iter(source.train.examples))
    assert image.shape == (*SIZE, 3) and annotation.shape == (*SIZE, 1) and 0 < annotation.numpy().mean() < 1


def imagenet(root):
    for split, count in (("train", 4), ("val", 2), ("test", 3)):
        for name in ("cat", "dog"):
            for n in range(count):
                picture(root / split / name / f"{n}.jpg")


def train_and_test(root):
    for split, count in (("train", 10), ("test", 3)):
        for name in ("cat", "dog"):
            for n in range(count):
                picture(root / split / name / f"{n}.jpg")


def nested(root):
    for name in ("cat", "dog"):
        for n in range(5):
            picture(root / name / f"{n}.jpg")
            picture(root / name / "more" / "deep" / f"{n}.webp")


def kaggle(root):
    for n in range(10):
        picture(root / "train" / f"{n}.jpg")
    (root / "train.csv").write_text(
        "id,label\n" + "".join(f"{n},{'dog' if n % 2 else 'cat'}\n" for n in range(10))
    )


def patients(root):
    rows = []
    for n in range(20):
        picture(root / f"{n}.jpg")
        rows.append(f"{n}.jpg,{'dog' if n % 2 else 'cat'},p{n // 2}")
    (root / "labels.csv").write_text("file,label,patient\n" + "\n".join(rows))


@pytest.mark.parametrize(
    "make, expected",
    [
        (imagenet, (8, 4, 6)),
        (train_and_test, (18, 2, 6)),
        (nested, (14, 2, 4)),
        (kaggle, (8, 0, 2)),
        (patients, (14, 2, 4)),
    ],
    ids=lambda each: getattr(each, "__name__", None),
)
def test_labels_and_their_splits(tmp_path, make, expected):
    make(tmp_path)
    source = read_folder(tmp_path, Reading())
    assert (source.task, source.class_names) == ("classification", ("cat", "dog"))
    assert counts(source) == expected


def test_a_class_may_be_called_test(tmp_path):
    for name in ("blood", "test"):
        for n in range(5):
            picture(tmp_path / name / f"{n}.png")
    assert read_folder(tmp_path, Reading()).class_names == ("blood", "test")


def test_all_images_of_a_folder_are_test_images_if_asked(tmp_path):
    train_and_test(tmp_path)
    data = load_data(tmp_path, test_split=1, cache="none", batch_size=4)
    assert (data.info.num_train, data.info.num_test) == (0, 26)
    assert sum(len(labels) for _, labels in data.test) == 26
    with pytest.raises(ValueError, match="have a split of their own: test, train. Received: test_split=0.5"):
        load_data(tmp_path, test_split=0.5)


@pytest.mark.parametrize(
    "images, masks, options",
    [
        ("images/{}.png", "masks/{}_seg.png", {}),
        ("images/img_{}.png", "masks/mask_{}.png", {}),
        ("images/{}_sat.png", "masks/{}_mask.png", {}),
        ("images/{}.png", "masks/{}-labels.tif", {}),
        ("images/sub{}/{}.png", "masks/sub{}/{}.png", {}),
        ("images/{}.png", "masks/{}abc.png", {"mask_suffix": "abc"}),
        ("images/{}_training.tif", "masks/{}_manual1.gif", {}),
    ],
)
def test_names_that_pair(tmp_path, images, masks, options):
    for number in range(1, 12):
        picture(tmp_path / images.replace("{}", str(number)))
        values = np.full(SIZE, number % 2, np.uint8)
        values[0, 0] = 1
        mask(tmp_path / masks.replace("{}", str(number)), values)
    source = read_folder(tmp_path, Reading(**options))
    for sample in source.summary.samples:
        assert re.findall(r"\d+", sample.image.stem)[0] == re.findall(r"\d+", sample.mask.stem)[0]


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


def test_groups_stay_together(tmp_path):
    for n, name in enumerate(("benign", "malignant")):
        for patient in range(5):
            for part in range(4):
                picture(tmp_path / name / f"p{n}{patient}_s{part}.png")

    def groups(numbers):
        return {re.search(r"p\d+", sample.image.name)[0] for sample in numbers}

    source = read_folder(tmp_path, Reading(group_by=r"p\d+", validation_split=0.25))
    by_split = {}
    for sample in source.summary.samples:
        by_split.setdefault(sample.split, []).append(sample)
    found = {split: groups(samples) for split, samples in by_split.items()}
    assert {split: len(each) for split, each in found.items()} == {"train": 6, "validation": 2, "test": 2}
    seen: Counter[int] = Counter()
    for fold in range(4):
        data = load_data(tmp_path, group_by=r"p\d+", fold=(fold, 4), cache="none")
        seen[data.info.num_validation] += 1
        assert data.info.num_train + data.info.num_validation == 32
    assert seen == {8: 4}
    with pytest.raises(ValueError, match="which is not in p00_s0.png"):
        read_folder(tmp_path, Reading(group_by="subject"))


def test_a_group_in_two_given_splits_is_refused(tmp_path):
    for n in range(4):
        picture(tmp_path / f"{n}.png")
    rows = "".join(f"{n}.png,{n % 2},{'train' if n < 3 else 'test'},p{n % 2}\n" for n in range(4))
    (tmp_path / "labels.csv").write_text("file,label,split,group\n" + rows)
    with pytest.raises(ValueError, match=r"1 groups in several: p1 \(test, train\)"):
        read_folder(tmp_path, Reading())


@pytest.mark.parametrize(
    "axes, shape, images", [("ZYX", (5, 6, 8), 10), ("TYX", (5, 6, 8), 10), ("CYX", (2, 6, 8), 2)]
)
def test_pages_of_stacks(tmp_path, axes, shape, images):
    for name in "ab":
        (tmp_path / name).mkdir()
        pixels = _RANDOM.integers(0, 256, shape, dtype=np.uint8)
        tifffile.imwrite(tmp_path / name / "0.tif", pixels, imagej=True, metadata={"axes": axes})
    stacks = images > 2
    with pytest.warns(UserWarning, match="--pages channels") if stacks else contextlib.nullcontext():
        source = read_folder(tmp_path, Reading(validation_split=0))
    assert source.train.count == images and source.image_shape == (6, 8, 1 if stacks else 2)
    if stacks:  # all pages of a file are in one split, and each is another image
        read = [image.numpy().tobytes() for image, _ in source.train.examples]
        assert len(set(read)) == images
        assert read_folder(tmp_path, Reading(pages="channels", validation_split=0)).image_shape == (6, 8, 5)


@pytest.mark.parametrize(
    "dtype, low, high",
    [("float32", -3.5, 900.0), ("int16", -1000, 2000), ("int32", 0, 70000), ("float64", 0, 255)],
)
def test_values_beyond_the_usual_ranges(tmp_path, dtype, low, high):
    pixels = np.linspace(low, high, 48).astype(dtype).reshape(SIZE)
    for n in range(3):
        (tmp_path / "images").mkdir(exist_ok=True)
        (np.save if n else lambda path, each: tifffile.imwrite(path.with_suffix(".tif"), each))(
            tmp_path / "images" / f"{n}.npy", pixels
        )
        mask(tmp_path / "masks" / f"{n}.png")
    with pytest.raises(ValueError, match="--value-range"):
        read_folder(tmp_path, Reading())
    source = read_folder(tmp_path, Reading(value_range=(low, high)))
    for image, _ in source.train.examples:
        np.testing.assert_allclose(image[..., 0], (pixels - low) / (high - low), atol=1e-4)


def test_broken_files_are_all_named_or_left_out(tmp_path):
    for name in ("cat", "dog"):
        for n in range(10):
            picture(tmp_path / name / f"{n}.jpg")
    broken = [tmp_path / "cat" / "2.jpg", tmp_path / "cat" / "7.jpg", tmp_path / "dog" / "4.jpg"]
    for path, size in zip(broken, (0, 20, 300), strict=True):
        path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match="Cannot read 3 files.*--broken skip") as error:
        load_data(tmp_path)
    assert all(str(path) in str(error.value) for path in broken)
    with pytest.warns(UserWarning, match="Left out 3 files that cannot be read"):
        info = load_data(tmp_path, broken="skip").info
    assert info.num_train + info.num_validation + info.num_test == 17


def test_files_that_are_no_images_are_counted(tmp_path):
    for name in ("cat", "dog"):
        for n in range(4):
            picture(tmp_path / name / f"{n}.jpg")
        (tmp_path / name / "Thumbs.db").write_bytes(b"x")
        (tmp_path / name / "notes.heic").write_bytes(b"x")
    with pytest.warns(UserWarning, match="Left out files that are no images by their endings: 2 .heic"):
        source = read_folder(tmp_path, Reading())
    assert any("skipped: 2" in note for note in source.summary.notes)


def test_an_image_in_two_splits_is_named(tmp_path):
    train_and_test(tmp_path)
    first, second = tmp_path / "train" / "cat" / "0.jpg", tmp_path / "test" / "dog" / "0.jpg"
    second.write_bytes(first.read_bytes())
    with pytest.warns(UserWarning, match="in the training set and again in another") as said:
        read_folder(tmp_path, Reading())
    assert str(first) in str(said[0].message) and str(second) in str(said[0].message)


def test_a_class_without_training_images_is_refused(tmp_path):
    train_and_test(tmp_path)
    picture(tmp_path / "test" / "owl" / "0.jpg")
    with pytest.raises(ValueError, match="Each class needs training images. Received: none of owl"):
        read_folder(tmp_path, Reading())


def test_a_folder_of_ones_own_wins_over_a_set_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_folder("cifar10/train") is None
    picture(tmp_path / "cifar10" / "train" / "cat" / "0.png")
    assert find_folder("cifar10/train") == Path("cifar10/train")
    assert find_folder("cifar10") == Path("cifar10")


@pytest.mark.parametrize("cache", ["memory", "disk", "none"])
def test_every_cache_gives_the_same_epochs(tmp_path, monkeypatch, cache):
    monkeypatch.setenv("DROPZOO_CACHE", str(tmp_path / "cache"))
    train_and_test(tmp_path / "data")

    def epochs(how):
        data = load_data(tmp_path / "data", cache=how, batch_size=5, augment=True)
        return [batch for epoch in range(2) for batch in data.train.at_epoch(epoch)] + list(data.test)

    for found, expected in zip(epochs(cache), epochs("memory"), strict=True):
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)


def test_balance_draws_all_classes_equally_often(tmp_path):
    for name, count in (("many", 45), ("few", 5)):
        for n in range(count):
            picture(tmp_path / name / f"{n}.png")
    data = load_data(tmp_path, balance=True, test_split=0.0, validation_split=0, batch_size=50)
    labels = np.concatenate([labels for epoch in range(8) for _, labels in data.train.at_epoch(epoch)])
    assert len(labels) == 400 and 0.4 < labels.mean() < 0.6


def test_masks_among_the_images_of_classes_are_doubted(tmp_path):
    for name in ("benign", "normal"):
        for n in range(4):
            picture(tmp_path / name / f"{name} ({n}).png")
            mask(tmp_path / name / f"{name} ({n})_mask.png", np.stack([ids()] * 3, -1))
    with pytest.warns(UserWarning, match=r"8 images bear the name of another.*--masks"):
        read_folder(tmp_path, Reading())
    source = read_folder(tmp_path, Reading(images="**/*.png", masks="**/*_mask.png"))
    assert source.task == "segmentation" and counts(source) == (5, 1, 2)
