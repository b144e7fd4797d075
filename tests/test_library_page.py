"""The Python that docs/library.md shows runs as it stands there."""

from __future__ import annotations

import re

from PIL import Image

from clips import irregular, make_clip
from conftest import ROOT, photo_like


def test_every_example_of_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(photo_like(24, 32)).save("photo.png")
    (tmp_path / "holiday").mkdir()
    for name in ("a", "b"):
        Image.fromarray(photo_like(20, 30)).save(f"holiday/{name}.jpg")
    make_clip(tmp_path / "clip.mkv", irregular(5), sounds=1)

    page = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == page.count("\n## ") + 1, "one for each way, after the opening"
    names = {}
    for block in blocks:
        exec(compile(block, "docs/library.md", "exec"), names)

    assert names["heights"] == {72}
    assert names["result"].frames == 5
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert written == {
        "photo.png", "photo_x2.png", "clip.mkv", "clip_large.mkv",
        "holiday/a.jpg", "holiday/b.jpg", "large/a.jpg", "large/b.jpg",
    }  # fmt: skip
