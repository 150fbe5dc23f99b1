/** The stages of a run: when they ran, and their memory against prediction and budget. */
const stages = {
  start() {
    const picker = byId("runs");
    const worked = data.runs.findLastIndex((run) => run.stages.length);
    picker.hidden = data.runs.length < 2;
    picker.lastChild.replaceChildren(...data.runs.map((run, n) => el("option", { value: n },
      `${run.started ? date(run.started) : "?"}, ${run.state}`)).reverse());
    picker.lastChild.value = String(Math.max(worked, 0));
    picker.addEventListener("change", (event) => this.show(data.runs[event.target.value]));
    if (data.runs.length) this.show(data.runs[Math.max(worked, 0)]);
  },

  show(run) {
    const most = Math.max(1, ...run.stages.flatMap((stage) => [
      stage.predicted.ram, stage.budget.ram, stage.measured.ram, ...stage.memory.map(([, bytes]) => bytes),
    ]).map(Number));
    byId("timeline").replaceChildren(...(run.stages.length && run.started ? [strip(run), ...nodeStrips(run)] : []));
    const idle = run.stage_names.filter((name) => !run.stages.some((stage) => stage.name === name));
    byId("stage-list").replaceChildren(
      ...run.stages.map((stage) => stageRow(stage, most)),
      ...(idle.length ? [el("p", { class: "empty" },
        run.exit_code === null ? `To come: ${idle.join(", ")}` : `Nothing to do: ${idle.join(", ")}`)] : []),
    );
    byId("legend").hidden = run.stages.length === 0;
  },
};

function strip(run) {
  const ends = run.stages.map((stage) => stage.offset + stage.seconds);
  const whole = Math.max(run.seconds ?? 0, ...ends, 0.001);
  const begun = Date.parse(run.started);
  return el("div", { class: "timeline" },
    el("div", { class: "strip" }, ...run.stages.map((stage, n) => el("a", {
      href: `#stage-${stage.name}`,
      class: `${stage.seconds / whole < 0.07 ? "narrow" : ""} ${stage.failed ? "bad" : ""}`,
      title: `${stage.name}: ${duration(stage.seconds)}`,
      "--from": percent(stage.offset / whole),
      "--wide": percent(stage.seconds / whole),
      "--strength": `${[38, 24, 52, 31][n % 4]}%`,
    }, `${stage.name} · ${duration(stage.seconds)}`))),
    el("div", { class: "hours number" },
      el("span", {}, clock(begun)), el("span", {}, duration(whole)), el("span", {}, clock(begun + 1000 * whole))));
}

/** When each node made items, below the stages and on their scale. */
function nodeStrips(run) {
  const ends = run.stages.map((stage) => stage.offset + stage.seconds);
  const whole = Math.max(run.seconds ?? 0, ...ends, 0.001);
  return run.nodes.map((node) => el("div", { class: "timeline node" },
    el("p", { class: "about number" },
      [node.name, node.device, count(node.done, "item"), node.failed ? `${node.failed} failed` : null,
        node.state === "joined" ? null : `${node.state}: ${node.reason}`].filter(Boolean).join(" · ")),
    el("div", { class: "strip" }, ...node.shares.map((share) => el("a", {
      href: `#stage-${share.stage}`,
      class: `narrow ${share.failed ? "bad" : ""}`,
      title: `${node.name}, ${share.stage}: ${count(share.done, "item")} in ${duration(share.seconds)}`,
      "--from": percent(share.offset / whole),
      "--wide": percent(share.seconds / whole),
      "--strength": `${[38, 24, 52, 31][run.stage_names.indexOf(share.stage) % 4]}%`,
    }, "")))));
}

function stageRow(stage, most) {
  const made = [
    `${stage.done.toLocaleString()} of ${count(stage.items, "item")}`
      + (stage.distinct === stage.items ? "" : ` (${stage.distinct.toLocaleString()} distinct)`),
    stage.cached ? `${stage.cached.toLocaleString()} were there` : null,
  ].filter(Boolean).join(", ");
  const read = stage.streamed;
  return el("article", { class: "stage", id: `stage-${stage.name}` },
    el("div", {},
      el("h3", {}, stage.name),
      el("p", { class: "about" }, [stage.placement, stage.dtype, stage.device].filter(Boolean).join(" · ")),
      el("p", { class: "about number" }, made, stage.failed ? el("b", {}, `, ${stage.failed} failed`) : null),
      el("p", { class: "about number" }, duration(stage.seconds),
        stage.each === null ? null : ` · ${duration(stage.each)} an item`),
      read ? el("p", { class: "about number" }, `${size(read.read)} read, waited ${duration(read.waited)}`) : null),
    chart(stage, most),
    el("div", { class: "meters" }, meter("RAM", stage, "ram"), meter("VRAM", stage, "vram")),
    ...stage.lowered.map((fall) => el("p", { class: "fall" },
      `Ran out of memory as ${fall.placement}`,
      fall.measured.ram ? `, which held ${size(fall.measured.ram)} of RAM` : null,
      fall.measured.vram ? ` and ${size(fall.measured.vram)} of VRAM` : null,
      fall.next ? `; continued as ${fall.next}.` : "; no placement holds less.")),
  );
}

