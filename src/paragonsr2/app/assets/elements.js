// The two elements that gradio has no match for: a drop zone that sends raw bytes, and a viewer
// that compares two pictures. Nothing here talks to any server but the one it came from.

const style = (text) => {
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(text);
  return sheet;
};

const FOCUS = `:focus-visible { outline: 2px solid var(--color-accent); outline-offset: 2px; }`;

// ---------------------------------------------------------------------------------------------

const DROP_STYLE = style(`
  :host { display: block; }
  .zone {
    box-sizing: border-box; width: 100%; padding: 1.6rem 1rem; font: inherit;
    color: var(--body-text-color); text-align: center; cursor: pointer;
    border: 1.5px dashed var(--border-color-primary); border-radius: 12px;
    background: var(--block-background-fill); transition: border-color .15s, background .15s;
  }
  .zone:hover, .zone.over {
    border-color: var(--color-accent); background: var(--color-accent-soft);
  }
  .zone strong { display: block; font-size: 1rem; font-weight: 600; overflow-wrap: anywhere; }
  .zone span { display: block; margin-top: .35rem; font-size: .8rem;
    color: var(--body-text-color-subdued); }
  svg { width: 28px; height: 28px; margin-bottom: .4rem; color: var(--color-accent); }
  .error { margin: .5rem 0 0; font-size: .85rem; color: var(--p-bad); }
  .error:empty { display: none; }
  progress { width: 100%; height: 4px; margin-top: .5rem; accent-color: var(--color-accent); }
  .examples { display: flex; flex-wrap: wrap; gap: .5rem; align-items: center; margin-top: .7rem;
    font-size: .8rem; color: var(--body-text-color-subdued); }
  .examples:not(:has(button)) { display: none; }
  .examples button { padding: 0; border: 1px solid var(--border-color-primary);
    border-radius: 8px; overflow: hidden; cursor: pointer; background: none; line-height: 0; }
  .examples img { width: 66px; height: 44px; object-fit: cover; }
  .examples button:hover { border-color: var(--color-accent); }
  ${FOCUS}
`);

class ParagonDrop extends HTMLElement {
  connectedCallback() {
    if (this.shadowRoot) return;
    const root = this.attachShadow({ mode: "open" });
    root.adoptedStyleSheets = [DROP_STYLE];
    root.innerHTML = `
      <button class="zone" type="button">
        <svg viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="1.6"
          stroke-linecap="round" stroke-linejoin="round" aria-hidden="true">
          <path d="M12 16V4m0 0L7.5 8.5M12 4l4.5 4.5M4 15v3a2 2 0 0 0 2 2h12a2 2 0 0 0 2-2v-3"/>
        </svg>
        <strong>Drop, paste or choose a picture or clip</strong><span class="hint"></span>
      </button>
      <input type="file" hidden>
      <progress max="1" hidden aria-label="upload"></progress>
      <p class="error" role="alert"></p>
      <div class="examples">Or try</div>`;
    this.zone = root.querySelector(".zone");
    this.input = root.querySelector("input");
    this.bar = root.querySelector("progress");
    this.error = root.querySelector(".error");
    this.input.accept = this.getAttribute("accept");
    root.querySelector(".hint").textContent = this.getAttribute("hint");
    this.zone.onclick = () => this.input.click();
    this.input.onchange = () => { this.send(this.input.files[0]); this.input.value = ""; };
    for (const name of (this.getAttribute("examples") || "").split(",").filter(Boolean)) {
      this.addExample(root.querySelector(".examples"), name);
    }
    this.listen();
  }

  disconnectedCallback() { this.ears?.abort(); }

  listen() {
    // The whole window takes drops: a picture that misses a small box would replace the page.
    this.ears = new AbortController();
    const on = (type, act) => window.addEventListener(type, act, { signal: this.ears.signal });
    const over = (event, yes) => {
      if (event.dataTransfer?.types.includes("Files")) event.preventDefault();
      this.zone.classList.toggle("over", yes);
    };
    on("dragover", (event) => over(event, true));
    on("dragleave", (event) => { if (!event.relatedTarget) over(event, false); });
    on("drop", (event) => { over(event, false); this.send(event.dataTransfer?.files[0]); });
    on("paste", (event) => this.send(event.clipboardData?.files[0]));
  }

