"""The page in gradio: a drop zone, a few choices and a viewer."""

from __future__ import annotations

import html
import time
from collections.abc import Generator
from typing import Any
from urllib.parse import quote

import gradio as gr

from paragonsr2.app.limits import Limits
from paragonsr2.app.preview import MediaSize
from paragonsr2.app.routes import examples
from paragonsr2.app.workshop import PageJob, Result, Workshop
from paragonsr2.clips.container import VIDEO_SUFFIXES
from paragonsr2.errors import ParagonError
from paragonsr2.images.formats import FORMATS, READABLE, WRITABLE
from paragonsr2.serve.choice import Choice, offered
from paragonsr2.variants import VARIANTS

#: Seconds between two updates of the progress.
_TICK = 0.1

#: Passes the token of an upload from the drop zone, an element of elements.js, to gradio.
_DROP_JS = """
element.addEventListener('paragon-upload', (event) => {
  props.value = event.detail;
  trigger('upload');
});
"""

_CLASSICAL_LABELS = {"bicubic": "Bicubic", "magic:1.0": "Magic Kernel Sharp 2021"}

HEAD = """
<link rel="stylesheet" href="page/page.css">
<script type="module" src="page/elements.js"></script>
"""


def build_page(workshop: Workshop, *, local: bool) -> gr.Blocks:
    """Lay out the page and connect it to the workshop.

    Args:
        workshop: runs the jobs.
        local: only this machine can reach the page; the page then says so.
    """
    models = offered()
    first = next(iter(models))
    with gr.Blocks(title="ParagonSR2", analytics_enabled=False, fill_width=True) as page:
        gr.HTML(_title(local), elem_id="title", apply_default_css=False)
        with gr.Row(elem_classes="p-columns"):
            with gr.Column(scale=1, min_width=300, elem_classes="p-side"):
                drop = gr.HTML(
                    html_template=_drop_zone(workshop.limits), js_on_load=_DROP_JS, elem_id="drop"
                )
                model = gr.Dropdown(
                    [(_label(name), name) for name in models],
                    value=first,
                    label="Model",
                    info=_purpose(first),
                    elem_id="model",
                    filterable=False,
                )
                scale = gr.Radio(
                    _scales(models[first]), value=models[first][0], label="Scale", elem_id="scale"
                )
                image_format = gr.Dropdown(
                    [
                        ("Same as the input", "keep"),
                        *((form.title, name) for name, form in WRITABLE.items()),
                    ],
                    value="keep",
                    label="Save pictures as",
                    elem_id="format",
                    filterable=False,
                )
                go = gr.Button("Enlarge", variant="primary", interactive=False, elem_id="go")
                stop = gr.Button("Cancel", visible=False, elem_id="stop")
            with gr.Column(scale=3, min_width=300, elem_classes="p-main"):
                status = gr.HTML("", elem_id="status", apply_default_css=False)
                viewer = gr.HTML(_viewer(), elem_id="viewer", apply_default_css=False)

        visit = _Visit(workshop)
        quick: dict[str, Any] = {
            "api_visibility": "private",
            "concurrency_limit": None,
            "show_progress": "hidden",
        }
        drop.upload(visit.inspect, drop, [status, viewer, go], **quick)
        model.input(visit.change_model, [model, scale], [model, scale], **quick)
        running = go.click(
            visit.enlarge,
            [drop, model, scale, image_format],
            [status, viewer, go, stop],
            api_visibility="private",
            show_progress="minimal",
            show_progress_on=status,
        )
        stop.click(visit.cancelled, None, [status, go, stop], cancels=running, **quick)
        page.unload(visit.leave)
    page.queue(max_size=workshop.limits.waiting, default_concurrency_limit=1)
    return page


