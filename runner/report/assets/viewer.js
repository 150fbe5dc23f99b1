/** The dialog: one output at full size, with its record. */
const viewer = {
  dialog: byId("viewer"),
  card: null,

  start() {
    this.dialog.addEventListener("keydown", (event) => {
      if (/^(VIDEO|AUDIO)$/.test(event.target.tagName)) return; // the arrows are the player's
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      const next = step && gallery.shown[gallery.shown.indexOf(this.card) + step];
      if (next) this.show(next);
    });
    this.dialog.addEventListener("click", (event) => {
      if (event.target === this.dialog) this.dialog.close();
    });
    this.dialog.addEventListener("close", () => {
      this.dialog.children[0].replaceChildren(); // a player would go on
      gallery.focus(this.card);
    });
  },

  show(card) {
    this.card = card;
    const [light, aside] = this.dialog.children;
    light.replaceChildren(this.large(card));
    aside.replaceChildren(
      el("p", { class: "full" }, card.prompt || card.id),
      facts([
        ["Status", STATUSES[card.status]],
        ...Object.entries(card.params).filter(([name, value]) => name !== "prompt" && value !== null).map(([name, value]) => [name, asText(value)]),
        null,
        ...Object.entries(card.seconds).map(([stage, seconds]) => [stage, duration(seconds)]),
        card.time ? ["Made", date(card.time)] : null,
        null,
        ["Item", el("span", { class: "mono" }, card.id)],
        ["Key", el("span", { class: "mono" }, card.key || "")],
        card.file ? ["File", el("a", { href: card.link }, card.file)] : null,
      ]),
    );
    if (!this.dialog.open) this.dialog.showModal();
  },

  large(card) {
    if (card.file && IMAGES.test(card.file)) {
      return el("a", { href: card.link, "aria-label": "Open the file" }, el("img", { src: card.link, alt: card.prompt || card.id }));
    }
    const player = { src: card.link, controls: "", preload: "metadata", "aria-label": card.prompt || card.id };
    if (card.file && VIDEOS.test(card.file)) return el("video", { ...player, loop: "" });
    if (card.file && SOUNDS.test(card.file)) return el("audio", player);
    if (card.error) return el("pre", { class: "code", tabindex: "0" }, card.traceback || card.error);
    if (card.text !== undefined) return el("pre", { class: "code", tabindex: "0" }, card.text);
    return card.file ? el("a", { href: card.link }, card.file) : el("span", { class: "dim" }, "Not made yet");
  },
};

const asText = (value) => (typeof value === "string" ? value : JSON.stringify(value));

/** A list of names and values; null draws a rule between two groups. */
function facts(pairs) {
  const rows = [];
  for (const pair of pairs) {
    if (pair) rows.push(el("dt", {}, pair[0]), el("dd", {}, pair[1]));
    else if (rows.length && rows.at(-1).tagName === "DD") rows.push(el("div", { class: "rule" }));
  }
  if (rows.length && rows.at(-1).className === "rule") rows.pop();
  return el("dl", { class: "facts" }, ...rows);
}