/** Memory over a stage's time. All stages of a run share one scale. */
function chart(stage, most) {
  const points = stage.memory;
  const box = el("div", { class: "chart", role: "img", "aria-label": spoken(stage) });
  if (points.length < 2) {
    box.append(el("div", { class: "none" }, "too short to be sampled"));
    return box;
  }
  const last = Math.max(points.at(-1)[0], stage.seconds, 0.001);
  const x = (seconds) => (1000 * seconds) / last;
  const y = (bytes) => 100 - (94 * bytes) / most;
  const line = points.map(([seconds, bytes]) => `${x(seconds).toFixed(1)} ${y(bytes).toFixed(2)}`).join("L");
  const level = (kind, bytes) => bytes ? svg("line", { class: kind, x1: 0, x2: 1000, y1: y(bytes), y2: y(bytes) }) : null;
  box.append(svg("svg", { viewBox: "0 0 1000 100", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("path", { class: "area", d: `M${x(points[0][0])} 100L${line}L${x(points.at(-1)[0])} 100Z` }),
    svg("path", { class: "edge", d: `M${line}` }),
    svg("line", { class: "floor", x1: 0, x2: 1000, y1: 100, y2: 100 }),
    level("predicted", stage.predicted.ram),
    level("budget", stage.budget.ram),
    ...stage.lowered.map(({ offset }) => svg("line", { class: "fell", x1: x(offset), x2: x(offset), y1: 0, y2: 100 })),
  ));
  if (stage.budget.ram) {
    box.append(el("span", { class: "label", "--at": percent(y(stage.budget.ram) / 100) }, size(stage.budget.ram)));
  }
  const begun = points[0][0] / last;
  if (begun > 0.12) box.append(el("span", { class: "wait", "--wide": percent(begun) }, "starting"));
  readOff(box, points, last);
  return box;
}

/** Show the memory at the pointer's position. */
function readOff(box, points, last) {
  const mark = el("div", { class: "hover", hidden: "" }, el("span"));
  box.append(mark);
  box.addEventListener("pointermove", (event) => {
    const { left, width } = box.getBoundingClientRect();
    const seconds = ((event.clientX - left) / width) * last;
    const at = points.findLast(([time]) => time <= seconds) ?? points[0];
    mark.hidden = false;
    mark.style.setProperty("--x", percent(Math.min(1, Math.max(0, seconds / last))));
    mark.firstChild.textContent = `${duration(at[0])}: ${size(at[1])}`;
  });
  box.addEventListener("pointerleave", () => { mark.hidden = true; });
}

function spoken(stage) {
  const { measured, predicted, budget } = stage;
  return [
    `RAM of ${stage.name} over time`,
    measured.ram ? `peak ${size(measured.ram)}` : null,
    predicted.ram ? `predicted ${size(predicted.ram)}` : null,
    budget.ram ? `budget ${size(budget.ram)}` : null,
  ].filter(Boolean).join(", ");
}

/** A measured peak and its prediction (the tick), on the scale of the budget. */
function meter(label, stage, kind) {
  const [measured, predicted, budget] = [stage.measured[kind], stage.predicted[kind], stage.budget[kind]];
  if (!measured && !predicted) return null;
  const whole = Math.max(budget ?? 0, measured ?? 0, predicted ?? 0);
  return el("div", { class: `meter ${budget && measured > budget ? "over" : ""}` },
    el("div", { class: "head" },
      el("span", {}, label), el("span", {}, measured ? size(measured) : "not measured")),
    el("div", { class: "track" },
      el("div", { class: "fill", "--part": percent((measured ?? 0) / whole) }),
      predicted ? el("div", { class: "tick", "--part": percent(predicted / whole) }) : null),
    el("div", { class: "foot" },
      el("span", {}, predicted ? `predicted ${size(predicted)}` : "no prediction"),
      el("span", {}, budget ? `budget ${size(budget)}` : "no budget")));
}
