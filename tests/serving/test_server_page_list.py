"""The page with several images in a real browser: a list by uncertainty, the keyboard, the mask over the image."""

import base64
import html
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs the extra `serve`")

from fastapi.responses import HTMLResponse

from _live import live, png
from dropzoo.serving.server.http import PAGE_HEADERS

# Drops three files, one of which is no image, moves on by the keyboard, lays the mask over, and makes the table.
USE = """<script>
const transfer = new DataTransfer();
for (const [name, data] of Object.entries(FILES)) {
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  transfer.items.add(new File([bytes], name, { type: "image/png" }));
}
document.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
const watch = setInterval(() => {
  if (!at("result").className || !at("say").className) return;
  clearInterval(watch);
  const items = () => [...document.querySelectorAll("#list button")];
  const said = at("say").textContent, first = at("answer").textContent;
  items()[0].focus();
  items()[0].dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowDown", bubbles: true }));
  at("opacity").value = 60;
  at("opacity").dispatchEvent(new Event("input"));
  setTimeout(async () => {
    const mask = await ask("predict", current.image.blob, "image/png");
    const all = items();
    document.title = JSON.stringify({ said, first, second: at("answer").textContent, table: table(),
      names: all.map((each) => each.querySelector(".name").textContent), doubts: seen.map((each) => each.doubt),
      current: all.map((each) => each.getAttribute("aria-current")), focus: all.indexOf(document.activeElement),
      laid: !at("lay").hidden && at("lay").width, mask: mask.headers.get("content-type"),
      wide: document.documentElement.scrollWidth - document.documentElement.clientWidth });
  }, 300);
}, 20);
</script></body>"""


@pytest.mark.costly(keep=0)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_several_images(scheme, unet_export, tmp_path):
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("there is no chromium on the PATH")
    random = np.random.default_rng(0)
    images = {
        "a, b.png": random.integers(0, 256, (20, 30, 3), "uint8"),
        "dark.png": np.zeros((20, 30, 3), "uint8"),
    }
    files = {name: base64.b64encode(png(image)).decode() for name, image in images.items()}
    files["broken.png"] = base64.b64encode(b"no image").decode()
    with live(unet_export) as running:
        page = running.send("GET", "/")[1].decode().replace("</body>", USE.replace("FILES", json.dumps(files)))
        page = page.replace("(prefers-color-scheme: dark)", "all") if scheme == "dark" else page

        @running.app.get("/several")
        async def several():
            return HTMLResponse(page, headers=PAGE_HEADERS)

        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
        command += ["--disable-background-networking", "--disable-component-update", "--virtual-time-budget=20000"]
        command += [f"--user-data-dir={tmp_path / 'user'}", "--window-size=500,1000", "--dump-dom"]
        address = f"http://127.0.0.1:{running.port}/several"
        dom = subprocess.run([*command, address], capture_output=True, text=True, check=True, timeout=120).stdout
    (title,) = re.findall(r"<title>(.*?)</title>", dom, re.S)
    seen = json.loads(html.unescape(title))
    assert sorted(seen["names"]) == ["a, b.png", "dark.png"] and seen["doubts"] == sorted(seen["doubts"])[::-1]
    assert "No answer for 1 of 3 images" in seen["said"] and "broken.png: The browser cannot" in seen["said"]
    assert seen["current"] == ["false", "true"] and seen["focus"] == 1 and "Mostly" in seen["second"]
    assert seen["laid"] == 30 and seen["mask"] == "image/png" and seen["wide"] == 0
    rows = seen["table"].split("\r\n")
    assert (
        rows[0].startswith('"image","answer"')
        and len(rows) == 3
        and any(row.startswith('"a, b.png"') for row in rows)
    )
