const STATUSES = { done: "Done", failed: "Failed", unfinished: "Unfinished", earlier: "Earlier" };
const IMAGES = /\.(png|jpe?g|webp|gif|avif|bmp)$/i;
const VIDEOS = /\.(mp4|webm|mov)$/i;
const SOUNDS = /\.(wav|mp3|flac|ogg|opus|m4a)$/i;
const TEXTS = /\.(txt|md)$/i;

data.cards.forEach((card) => {
  card.took = Object.values(card.seconds).reduce((sum, one) => sum + one, 0);
  card.prompt = typeof card.params.prompt === "string" ? card.params.prompt : "";
  card.words = [card.id, card.prompt, card.key, card.status, card.file, card.error].join("\n").toLowerCase();
  card.link = card.file && `outputs/${encodeURIComponent(card.file)}`;
});

/** The heading: what all files are. */
function outputsName() {
  const files = data.cards.map((card) => card.file).filter(Boolean);
  if (!files.length) return "Outputs";
  const kinds = { Pictures: IMAGES, Videos: VIDEOS, Sounds: SOUNDS, Texts: TEXTS };
  return Object.keys(kinds).find((kind) => files.every((file) => kinds[kind].test(file))) ?? "Outputs";
}

const MARGIN = 0.7; // screens above and below the visible part that are drawn too

const gallery = {
  list: byId("gallery"),
  shown: [],
  cells: new Map(),
  view: { query: "", status: "", order: "run", ...session.get("view") },

  start() {
    byId("outputs-title").textContent = outputsName();
    byId("search").value = this.view.query;
    byId("order").value = this.view.order;
    byId("search").addEventListener("input", (event) => this.update({ query: event.target.value }));
    byId("order").addEventListener("change", (event) => this.update({ order: event.target.value }));
    this.list.addEventListener("keydown", (event) => this.move(event));
    window.addEventListener("scroll", () => requestAnimationFrame(() => this.draw()), { passive: true });
    new ResizeObserver(() => this.draw()).observe(this.list);
    this.offerStatuses();
    this.update({});
  },

  offerStatuses() {
    const counted = (status) => data.cards.filter((card) => card.status === status).length;
    const there = Object.keys(STATUSES).filter((status) => counted(status));
    if (there.length < 2) {
      if (!there.includes(this.view.status)) this.view.status = "";
      return;
    }
    const chip = (status, label, number) =>
      el("button", { type: "button", "data-status": status, click: () => this.update({ status }) },
        `${label} ${number.toLocaleString()}`);
    byId("statuses").replaceChildren(
      chip("", "All", data.cards.length),
      ...there.map((status) => chip(status, STATUSES[status], counted(status))),
    );
  },

  /** Apply a change of search, status or order. */
  update(change) {
    Object.assign(this.view, change);
    session.set("view", this.view);
    const { query, status, order } = this.view;
    const words = query.toLowerCase().split(/\s+/).filter(Boolean);
    this.shown = data.cards.filter(
      (card) => (!status || card.status === status) && words.every((word) => card.words.includes(word)),
    );
    const orders = {
      newest: (a, b) => (b.time || "").localeCompare(a.time || ""),
      slowest: (a, b) => b.took - a.took,
      name: (a, b) => a.id.localeCompare(b.id, undefined, { numeric: true }),
    };
    if (orders[order]) this.shown.sort(orders[order]);
    this.draw();
    for (const button of byId("statuses").children) {
      button.setAttribute("aria-pressed", String(button.dataset.status === status));
    }
    const all = data.cards.length;
    byId("count").textContent = this.shown.length === all
      ? all.toLocaleString() : `${this.shown.length.toLocaleString()} of ${all.toLocaleString()}`;
    byId("nothing").hidden = this.shown.length > 0;
    byId("nothing").textContent = all ? "Nothing matches." : "There is nothing yet.";
  },

  /** The number of columns, and the height of a row in pixels. */
  grid() {
    const style = getComputedStyle(this.list);
    const tracks = style.gridTemplateColumns.split(" ");
    const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
    const caption = parseFloat(style.getPropertyValue("--caption")) * rem;
    return { columns: tracks.length, row: parseFloat(tracks[0]) + caption + parseFloat(style.rowGap) };
  },

  /** Draw the visible rows and pad for the others, so that ten thousand pictures cost as much as a screenful. */
  draw() {
    const { columns, row } = this.grid();
    const { top } = this.list.getBoundingClientRect();
    const rows = Math.ceil(this.shown.length / columns);
    const within = (number) => Math.min(rows, Math.max(0, number));
    const from = within(Math.floor((-top - MARGIN * innerHeight) / row));
    const to = within(Math.ceil((-top + (1 + MARGIN) * innerHeight) / row));
    this.list.style.paddingBlock = `${from * row}px ${(rows - to) * row}px`;
    const cards = this.shown.slice(from * columns, to * columns);
    const visible = new Set(cards);
    for (const [card, cell] of this.cells) {
      if (!visible.has(card)) {
        cell.remove();
        this.cells.delete(card);
      }
    }
    cards.forEach((card, n) => {
      if (!this.cells.has(card)) this.cells.set(card, el("li", {}, cardOf(card)));
      const [cell, there] = [this.cells.get(card), this.list.children[n]];
      cell.setAttribute("aria-posinset", from * columns + n + 1);
      cell.setAttribute("aria-setsize", this.shown.length);
      if (cell !== there) this.list.insertBefore(cell, there ?? null); // unmoved cells keep the focus
    });
  },

  /** Arrow keys move the focus between cards. */
  move(event) {
    const at = this.shown.findIndex((card) => this.cells.get(card)?.contains(event.target));
    const { columns } = this.grid();
    const last = this.shown.length - 1;
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, Home: -at, End: last - at };
    const to = at + steps[event.key];
    if (at < 0 || !(to >= 0 && to <= last)) return;
    event.preventDefault();
    this.focus(this.shown[to]);
  },

  focus(card) {
    const at = this.shown.indexOf(card);
    if (at >= 0 && !this.cells.has(card)) {
      const { columns, row } = this.grid();
      const top = this.list.getBoundingClientRect().top + Math.floor(at / columns) * row;
      window.scrollBy({ top: top - innerHeight / 3, behavior: "instant" });
      this.draw();
    }
    this.cells.get(card)?.firstChild.focus();
  },
};