  addExample(row, name) {
    const button = document.createElement("button");
    button.type = "button";
    button.title = name;
    button.innerHTML = `<img alt="">`;
    button.firstChild.src = `page/${encodeURIComponent(name)}`;
    button.firstChild.alt = `Example ${name}`;
    button.onclick = async () => {
      const answer = await fetch(button.firstChild.src);
      this.send(new File([await answer.blob()], name));
    };
    row.append(button);
  }

  send(file) {
    if (!file) return;
    this.request?.abort();
    const most = Number(this.getAttribute("most"));
    if (file.size > most) {
      this.finish(`${file.name} has ${(file.size / 1e6).toFixed(0)} MB; this page takes up to ` +
        `${(most / 1e6).toFixed(0)} MB.`);
      return;
    }
    const request = new XMLHttpRequest();
    this.request = request;
    request.open("POST", `files?name=${encodeURIComponent(file.name)}`);
    request.upload.onprogress = (event) => { this.bar.value = event.loaded / event.total; };
    request.onload = () => {
      const answer = parse(request.responseText);
      if (request.status === 200) this.finish("", file.name, answer.token);
      else this.finish(answer.message || answer.detail || request.responseText || "The upload failed.");
    };
    request.onerror = () => this.finish("The upload did not arrive; is the server still there?");
    this.error.textContent = "";
    this.bar.value = 0;
    this.bar.hidden = false;
    request.send(file);
  }

  finish(error, name, token) {
    this.bar.hidden = true;
    this.error.textContent = error;
    if (token) this.zone.querySelector("strong").textContent = name;
    const event = { bubbles: true, composed: true, detail: token };
    if (token) this.dispatchEvent(new CustomEvent("paragon-upload", event));
  }
}

function parse(text) {
  try { return JSON.parse(text); } catch { return {}; }
}

// ---------------------------------------------------------------------------------------------

const VIEWER_STYLE = style(`
  :host { display: block; }
  :host(:not([before])) .all, :host([before]) .empty { display: none; }
  :host(:not([after])) :is(.handle, .tag, .frame, .loupe) { display: none; }
  .empty { display: grid; place-items: center; min-height: min(60vh, 34rem); border-radius: 12px;
    border: 1px solid var(--border-color-primary); color: var(--body-text-color-subdued);
    background: var(--block-background-fill); }
  .stage { position: relative; overflow: hidden; border-radius: 12px; margin: 0 auto;
    touch-action: pan-y; user-select: none; line-height: 0;
    background: repeating-conic-gradient(#8883 0 25%, transparent 0 50%) 0 0 / 18px 18px; }
  .stage img { display: block; width: 100%; height: 100%; }
  .stage .before { position: absolute; inset: 0; }
  :host([after]) .stage .before { clip-path: inset(0 calc(100% - var(--at)) 0 0); }
  :host([after]) .stage { cursor: crosshair; }
  .stage .after:not([src]) { visibility: hidden; }
  .handle { position: absolute; top: 0; bottom: 0; left: var(--at); width: 44px;
    margin-left: -22px; cursor: ew-resize; touch-action: none; }
  .handle::before { content: ""; position: absolute; left: 21px; width: 2px; top: 0; bottom: 0;
    background: #fff; box-shadow: 0 0 4px #0008; }
  .handle::after { content: "‹ ›"; position: absolute; top: 50%; left: 4px; width: 36px;
    height: 36px; margin-top: -18px; border-radius: 50%; background: #fff; color: #334155;
    font: 600 17px/33px system-ui, sans-serif; text-align: center; box-shadow: 0 1px 6px #0006; }
  .tag { position: absolute; top: 10px; padding: .3rem .6rem; border-radius: 99px;
    font-size: .75rem; line-height: 1; color: #fff; background: #0f172ab3; pointer-events: none; }
  .tag.l { left: 10px; } .tag.r { right: 10px; }
  .frame { position: absolute; box-sizing: border-box; border: 2px solid #fff; border-radius: 3px;
    box-shadow: 0 0 0 1px #0009, inset 0 0 0 1px #0009; pointer-events: none; }
  .loupe { margin-top: .8rem; }
  .bar { display: flex; flex-wrap: wrap; gap: .5rem; align-items: center; font-size: .8rem;
    color: var(--body-text-color-subdued); margin-bottom: .5rem; }
  .bar .grow { flex: 1; }
  .bar button { font: inherit; padding: .3rem .65rem; border-radius: 8px; cursor: pointer;
    color: var(--body-text-color); background: var(--block-background-fill);
    border: 1px solid var(--border-color-primary); }
  .bar button[aria-pressed=true] { color: #fff; background: var(--color-accent);
    border-color: var(--color-accent); }
  .panes { display: grid; grid-template-columns: 1fr 1fr; gap: .6rem; }
  .pane { position: relative; border-radius: 12px; overflow: hidden; cursor: grab;
    touch-action: none; background: var(--block-background-fill); }
  .pane:active { cursor: grabbing; }
  canvas { display: block; width: 100%; height: 300px; }
  @media (max-width: 640px) { canvas { height: 210px; } .hint { display: none; } }
  ${FOCUS}
`);

