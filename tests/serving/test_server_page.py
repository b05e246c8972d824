"""The server's page in a real browser: an image is dropped, and the answer fits a desk and a phone."""

import base64
import json
import re
import shutil
import subprocess

import keras
import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs the extra `serve`")

from fastapi.responses import HTMLResponse

from _live import live, png
from _small_cnn import small_cnn
from dropzoo import models, serving
from dropzoo.serving.server import app as module
from dropzoo.serving.server.http import PAGE_HEADERS
from dropzoo.serving.server.limits import Limits
from dropzoo.serving.server.pictures import picture

# Drops a file as a user would, waits for the answer, and leaves in the title what became of it.
DROP = """<script>
const bytes = Uint8Array.from(atob("DATA"), (c) => c.charCodeAt(0));
const transfer = new DataTransfer();
transfer.items.add(new File([bytes], "a.png", {type: "TYPE"}));
document.dispatchEvent(new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true}));
const watch = setInterval(() => {
  if (!at("result").className && at("say").className !== "bad") return;
  clearInterval(watch);
  setTimeout(() => {
    const shown = [...document.querySelectorAll("figure:not([hidden]) img")];
    const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
    document.title = JSON.stringify({ answer: at("answer").textContent, say: at("say").textContent, wide,
      outputs: [...document.querySelectorAll("#outputs button")].map((each) => each.textContent),
      sure: at("sure").textContent, bars: document.querySelectorAll(".bar").length,
      sizes: shown.map((i) => [i.naturalWidth, i.naturalHeight]) });
  }, 200);
}, 20);
</script></body>"""


def browse(running, data: bytes, tmp_path, *, kind="image/png", width=1280, screenshot=None) -> dict:
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("there is no chromium on the PATH")
    page = running.send("GET", "/")[1].decode()
    drop = DROP.replace("DATA", base64.b64encode(data).decode()).replace("TYPE", kind)
    path = f"/drop-{len(running.app.routes)}"

    @running.app.get(path)
    async def dropped():
        return HTMLResponse(page.replace("</body>", drop), headers=PAGE_HEADERS)

    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
    command += ["--disable-background-networking", "--disable-component-update"]
    command += [f"--user-data-dir={tmp_path / 'user'}", f"--window-size={width},1000"]
    command += ["--virtual-time-budget=20000"]
    address = f"http://127.0.0.1:{running.port}{path}"
    if screenshot:
        subprocess.run([*command, f"--screenshot={screenshot}", address], check=True, timeout=120)
    dom = subprocess.run(
        [*command, "--dump-dom", address], capture_output=True, text=True, check=True, timeout=120
    )
    (title,) = re.findall(r"<title>(.*?)</title>", dom.stdout, re.S)
    assert title.startswith("{"), dom.stdout[-3000:]
    return json.loads(title.replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">"))


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, "uint8")


@pytest.mark.costly(keep=0)
@pytest.mark.parametrize("width", [1280, 500])
def test_a_classifier(width, cnn_export, tmp_path):
    with live(cnn_export) as running:
        seen = browse(running, png(noise(8, 8, 1)), tmp_path, width=width)
    assert re.fullmatch(r"(zero|one|two|three), \d+\.\d %", seen["answer"])
    assert seen["bars"] == 4 and seen["sizes"] == [[8, 8]] and seen["wide"] == 0
    assert "of at most 1.39" in seen["sure"] and seen["say"] == "Answered by version 1."


@pytest.mark.costly(keep=0)
@pytest.mark.parametrize("width", [1280, 500])
def test_a_segmentation_model(width, unet_export, tmp_path):
    with live(unet_export) as running:
        seen = browse(running, png(noise(20, 30, 3)), tmp_path, width=width)
    assert re.fullmatch(r"Mostly (background|cell|edge): \d+\.\d % of the pixels", seen["answer"])
    assert seen["sizes"] == [[30, 20]] * 3 and 1 <= seen["bars"] <= 3 and seen["wide"] == 0


