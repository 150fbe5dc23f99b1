/** Failures, and the warnings of the latest run that had something to do. */
const FAILURES = 100; // the others are among the outputs

function showFailures() {
  const failed = data.cards.filter((card) => card.status === "failed");
  byId("failures").hidden = failed.length === 0;
  byId("failures-title").append(counted(failed.length));
  const rows = failed.slice(0, FAILURES).map((card, n) => el("details", { open: n ? null : "" },
    el("summary", {},
      el("b", {}, card.id),
      el("span", { class: "dim" }, ` in ${card.stage}`, card.attempts > 1 ? `, tried ${card.attempts} times` : ""),
      el("span", { class: "why" }, card.error.split("\n")[0])),
    card.prompt ? el("p", { class: "what" }, card.prompt) : null,
    el("pre", { class: "code traceback", tabindex: "0" },
      card.traceback || `${card.error}\n\n(its traceback, if it has one, is in journal.jsonl)`),
  ));
  const more = failed.length - rows.length;
  byId("failure-list").replaceChildren(...rows,
    ...(more > 0 ? [el("p", { class: "more" }, `${more.toLocaleString()} more are among the outputs.`)] : []));
}

function showWarnings() {
  const run = data.runs.findLast((one) => one.stages.length || one.warnings.length);
  const groups = run?.warnings ?? [];
  byId("warnings").hidden = groups.length === 0;
  byId("warnings-title").append(counted(groups.reduce((sum, group) => sum + group.count, 0)));
  byId("warning-list").replaceChildren(...groups.map((group) => el("details", { open: groups.length < 4 ? "" : null },
    el("summary", {},
      el("b", {}, group.kind),
      group.stage ? el("span", { class: "dim" }, ` in ${group.stage}`) : null,
      counted(group.count)),
    el("ul", {}, ...group.first.map(({ item, message }) =>
      el("li", {}, item ? el("b", {}, `${item}: `) : null, message))),
    group.count > group.first.length
      ? el("p", { class: "more" }, `${(group.count - group.first.length).toLocaleString()} more are in journal.jsonl.`) : null,
  )));
}

const counted = (number) => el("span", { class: "dim number" }, ` ${number.toLocaleString()}`);