function cardOf(card) {
  const { width, height, steps, seed } = card.params;
  const made = [
    seed === undefined ? null : `seed ${seed}`,
    width && height ? `${width} × ${height}` : null,
    steps === undefined ? null : count(steps, "step"),
  ].filter(Boolean).join(" · ");
  const time = card.took ? `${duration(card.took)} · ` : "";
  const open = (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    viewer.show(card);
  };
  return el("a", { class: `card ${card.status}`, href: card.link || "#outputs", click: open, title: card.prompt || card.id },
    el("div", { class: "frame" },
      thumbnail(card),
      card.status === "done" ? null : el("span", { class: "badge" }, STATUSES[card.status])),
    el("div", { class: "caption" },
      el("div", { class: "prompt" }, card.prompt || card.id),
      el("div", { class: "small" }, made || card.id),
      el("div", { class: "small" }, time, el("span", { class: "mono" }, (card.key || "").slice(0, 8)))),
  );
}

function thumbnail(card) {
  const gone = (event) => event.target.replaceWith(el("span", { class: "glyph" }, "missing"));
  if (card.file && IMAGES.test(card.file)) {
    return el("img", { src: card.link, alt: "", loading: "lazy", decoding: "async", error: gone });
  }
  if (card.file && VIDEOS.test(card.file)) { // its first frame; the link around it opens the player
    return el("video", { src: card.link, muted: "", preload: "metadata", tabindex: "-1", error: gone });
  }
  if (card.text !== undefined) return el("span", { class: "excerpt" }, card.text);
  if (card.status === "failed") return el("span", { class: "glyph" }, card.error);
  return el("span", { class: "glyph" }, card.file ? card.file.split(".").pop() : "…");
}