const ZOOMS = [1, 2, 4, 8];

// Where the zoomed crop begins: beside the slider, which begins in the middle.
const START = { x: 0.68, y: 0.5 };

class ParagonViewer extends HTMLElement {
  static observedAttributes = ["before", "after"];

  // gradio changes the attributes of the element it has, rather than make another one.
  attributeChangedCallback() { if (this.shadowRoot) this.load(); }

  connectedCallback() {
    if (this.shadowRoot) return;
    const root = this.attachShadow({ mode: "open" });
    root.adoptedStyleSheets = [VIEWER_STYLE];
    root.innerHTML = `
      <div class="empty">The picture appears here</div>
      <div class="all">
        <div class="stage">
          <img class="after" alt="After" draggable="false">
          <img class="before" alt="Before" draggable="false">
          <div class="frame"></div>
          <span class="tag l">Before</span><span class="tag r">After</span>
          <div class="handle" role="slider" tabindex="0" aria-label="Before and after"
            aria-valuemin="0" aria-valuemax="100"></div>
        </div>
        <div class="loupe">
          <div class="bar"><span>Zoom</span>
            ${ZOOMS.map((z) => `<button type="button" data-zoom="${z}">${z}×</button>`).join("")}
            <button type="button" class="pixels" aria-pressed="false"
              title="Show pixels as squares">Pixels</button>
            <span class="grow"></span><span class="hint">Click the picture or drag below</span>
          </div>
          <div class="panes">
            <div class="pane"><canvas class="b" tabindex="0" aria-label="Before, zoomed"></canvas>
              <span class="tag l">Before</span></div>
            <div class="pane"><canvas class="a" tabindex="0" aria-label="After, zoomed"></canvas>
              <span class="tag l">After</span></div>
          </div>
        </div>
      </div>`;
    const find = (selector) => root.querySelector(selector);
    this.stage = find(".stage");
    this.handle = find(".handle");
    this.frame = find(".frame");
    this.before = find(".before");
    this.after = find(".after");
    this.canvases = [find("canvas.b"), find("canvas.a")];
    this.zoom = 2;
    this.smooth = true;
    this.centre = { ...START };
    this.before.onload = () => this.fit();
    this.after.onload = () => this.fit();
    this.slide(50);
    this.bind(root);
    this.load();
    this.watcher = new ResizeObserver(() => this.fit());
    this.watcher.observe(this);
  }

  disconnectedCallback() { this.watcher?.disconnect(); }

  load() {
    for (const [name, image] of [["before", this.before], ["after", this.after]]) {
      const address = this.getAttribute(name);
      if (image.getAttribute("src") === address) continue;
      if (name === "before") this.centre = { ...START };
      if (address) image.src = address;
      else image.removeAttribute("src");
    }
  }