@pytest.mark.costly(keep=0)
@pytest.mark.parametrize(
    ("task", "count", "said"),
    [("multi_label", 4, r"None of the labels|\w(, \w)*"), ("regression", 2, r"0: -?[\d.]+(e-\d+)?")],
)
def test_other_tasks(task, count, said, tmp_path):
    export = serving.export_model(small_cnn(num_classes=count), tmp_path / "cnn", 4, task=task)
    with live(export.parent) as running:
        seen = browse(running, png(noise(8, 8, 1)), tmp_path, screenshot=tmp_path / "page.png")
    assert re.fullmatch(said, seen["answer"]) and seen["say"] == "Answered by version 1."
    assert seen["sizes"] == [[8, 8]] and seen["wide"] == 0
    assert ("deviation of the samples" in seen["sure"]) == (task == "regression")


@pytest.mark.costly(keep=0)
def test_a_map_of_values(tmp_path):
    model = models.build_model("unet", num_classes=1, depth=1, filters=4, dropout={"bottleneck*": 0.4})
    export = serving.export_model(model, tmp_path / "depth", 4, task="regression", class_names=["metres"])
    with live(export.parent) as running:
        seen = browse(running, png(noise(20, 30, 1)), tmp_path, screenshot=tmp_path / "page.png")
    assert re.fullmatch(r"metres: from -?[\d.e-]+ to -?[\d.e-]+", seen["answer"])
    assert seen["sizes"] == [[30, 20]] * 3 and seen["bars"] == 0


@pytest.mark.costly(keep=0)
def test_images_that_are_too_large_are_made_smaller_and_others_are_explained(unet_export, tmp_path):
    with live(unet_export, limits=Limits(max_pixels=400)) as running:
        seen = browse(running, png(noise(40, 50, 3)), tmp_path)
        assert seen["sizes"] == [[22, 17]] * 3
        assert browse(running, b"no image", tmp_path)["say"] == "The browser cannot read this file as an image."
    with live(unet_export, token="sesame") as running:
        assert "needs the header" in browse(running, png(noise(4, 5, 3)), tmp_path)["say"]


def test_the_page_needs_no_network_and_a_name_is_no_markup(cnn_export, tmp_path):
    page = module.page_for("cnn", Limits())
    assert not re.findall(r"(?:src|href)=[\"'](?!data:)|url\(|https?://|@import", page)
    assert 'const MODEL = "cnn", MOST_PIXELS = 4194304;' in page and "<title>cnn</title>" in page
    with pytest.raises(ValueError, match="A model's name may only have letters"):
        module.page_for("<script>", Limits())


@pytest.mark.parametrize("sampled", [True, False])
def test_what_is_shown_of_one_logit_and_without_samples(sampled):
    p = np.array([[0.25]], "float32")
    answer = {"mean": p, "variance": p * 0 + 0.04, "predictive_entropy": p[:, 0], "mutual_information": p[:, 0]}
    shown = picture(answer if sampled else {"probabilities": p}, ["no", "yes"])
    assert [(c["name"], c["probability"]) for c in shown["classes"]] == [("no", 0.75), ("yes", 0.25)]
    assert ("deviation" in shown["classes"][0]) == sampled == bool(shown["uncertainty"])
    masks = np.random.default_rng(0).random((1, 4, 6, 1))
    assert picture({"probabilities": masks}, None)["view"] == "class_map"


@pytest.mark.costly(keep=0)
def test_a_model_of_several_outputs(tmp_path):
    image = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(4, 3, padding="same")(image)
    label = keras.layers.Dense(3, name="label")(keras.layers.GlobalAveragePooling2D()(x))
    export = serving.export_model(
        keras.Model(image, {"mask": keras.layers.Conv2D(2, 1, name="mask")(x), "label": label}),
        tmp_path / "two" / "1",
        0,
        class_names={"label": ["red", "green", "blue"]},
    )
    with live(export.parent) as running:
        seen = browse(running, png(noise(8, 8, 1)), tmp_path)
    assert seen["answer"].split(",")[0] in ("red", "green", "blue") and seen["bars"] == 3  # of the first output
    assert seen["outputs"] == ["label", "mask"] and not seen["wide"]
