// A picture with its boxes: an SVG over the image in the image's own pixels, with zoom, pan and drawing.

import { element, shape } from "./page.js";

const SIGN = { human: "✓ ", rejected: "✕ " }; // in addition to the style of the line, as not everyone sees the colours
const MAX_ZOOM = 12, STEP_PX = 0.02, LEAST_FRAC = 0.005;

const clip = (value, most) => Math.min(most, Math.max(0, value));

export class Picture {
  /** `boxes` is 0 to draw those that the view shows, 1 all, 2 none. `chosen(index)` is called when a box is clicked, `drawn(box)` with the corners in pixels of a finished drawing. */
  constructor(stage, chosen, drawn) {
    Object.assign(this, { stage, chosen, drawn, zoom: 1, x: 0, y: 0, boxes: 0, drawing: null, second: [] });
    this.image = element("img", { decoding: "async", alt: "" });
    this.svg = shape("svg", { preserveAspectRatio: "none" });
    this.frame = element("div", { className: "frame" }, this.image, this.svg);
    stage.append(this.frame);
    this.image.addEventListener("error", () => {
      if (this.image.src === new URL(this.shown, location).href) return stage.classList.add("unreadable");
      this.full = ""; // a browser shows no TIFF file, and the file may be gone
      this.image.src = this.shown;
    });
    this.image.addEventListener("load", () => stage.classList.remove("unreadable"));
    stage.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoomBy(event.deltaY < 0 ? 1.25 : 0.8, event);
    }, { passive: false });
    this.#follow();
    new ResizeObserver(() => this.#fit()).observe(stage);
  }

  /** Show an image. Zoom and place stay, as night pictures of one camera differ little. */
  show({ src, full, width, height, alt }) {
    Object.assign(this, { width, height });
    this.image.alt = alt;
    if (this.shown !== src) {
      this.shown = this.image.src = src;
      Object.assign(this, { full, drawing: null });
      this.stage.classList.remove("drawing");
    }
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.#fit();
  }

  /** Return once the picture can be seen, or cannot be loaded. */
  async visible() {
    const { src } = this.image;
    await this.image.decode().catch(() => {});
    if (src !== this.image.src) await this.visible(); // the original is loaded instead
  }

  draw(boxes, selected) {
    const isDrawn = (box, index) => this.boxes === 1 || (!this.boxes && (box.is_shown || box.is_human || index === selected));
    const marks = boxes.flatMap((box, index) => (isDrawn(box, index) ? [this.#mark(box, index, index === selected)] : []));
    const second = this.second.flatMap((box) => [this.#corners("other", box), this.#words(box, "B ", box.y2_px)]);
    this.svg.replaceChildren(...second, ...marks);
    if (this.drawing) this.svg.append(this.#corners("drawing", this.drawing));
  }

  #mark(box, index, isSelected) {
    const kind = box.is_human ? (box.is_shown ? "human" : "rejected") : box.is_shown ? "model" : "hidden";
    const rect = this.#corners(`box ${kind}${isSelected ? " selected" : ""}`, box);
    rect.addEventListener("click", () => this.moved || this.chosen(index));
    return shape("g", {}, rect, this.#words(box, `${index + 1} ${SIGN[kind] ?? ""}`, box.y1_px));
  }

  /** Return label and score of a box as a text above a line `y`. */
  #words(box, start, y) {
    const size = Math.max(this.width, this.height) / 55 / Math.sqrt(this.zoom);
    const words = `${start}${box.label ?? "?"}${box.score === null ? "" : " " + box.score.toFixed(2)}`;
    const x = Math.max(0, Math.min(box.x1_px, this.width - words.length * size * 0.62)); // within the picture
    return shape("text", { x, y: Math.max(y - size * 0.35, size), "font-size": size }, words);
  }

  #corners(className, { x1_px, y1_px, x2_px, y2_px }) {
    return shape("rect", { class: className, x: x1_px, y: y1_px, width: Math.max(0, x2_px - x1_px), height: Math.max(0, y2_px - y1_px) });
  }

  #fit() {
    if (!this.width) return;
    const { clientWidth, clientHeight } = this.stage;
    this.scale = Math.min(clientWidth / this.width, clientHeight / this.height);
    const [w, h] = [this.width * this.scale, this.height * this.scale];
    Object.assign(this.frame.style, { width: `${w}px`, height: `${h}px` });
    this.left = (clientWidth - w) / 2;
    this.top = (clientHeight - h) / 2;
    this.#place();
  }

  #place() {
    this.frame.style.transform = `translate(${this.left + this.x}px, ${this.top + this.y}px) scale(${this.zoom})`;
    const needed = this.width * this.scale * this.zoom * devicePixelRatio;
    if (this.full && needed > 1600 * 1.2 && this.image.src !== new URL(this.full, location).href) this.image.src = this.full;
  }

  /** Zoom about a pointer, or about the middle. */
  zoomBy(factor, at) {
    const zoom = Math.min(MAX_ZOOM, Math.max(1, this.zoom * factor));
    const bounds = this.stage.getBoundingClientRect();
    const px = at ? at.clientX - bounds.left : bounds.width / 2, py = at ? at.clientY - bounds.top : bounds.height / 2;
    const change = zoom / this.zoom;
    this.x = px - this.left - (px - this.left - this.x) * change;
    this.y = py - this.top - (py - this.top - this.y) * change;
    this.zoom = zoom;
    if (zoom === 1) this.x = this.y = 0;
    this.#place();
  }

  fit() {
    Object.assign(this, { zoom: 1, x: 0, y: 0 });
    this.#place();
  }

  // drawing: by pointer, or by keys from a box in the middle

  startDrawing() {
    const [w, h] = [this.width / 4, this.height / 4], [x, y] = [(this.width - w) / 2, (this.height - h) / 2];
    this.drawing = { x1_px: x, y1_px: y, x2_px: x + w, y2_px: y + h };
    this.stage.classList.add("drawing");
  }

  /** Move the drawn box by keys, or its lower right corner with `sizing`. */
  nudge(dx, dy, sizing) {
    const box = this.drawing, step = STEP_PX * Math.max(this.width, this.height);
    const [w, h] = [box.x2_px - box.x1_px, box.y2_px - box.y1_px];
    if (sizing) {
      box.x2_px = clip(Math.max(box.x1_px + step, box.x2_px + dx * step), this.width);
      box.y2_px = clip(Math.max(box.y1_px + step, box.y2_px + dy * step), this.height);
    } else {
      box.x1_px = clip(box.x1_px + dx * step, this.width - w);
      box.y1_px = clip(box.y1_px + dy * step, this.height - h);
      [box.x2_px, box.y2_px] = [box.x1_px + w, box.y1_px + h];
    }
  }

  finishDrawing(keep) {
    const box = this.drawing;
    this.drawing = null;
    this.stage.classList.remove("drawing");
    if (keep && box && box.x2_px - box.x1_px > this.width * LEAST_FRAC && box.y2_px - box.y1_px > this.height * LEAST_FRAC) this.drawn(box);
  }

  #pixel(event) {
    const bounds = this.frame.getBoundingClientRect();
    return [clip(((event.clientX - bounds.left) / bounds.width) * this.width, this.width),
      clip(((event.clientY - bounds.top) / bounds.height) * this.height, this.height)];
  }

  #follow() {
    let from = null;
    this.stage.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      from = { x: event.clientX, y: event.clientY, left: this.x, top: this.y, pixel: this.#pixel(event), isBox: !!this.drawing };
      this.moved = false;
    });
    this.stage.addEventListener("pointermove", (event) => {
      if (!from) return;
      this.moved ||= Math.hypot(event.clientX - from.x, event.clientY - from.y) > 4;
      if (!this.moved) return;
      if (from.isBox) {
        const [x, y] = this.#pixel(event), [fx, fy] = from.pixel;
        this.drawing = { x1_px: Math.min(x, fx), y1_px: Math.min(y, fy), x2_px: Math.max(x, fx), y2_px: Math.max(y, fy) };
        this.svg.querySelector(".drawing")?.remove();
        this.svg.append(this.#corners("drawing", this.drawing));
      } else if (this.zoom > 1) {
        this.x = from.left + event.clientX - from.x;
        this.y = from.top + event.clientY - from.y;
        this.#place();
      }
    });
    addEventListener("pointerup", () => {
      const wasDrawn = from?.isBox && this.moved;
      from = null;
      if (wasDrawn) this.finishDrawing(true);
    });
  }
}