  bind(root) {
    drag(this.handle, (event) => {
      const box = this.stage.getBoundingClientRect();
      this.slide(((event.clientX - box.left) / box.width) * 100);
    });
    this.handle.onkeydown = (event) => {
      const step = { ArrowLeft: -2, ArrowRight: 2, PageDown: -10, PageUp: 10 }[event.key];
      const to = { Home: 0, End: 100 }[event.key] ?? (step && this.at + step);
      if (to === undefined) return;
      event.preventDefault();
      this.slide(to);
    };
    drag(this.stage, (event) => {
      const box = this.stage.getBoundingClientRect();
      this.look((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
    });
    for (const canvas of this.canvases) {
      drag(canvas, (event) => {
        const { width, height } = this.full();
        this.look(this.centre.x - event.movementX / (this.zoom * width),
          this.centre.y - event.movementY / (this.zoom * height));
      }, false);
      canvas.onkeydown = (event) => {
        const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
        if (!by[event.key]) return;
        event.preventDefault();
        const [x, y] = by[event.key];
        this.look(this.centre.x + x * 0.02, this.centre.y + y * 0.02);
      };
    }
    for (const button of root.querySelectorAll("[data-zoom]")) {
      button.onclick = () => { this.zoom = Number(button.dataset.zoom); this.draw(); };
    }
    root.querySelector(".pixels").onclick = () => { this.smooth = !this.smooth; this.draw(); };
  }

  // Size of the picture that is larger, in CSS pixels at zoom 1.
  full() {
    const ratio = window.devicePixelRatio || 1;
    const image = this.after.naturalWidth ? this.after : this.before;
    return { width: image.naturalWidth / ratio, height: image.naturalHeight / ratio };
  }

  fit() {
    const { width, height } = this.full();
    if (!width || !this.clientWidth) return;
    const tall = Math.max(window.innerHeight * 0.6, 220);
    const share = Math.min(this.clientWidth / width, tall / height);
    this.stage.style.width = `${width * share}px`;
    this.stage.style.height = `${height * share}px`;
    this.look(this.centre.x, this.centre.y);
  }

  slide(percent) {
    this.at = Math.min(100, Math.max(0, percent));
    this.stage.style.setProperty("--at", `${this.at}%`);
    this.handle.setAttribute("aria-valuenow", Math.round(this.at));
  }

  look(x, y) {
    const within = (value) => Math.min(1, Math.max(0, value));
    this.centre = { x: within(x), y: within(y) };
    this.draw();
  }

  draw() {
    if (!this.after.naturalWidth || !this.before.naturalWidth) return;
    const [canvas] = this.canvases;
    const size = this.full();
    // The share of the picture that a pane shows, kept inside the picture.
    const w = Math.min(1, canvas.clientWidth / (this.zoom * size.width));
    const h = Math.min(1, canvas.clientHeight / (this.zoom * size.height));
    this.centre.x = Math.min(1 - w / 2, Math.max(w / 2, this.centre.x));
    this.centre.y = Math.min(1 - h / 2, Math.max(h / 2, this.centre.y));
    const x = this.centre.x - w / 2;
    const y = this.centre.y - h / 2;
    const percent = (value) => `${value * 100}%`;
    Object.assign(this.frame.style, {
      left: percent(x), top: percent(y), width: percent(w), height: percent(h),
    });
    paint(this.canvases[0], this.before, { x, y, w, h }, size, this.zoom, this.smooth);
    paint(this.canvases[1], this.after, { x, y, w, h }, size, this.zoom, this.smooth);
    for (const button of this.shadowRoot.querySelectorAll("[data-zoom]")) {
      button.setAttribute("aria-pressed", Number(button.dataset.zoom) === this.zoom);
    }
    this.shadowRoot.querySelector(".pixels").setAttribute("aria-pressed", !this.smooth);
  }
}

function paint(canvas, image, part, size, zoom, smooth) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(canvas.clientWidth * ratio);
  canvas.height = Math.round(canvas.clientHeight * ratio);
  const width = part.w * size.width * zoom * ratio;
  const height = part.h * size.height * zoom * ratio;
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = smooth;
  context.imageSmoothingQuality = "high";
  context.drawImage(
    image,
    part.x * image.naturalWidth, part.y * image.naturalHeight,
    part.w * image.naturalWidth, part.h * image.naturalHeight,
    (canvas.width - width) / 2, (canvas.height - height) / 2, width, height,
  );
}

function drag(element, move, atOnce = true) {
  element.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    event.stopPropagation();
    element.setPointerCapture(event.pointerId);
    if (atOnce) move(event);
    const ears = new AbortController();
    const on = (type, act) => element.addEventListener(type, act, { signal: ears.signal });
    on("pointermove", move);
    on("pointerup", (last) => { move(last); ears.abort(); });
    on("pointercancel", () => ears.abort());
  });
}

customElements.define("paragon-drop", ParagonDrop);
customElements.define("paragon-viewer", ParagonViewer);