class _Visit:
    """Event handlers of the page."""

    def __init__(self, workshop: Workshop) -> None:
        self.workshop = workshop

    def inspect(self, token: str, request: gr.Request) -> tuple[Any, Any, Any]:
        """Show an upload, or the reason why it is refused."""
        try:
            item, size = self.workshop.inspect(str(token), _owner(request))
        except ParagonError as error:
            return _error(str(error)), _viewer(), gr.Button(interactive=False)
        facts = f"<b>{html.escape(item.name)}</b> {_size_text(size)}"
        return _note(facts), _viewer(before=item.token), gr.Button(interactive=True)

    def change_model(self, name: str, scale: int) -> tuple[Any, Any]:
        """Show the scales of the chosen model."""
        models = offered()
        scales = models.get(name, next(iter(models.values())))
        value = scale if scale in scales else scales[0]
        return gr.Dropdown(info=_purpose(name)), gr.Radio(_scales(scales), value=value)

    def enlarge(
        self, token: str, model: str, scale: int, image_format: str
    ) -> Generator[tuple[Any, Any, Any, Any]]:
        """Start a job and report its progress until it ends."""
        busy = gr.Button(visible=False), gr.Button(visible=True)
        ready = gr.Button(visible=True), gr.Button(visible=False)
        try:
            job = self.workshop.start(str(token), Choice(model, scale, image_format))
        except ParagonError as error:
            yield _error(str(error)), gr.skip(), *ready
            return
        try:
            while not job.future.done():
                yield _progress(job), gr.skip(), *busy
                time.sleep(_TICK)
            result = job.future.result()
            yield _finished(result), _viewer(str(token), result), *ready
        except ParagonError as error:
            yield _error(str(error)), gr.skip(), *ready
        except Exception:
            yield _error("the page failed at this file; its log says why"), gr.skip(), *ready
            raise
        finally:
            # gradio closes the generator when the visitor cancels or leaves.
            job.stop()

    def cancelled(self) -> tuple[Any, Any, Any]:
        """Report that the job was cancelled; gradio has already ended :meth:`enlarge`."""
        return _note("Cancelled."), gr.Button(visible=True), gr.Button(visible=False)

    def leave(self, request: gr.Request) -> None:
        """Remove the files of a visitor who closed the page."""
        self.workshop.files.release(_owner(request))


def _owner(request: gr.Request) -> str:
    return str(request.session_hash or "")


def _title(local: bool) -> str:
    where = "Everything stays on this computer." if local else ""
    return (
        '<header class="p-title"><h1>ParagonSR2</h1>'
        f"<p>Larger pictures, with detail from a small network. {where}</p></header>"
    )


def _label(model: str) -> str:
    return _CLASSICAL_LABELS.get(model) or model.capitalize()


def _purpose(model: str) -> str:
    if model in VARIANTS:
        return f"For {VARIANTS[model].purpose}"
    return "A classical resize, to compare with"


def _scales(scales: tuple[int, ...]) -> list[tuple[str, int]]:
    return [(f"{scale}×", scale) for scale in scales]


def _drop_zone(limits: Limits) -> str:
    accepted = ",".join(sorted(READABLE | VIDEO_SUFFIXES))
    known = ", ".join(form.title for form in FORMATS.values())
    names = ",".join(examples())
    return (
        f'<paragon-drop accept="{accepted}" hint="{known}, video; up to '
        f'{limits.upload_bytes / 1e6:g} MB" most="{limits.upload_bytes}" '
        f'examples="{html.escape(names)}"></paragon-drop>'
    )


def _viewer(before: str = "", result: Result | None = None) -> str:
    if not before:
        return "<paragon-viewer></paragon-viewer>"
    after = f' after="files/{result.item.token}/shown"' if result else ""
    return f'<paragon-viewer before="files/{quote(before)}/shown"{after}></paragon-viewer>'


def _note(content: str) -> str:
    return f'<div class="p-card" role="status">{content}</div>'


def _error(message: str) -> str:
    return f'<div class="p-card p-error" role="alert">{html.escape(_sentence(message))}</div>'


def _sentence(message: str) -> str:
    return f"{message[:1].upper()}{message[1:]}".rstrip(".") + "."


def _progress(job: PageJob) -> str:
    percent = round(100 * job.share)
    return _note(
        f'<span class="p-busy">Enlarging</span><progress max="100" value="{percent}" '
        f'aria-label="share done"></progress><span class="p-number">{percent} %</span>'
    )


def _finished(result: Result) -> str:
    megapixels = result.after.pixels / 1e6
    facts = [
        f"{_size_text(result.before)} → <b>{_size_text(result.after)}</b>",
        f"{result.seconds:.2f} s",
        f"{megapixels:.1f} megapixels, {megapixels / max(result.seconds, 1e-6):.1f} a second",
        html.escape(result.backend),
        *([html.escape(result.message)] if result.message else []),
    ]
    items = "".join(f"<span>{fact}</span>" for fact in facts)
    link = f"files/{result.item.token}/result"
    return (
        f'<div class="p-card p-done" role="status"><div class="p-facts">{items}</div>'
        f'<a class="p-download" id="download" href="{link}" '
        f'download="{html.escape(result.item.name)}">'
        f"Download {result.file_bytes / 1e6:.1f} MB</a></div>"
    )


def _size_text(size: MediaSize) -> str:
    count = f", {size.pages} pages" if size.pages > 1 else ""
    count = f", {size.frames} frames" if size.frames else count
    return f"{size.width} × {size.height}{count}"
