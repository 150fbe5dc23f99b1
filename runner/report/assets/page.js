const RELOAD_SECONDS = 5;
const QUIET_SECONDS = 120;

function showHead() {
  const run = data.runs.at(-1);
  byId("name").textContent = data.name;
  if (!run) return;
  const tone = run.exit_code === null ? (data.live ? "running" : "warn") : { 0: "done", 1: "warn", 130: "warn" }[run.exit_code] ?? "bad";
  byId("state").textContent = run.state;
  byId("state").classList.add(tone);
  byId("summary").textContent = [
    run.started ? date(run.started) : null,
    run.manifest.split(/[\\/]/).at(-1),
    data.activity || null,
  ].filter(Boolean).join(" · ");
  const stage = run.stages.at(-1);
  if (data.live && stage) {
    byId("progress").hidden = false;
    const part = run.stages.length - 1 + (stage.done + stage.failed) / Math.max(1, stage.items);
    byId("progress").firstElementChild.style.setProperty("--part", percent(part / Math.max(run.stage_names.length, 1)));
  }
  if (run.error) notice(run.error, run.exit_code === 130 ? "warn" : "");
  byId("figures").replaceChildren(...figures(run));
}

function figures(run) {
  const held = run.stages.filter((stage) => stage.measured.ram);
  const top = held.reduce((a, b) => (b.measured.ram > (a?.measured.ram ?? 0) ? b : a), null);
  const warned = run.warnings.reduce((sum, group) => sum + group.count, 0);
  const vram = Math.max(0, ...run.stages.map((stage) => stage.measured.vram ?? 0));
  const figure = (label, value, small, kind) =>
    value === null ? null : el("div", { class: kind ?? "" }, el("dt", {}, label),
      el("dd", {}, value, small ? el("small", {}, ` ${small}`) : null));
  return [
    figure(run.items === 1 ? "item" : "items", run.items.toLocaleString()),
    figure("made", run.made.toLocaleString(), run.cached ? `${run.cached.toLocaleString()} were there` : null),
    figure("failed", run.failed ? run.failed.toLocaleString() : null, null, "bad"),
    figure("warnings", warned ? warned.toLocaleString() : null),
    figure(run.exit_code === null ? "so far" : "took", run.seconds === null ? null : duration(run.seconds)),
    figure("peak RAM", top && size(top.measured.ram),
      top && (top.budget.ram ? `of ${size(top.budget.ram)}` : `in ${top.name}`)),
    figure("peak VRAM", vram ? size(vram) : null),
  ].filter(Boolean);
}

function notice(text, tone = "") {
  byId("notices").append(el("p", { class: `notice ${tone}`, role: "status" }, text));
}

function showManifest() {
  const pattern = /(#[^\n]*)|("""[\s\S]*?"""|'''[\s\S]*?'''|"(?:\\.|[^"\\\n])*"|'[^'\n]*')|(^[ \t]*\[[^\]\n]*\]+)/gm;
  const parts = [];
  let end = 0;
  for (const match of data.manifest.matchAll(pattern)) {
    const kind = ["comment", "string", "table"][[1, 2, 3].find((group) => match[group] !== undefined) - 1];
    parts.push(data.manifest.slice(end, match.index), el("span", { class: kind }, match[0]));
    end = match.index + match[0].length;
  }
  byId("manifest-text").append(...parts, data.manifest.slice(end));
}

function showMachine() {
  const run = data.runs.findLast((one) => one.machine) ?? {};
  const { system, cpu, cores, ram, accelerators } = run.machine ?? {};
  const list = facts([
    system ? ["System", el("span", { class: "mono" }, system)] : null,
    cpu ? ["Processor", cores ? `${cpu}, ${count(cores, "core")}` : cpu] : null,
    ram ? ["RAM", size(ram)] : null,
    ...(accelerators ?? []).map((one) => ["Accelerator", `${one.name}, ${size(one.memory)}`]),
    null,
    ...Object.entries(run.versions ?? {}).map(([name, version]) => [name, el("span", { class: "mono" }, version)]),
  ].filter((pair) => pair !== undefined));
  byId("machine-list").replaceWith(list);
  list.id = "machine-list";
  byId("machine").hidden = !list.children.length;
}

/** Light or dark: the system's setting until the user switches. */
function startTheme() {
  const root = document.documentElement;
  try {
    root.dataset.theme = localStorage.getItem("runner-theme") ?? "";
  } catch {
    // not stored: the system's setting
  }
  byId("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    try {
      localStorage.setItem("runner-theme", root.dataset.theme);
    } catch {
      // not stored: it lasts until the page is closed
    }
  });
}

/** Reload the page while the run goes on, unless the user is busy with it. */
function startUpdates() {
  if (!data.live) return;
  const button = byId("updates");
  let paused = Boolean(session.get("paused"));
  const show = () => {
    button.textContent = paused ? "Resume updates" : "Pause updates";
    button.setAttribute("aria-pressed", String(paused));
  };
  button.hidden = false;
  button.addEventListener("click", () => {
    paused = !paused;
    session.set("paused", paused);
    show();
  });
  show();
  const busy = () => paused || document.hidden || byId("viewer").open || document.activeElement === byId("search")
    || !getSelection().isCollapsed;
  setInterval(() => busy() || location.reload(), RELOAD_SECONDS * 1000);
  if (Date.now() - Date.parse(data.updated) > QUIET_SECONDS * 1000) {
    notice(`No news of this run since ${date(data.updated)}. If it was killed, run it again: it continues from here.`, "warn");
  }
}

document.addEventListener("keydown", (event) => {
  const writing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
  if (event.key === "/" && !writing && !byId("viewer").open) {
    event.preventDefault();
    byId("search").focus();
  }
});

startTheme();
showHead();
showFailures();
showWarnings();
gallery.start();
viewer.start();
stages.start();
showManifest();
showMachine();
byId("footer").textContent = `Written ${date(data.updated)} by runner ${data.version}`;
startUpdates();
