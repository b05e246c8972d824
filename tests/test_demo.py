"""The demo end to end on shortened runs, and its page in a real browser."""

import dataclasses
import re
import shutil
import subprocess

import pytest
import tensorflow as tf

from dropzoo import demo

TITLE = "<script>document.title = [...document.images].every(i => i.naturalWidth > 100) + ' ' + \
(document.documentElement.scrollWidth - document.documentElement.clientWidth)</script></body>"


@pytest.fixture(scope="module")
def small():
    """Makes the demo short."""
    sizes = {"cnn": {"filters": [4], "dense": [8]}, "unet": {"depth": 1, "filters": 2}}
    runs = {
        name: dataclasses.replace(config, epochs=1, limit=48, options=sizes[name])
        for name, config in demo.RUNS.items()
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "RUNS", runs)
        patch.setattr(demo, "NUM_SAMPLES", 2)
        yield


@pytest.fixture(scope="module")
def folder(small, tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "demo"
    said: list[str] = []
    demo.run_demo(out, say=said.append)
    assert any("loading it in a process without this package" in line for line in said)
    return out


@pytest.mark.slow
def test_a_second_run_trains_nothing(folder, tmp_path):
    said: list[str] = []
    demo.run_demo(shutil.copytree(folder, tmp_path / "again"), say=said.append)
    assert sum("it is finished. There is nothing to train" in line for line in said) == 4


def test_it_leaves_runs_exports_and_a_page_that_needs_no_network(folder):
    assert {p.name for p in folder.iterdir()} == {"runs", "saved_models", "report.html"}
    for name in ("cnn", "unet"):
        loaded = tf.saved_model.load(str(folder / "saved_models" / name / "1"))
        assert {"serving_default", "predict_mc"} <= set(loaded.signatures)
    page = (folder / "report.html").read_text()
    assert page.count("<img alt=") == 8 and page.count("with dropout, 2 samples, temperature") == 2
    assert not re.findall(r"(?:src|href)=[\"'](?!data:)", page) and "{" not in re.sub(
        r"<style>.*?</style>", "", page, flags=re.S
    )


@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_fits_a_browser(folder, width, tmp_path):
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("there is no chromium on the PATH")
    page = tmp_path / "page.html"
    page.write_text((folder / "report.html").read_text().replace("</body>", TITLE))
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
    command += [
        "--disable-background-networking",
        "--disable-component-update",
        f"--user-data-dir={tmp_path / 'user'}",
    ]
    command += [f"--window-size={width},900", "--virtual-time-budget=2000", "--dump-dom", page.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    assert re.search(r"<title>true 0</title>", dom), re.findall("<title>.*</title>", dom)
