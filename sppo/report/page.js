"use strict";
// Draws the page from the data inside it. Whatever a run says gets onto the page by textContent
// alone; there is no innerHTML here, and the policy of the page lets no other script run.

const COLOURS = ["#2563eb", "#dc2626", "#059669", "#9333ea", "#d97706", "#0891b2", "#be185d", "#4d7c0f"];
const DASHES = [[], [6, 4]];
const KINDS = {
  "trains": "#2563eb", "waits for groups": "#f59e0b", "weight sync": "#10b981",
  "anchor log-probs": "#0891b2", "evaluating": "#a855f7", "something in hand": "#2563eb",
  "of that, with the scorer": "#7c3aed", "nothing in hand": "#fde3b0", "another phase": "#94a3b8",
};
const PAGE = 50; // rows that a table shows at first, and more at a time

function el(tag, given = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(given)) node[key] = value;
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

async function unpack(id) {
  const text = atob(document.getElementById(id).textContent);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

function number(value) {
  if (value === null || value === undefined) return "–";
  return Number.isInteger(value) ? value.toLocaleString("en") : String(Number(value.toPrecision(4)));
}

function clock(seconds) {
  const at = Math.max(0, Math.round(seconds));
  const two = (n) => String(n).padStart(2, "0");
  return `${Math.floor(at / 3600)}:${two(Math.floor(at / 60) % 60)}:${two(at % 60)}`;
}

function section(title, ...children) {
  const id = title.toLowerCase().replaceAll(" ", "-");
  document.querySelector("nav").append(el("a", { href: `#${id}`, textContent: title }));
  const node = el("section", { id }, el("h2", { textContent: title }), ...children);
  document.querySelector("main").append(node);
  return node;
}

function chip(colour) {
  const node = el("span", { className: "chip" });
  node.style.background = colour;
  return node;
}

// runs ------------------------------------------------------------------------------------------
function card(run, i) {
  const { summary } = run, steps = run.metrics.step || [], held = run.evaluations;
  const told = (each) => `${number(each.value)} at step ${each.step}` +
    (each.low === null ? "" : ` [${number(each.low)}, ${number(each.high)}]`);
  const last = (name) => (run.metrics[name] || []).at(-1);
  const rows = {
    state: run.state + (run.state === "running" && run.phase ? `: ${run.phase}` : ""),
    steps: `${number(steps.at(-1) ?? 0)} of ${number(run.steps)}`,
    time: clock(run.timeline.seconds),
    reward: steps.length ? `${number(run.metrics.reward_mean?.[0])} → ${number(last("reward_mean"))}` : null,
    "held out": held.length ? `${told(held[0])}${held.length > 1 ? ` → ${told(held.at(-1))}` : ""}` : "not measured",
    busy: summary.busy && Object.entries(summary.busy).map(([k, v]) => `${k} ${Math.round(100 * v)} %`).join(", "),
    tickets: summary.tickets && Object.entries(summary.tickets).map(([k, v]) => `${v} ${k}`).join(", "),
    memory: summary.peak_memory_mb && `${number(summary.peak_memory_mb / 1024)} GiB at its peak, all processes of one machine`,
    versions: Object.entries(run.versions).map(([k, v]) => `${k} ${v}`).join(", ") || "not recorded",
  };
  const list = el("dl");
  for (const [key, value] of Object.entries(rows)) {
    if (value) list.append(el("dt", { textContent: key }), el("dd", { textContent: value }));
  }
  return el("div", { className: "card run" }, el("h3", {}, chip(COLOURS[i % COLOURS.length]), run.name), list);
}

// curves ----------------------------------------------------------------------------------------
function tables(spec, runs) {
  // [[x, y], ...] and what uPlot is to know of each y
  const found = { tables: [], series: [], bands: [] };
  runs.forEach((run, i) => {
    const stroke = COLOURS[i % COLOURS.length], prefix = runs.length > 1 ? `${run.name} ` : "";
    if (!spec.series.length && run.evaluations.length) {
      const at = (key) => run.evaluations.map((each) => each[key]);
      const first = found.series.length + 1;
      found.tables.push([at("step"), at("value"), at("low"), at("high")]);
      found.series.push({ label: `${prefix}value`, stroke, width: 2, points: { show: true } });
      for (const end of ["low", "high"]) {
        found.series.push({ label: `${prefix}${end}`, stroke: `${stroke}44`, points: { show: false } });
      }
      found.bands.push({ series: [first + 2, first + 1], fill: `${stroke}22` });
    }
    spec.series.forEach(([name, label], j) => {
      if (!run.metrics[name]) return;
      found.tables.push([run.metrics.step, run.metrics[name]]);
      found.series.push({ label: prefix + label, stroke: j ? `${stroke}99` : stroke, width: 1.5, dash: DASHES[j % 2], points: { size: 6, fill: stroke, filter: alone } });
    });
  });
  return found;
}

function alone(u, i, shown) {
  // Values between two gaps, which no line shows: these get a point.
  if (shown) return null;
  const there = [...u.data[i].entries()].filter(([, value]) => value !== undefined);
  const none = (k) => (there[k]?.[1] ?? null) === null;
  return there.filter(([, value], k) => value !== null && none(k - 1) && none(k + 1)).map(([at]) => at);
}

function chart(spec, runs, meanings) {
  const host = el("div", { className: "card curve" }, el("h3", { textContent: spec.title }));
  host.title = spec.series.map(([name]) => meanings[name] ? `${name}: ${meanings[name]}` : "").filter(Boolean).join("\n");
  const { tables: given, series, bands } = tables(spec, runs);
  if (!given.length) {
    host.append(el("p", { className: "quiet", textContent: "no figures" }));
    return host;
  }
  const data = uPlot.join(given);
  host.draw = (width) => plot(host, width, runs, data, series, bands);
  return host;
}

function plot(host, width, runs, data, series, bands = []) {
  // Over the steps of the longest of the runs, unless somebody has zoomed.
  const most = Math.max(1, ...runs.map((run) => (run.metrics.step || []).at(-1) || 0));
  const all = (u, low, high) => low === null || (low === u.data[0][0] && high === u.data[0].at(-1)) ? [0, most] : [low, high];
  host.plot = new uPlot({
    width, height: 210, bands,
    scales: { x: { time: false, range: all } },
    cursor: { sync: { key: "step" }, points: { size: 6 } },
    axes: [{ size: 30 }, { size: 62, values: (u, ticks) => ticks.map((tick) => number(tick)) }],
    series: ["step", ...series].map((each) => ({ ...(each === "step" ? { label: each } : each), value: (u, value) => number(value) })),
  }, data, host);
}

function drawn(grid) {
  // Draws what stands in the grid, and again at another width.
  const width = (host) => Math.max(200, host.clientWidth - 26);
  for (const host of grid.children) host.draw?.(width(host));
  new ResizeObserver(() => {
    for (const host of grid.children) {
      const now = width(host);
      if (host.plot && Math.abs(host.plot.width - now) > 4) host.plot.setSize({ width: now, height: host.plot.height });
    }
  }).observe(grid);
  return grid;
}

// timeline --------------------------------------------------------------------------------------
function pieces(name, lane) {
  // [start, end, from, to (shares of the lane's height), kind]
  if (lane.spans) return lane.spans.map(([a, b, kind]) => [a, b, 0, 1, KINDS[kind] ? kind : "another phase"]);
  return lane.t.flatMap((end, i) => {
    const start = lane.from[i], busy = lane.busy[i], scored = busy * lane.scoring[i];
    return [[start, end, busy, 1, "nothing in hand"], [start, end, 0, busy, "something in hand"],
      [start, end, 0, scored, "of that, with the scorer"]];
  });
}

function words(lane, at, waits) {
  if (lane.spans) {
    const span = lane.spans.findLast(([a, b]) => a <= at && at <= b);
    return span ? `${span[2]}, ${number(span[1] - span[0])} s` : "between two batches";
  }
  const i = lane.t.findIndex((end, k) => lane.from[k] <= at && at <= end);
  if (i < 0) return "not there";
  const idle = lane.busy[i] < 0.995 ? `, else waits ${waits[lane.role]}` : "";
  const tokens = lane.role === "generator" ? `, ${number(lane.tokens_s[i])} tokens/s` : "";
  const scored = lane.scoring[i] ? `, ${Math.round(100 * lane.scoring[i])} % of it with the scorer` : "";
  return `busy ${Math.round(100 * lane.busy[i])} %${scored}${idle}${tokens}`;
}

function timeline(run, seconds) {
  const { lanes, marks, waits } = run.timeline, names = Object.keys(lanes), n = names.length;
  const said = el("p", { className: "said quiet", textContent: "move over a lane; drag to zoom, double-click to see all" });
  const host = el("div", { className: "card lanes" }, el("h3", { textContent: run.name }));
  if (!n) {
    host.append(el("p", { className: "quiet", textContent: "nothing was recorded" }));
    return host;
  }
  const paint = (u) => {
    const { ctx } = u, { left, top, width, height } = u.bbox;
    ctx.save();
    ctx.beginPath();
    ctx.rect(left, top, width, height);
    ctx.clip();
    const box = (lane, [start, end, from, to, kind]) => {
      const base = u.valToPos(n - lane - 0.88, "y", true), tall = base - u.valToPos(n - lane - 0.12, "y", true);
      const x = u.valToPos(start, "x", true), w = Math.max(1, u.valToPos(end, "x", true) - x);
      ctx.fillStyle = KINDS[kind];
      if (to > from) ctx.fillRect(x, base - to * tall, w, (to - from) * tall);
    };
    names.forEach((name, lane) => pieces(name, lanes[name]).forEach((piece) => box(lane, piece)));
    ctx.fillStyle = "#dc2626";
    for (const mark of marks) {
      const lane = names.indexOf(mark.lane);
      if (lane >= 0) ctx.fillRect(u.valToPos(mark.t, "x", true) - 1, u.valToPos(n - lane, "y", true), 3, height / n);
    }
    ctx.restore();
  };
  const tell = (u) => {
    const lane = names[n - 1 - Math.floor(u.posToVal(u.cursor.top, "y"))], at = u.posToVal(u.cursor.left, "x");
    if (u.cursor.left < 0 || !lane) return;
    const near = marks.find((mark) => mark.lane === lane && Math.abs(mark.t - at) < seconds / 200);
    said.textContent = `${clock(at)}  ${lane}: ${near ? near.text : words(lanes[lane], at, waits)}`;
  };
  host.draw = (width) => {
    host.plot = new uPlot({
      width, height: 60 + 34 * n, legend: { show: false },
      scales: { x: { time: false }, y: { range: [0, n] } },
      cursor: { sync: { key: "time" }, y: false, points: { show: false } },
      axes: [{ size: 30, values: (u, ticks) => ticks.map(clock) },
        { size: 110, grid: { show: false }, splits: names.map((_, i) => n - i - 0.5), values: () => names }],
      series: [{}, { show: true, points: { show: false }, stroke: "transparent" }],
      hooks: { draw: [paint], setCursor: [tell] },
    }, [[0, Math.max(1, seconds)], [null, null]], host);
    host.append(said);
  };
  return host;
}

// tables ----------------------------------------------------------------------------------------
function table(heads, rows, row) {
  // Rows a page at a time: how many there are is always said.
  const body = el("tbody"), count = el("span", { className: "quiet" });
  const more = el("button", { textContent: `show ${PAGE} more` });
  const node = el("div", {}, el("table", { className: "rows" },
    el("thead", {}, el("tr", {}, ...heads.map(([textContent, className = ""]) => el("th", { textContent, className })))), body),
  el("p", {}, count, " ", more));
  let shown = 0, found = [];
  const add = () => {
    const next = found.slice(shown, shown + PAGE);
    next.forEach((each, i) => body.append(row(each, shown + i, found)));
    shown += next.length;
    count.textContent = `${number(shown)} of ${number(found.length)} shown`;
    more.hidden = shown >= found.length;
  };
  more.onclick = add;
  node.fill = (given) => {
    body.replaceChildren();
    [shown, found] = [0, given];
    add();
  };
  node.fill(rows);
  return node;
}

function cells(...given) {
  return given.map((value) => typeof value === "number"
    ? el("td", { className: "num", textContent: number(value) }) : el("td", { textContent: value ?? "–" }));
}

function options(label, names) {
  const select = el("select", {}, el("option", { value: "", textContent: "all" }),
    ...names.map((name) => el("option", { value: name, textContent: name })));
  return el("label", {}, `${label} `, select);
}

function happened(runs) {
  const rows = runs.flatMap((run) => run.happened.map((each) => ({ ...each, run })));
  const count = {};
  for (const row of rows) count[row.kind] = (count[row.kind] || 0) + 1;
  const pick = options("kind", Object.keys(count));
  for (const option of pick.querySelectorAll("option[value]:not([value=''])")) option.textContent += ` (${count[option.value]})`;
  const node = table([["time", "num"], ["run"], ["kind"], ["what"]], rows, (each) => el("tr", {}, ...cells(
    each.time === null ? null : clock(each.time - each.run.timeline.began), each.run.name, each.kind, each.text)));
  pick.onchange = (event) => node.fill(rows.filter((row) => !event.target.value || row.kind === event.target.value));
  return rows.length ? [el("div", { className: "controls" }, pick), node]
    : [el("p", { className: "quiet", textContent: "no warning, no dead letter, no restart was recorded" })];
}

function configuration(runs) {
  const names = [...new Set(runs.flatMap((run) => Object.keys(run.config)))];
  const shown = (run, name) => name in run.config ? JSON.stringify(run.config[name]) : "–";
  const differs = (name) => new Set(runs.map((run) => shown(run, name))).size > 1;
  const body = el("tbody", {}, ...names.map((name) => el("tr", { className: differs(name) ? "differs" : "same" },
    el("td", { textContent: name }), ...runs.map((run) => el("td", { textContent: shown(run, name) })))));
  const only = el("input", { type: "checkbox", checked: runs.length > 1 });
  const apply = () => body.querySelectorAll(".same").forEach((row) => { row.hidden = only.checked; });
  only.onchange = apply;
  apply();
  return [runs.length > 1 ? el("label", {}, only, " only what differs") : null,
    el("table", { className: "rows" }, el("thead", {}, el("tr", {}, el("th", { textContent: "setting" }),
      ...runs.map((run) => el("th", { textContent: run.name })))), body)];
}

// samples ---------------------------------------------------------------------------------------
const known = (scores) => scores.filter((score) => score !== null);
const best = (scores) => known(scores).length ? Math.max(...known(scores)) : null;
const worst = (scores) => known(scores).length ? Math.min(...known(scores)) : null;
const mean = (values) => values.length ? values.reduce((a, b) => a + b, 0) / values.length : null;

function read(list, at) {
  // One sample, whole, in front of the page.
  const { run, sample } = list[at], dialog = document.querySelector("dialog");
  const go = (by) => el("button", { textContent: by < 0 ? "← before" : "next →", disabled: !list[at + by], onclick: () => read(list, at + by) });
  const word = sample.rewards ? "reward" : "mean preference";
  const order = sample.scores.map((score, i) => [score ?? -Infinity, i]).sort((a, b) => b[0] - a[0]).map(([, i]) => i);
  const answer = (i) => [
    el("h3", { textContent: `[${i}] ${sample.scores[i] === null ? "not compared" : `${word} ${number(sample.scores[i])}`}, ` +
      `${sample.lengths[i]} tokens${sample.finish_reasons[i] === "length" ? ", cut at max_tokens" : ""}` }),
    el("pre", { className: "completion", textContent: sample.completions[i] }),
    sample.details?.[i] ? el("p", { className: "quiet", textContent: JSON.stringify(sample.details[i]) }) : null,
  ];
  const more = sample.of - sample.completions.length;
  dialog.replaceChildren(el("div", {},
    el("div", { className: "bar" }, el("strong", { textContent: `step ${sample.step}  ${sample.stream}  ${sample.uid}` }),
      el("span", {}, go(-1), " ", go(1), " ", el("button", { textContent: "close", onclick: () => dialog.close() }))),
    el("p", { className: "quiet", textContent: `${run.name}; kept as ${sample.why.join(", ")}; sampled by ${sample.generator} ` +
      `at ${[...new Set(sample.versions.flat())].join(", ")}` }),
    ...sample.messages.flatMap((message) => [el("h3", { textContent: message.role }), el("pre", { className: "prompt", textContent: message.content })]),
    ...order.flatMap(answer),
    more > 0 ? el("p", { className: "quiet", textContent: `${more} more completions were not kept` }) : null));
  if (!dialog.open) dialog.showModal();
  dialog.onkeydown = (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by && list[at + by]) read(list, at + by);
  };
}

function scores(runs) {
  // Of those that the table shows.
  const host = el("div", { className: "card curve" }, el("h3", { textContent: "Scores of these samples by step" }),
    el("p", { className: "quiet", textContent: "Of training, unless the stream is eval. A step's best and worst groups are kept beside others: for the mean of all see Reward." }));
  const series = runs.flatMap((run, i) => ["best", "mean", "worst"].map((name) => {
    const colour = COLOURS[i % COLOURS.length], stroke = name === "mean" ? colour : `${colour}66`;
    return { label: runs.length > 1 ? `${run.name} ${name}` : name, stroke, width: 1.5, points: { size: 6, fill: stroke, filter: alone } };
  }));
  let data = null;
  host.fill = (found) => {
    data = uPlot.join(runs.map((run) => {
      const steps = new Map();
      for (const each of found) {
        if (each.run === run) steps.set(each.sample.step, [...(steps.get(each.sample.step) ?? []), ...known(each.sample.scores)]);
      }
      const rows = [...steps].filter(([, list]) => list.length).sort(([a], [b]) => a - b);
      return [rows.map(([step]) => step), ...[best, mean, worst].map((of) => rows.map(([, list]) => of(list)))];
    }));
    host.plot?.setData(data);
  };
  host.draw = (width) => plot(host, width, runs, data, series);
  return host;
}

function samples(runs, { every, kept, there }) {
  const all = kept.flatMap((list, i) => list.map((sample) => ({ run: runs[i], sample })));
  const total = there.reduce((a, b) => a + b, 0);
  if (!total) return [el("p", { className: "quiet", textContent: "no samples were kept (learner.keep_samples)" })];
  const note = every > 1 ? `So that this file stays small, ${number(all.length)} of ${number(total)} samples are here: ` +
    `of one step in ${every}. \`sppo-cli samples RUN\` shows all.` : `${number(total)} samples`;
  const row = ({ run, sample }, i, list) => el("tr", {
    className: "opens", tabIndex: 0, onclick: () => read(list, i), onkeydown: (event) => { if (event.key === "Enter") read(list, i); },
  }, ...cells(sample.step, ...(runs.length > 1 ? [run.name] : []), sample.stream, sample.why.join(", "),
    best(sample.scores) ?? "–", mean(known(sample.scores)) ?? "–", worst(sample.scores) ?? "–", mean(sample.lengths) ?? "–",
    (sample.messages.at(-1)?.content ?? "").slice(0, 140)));
  const node = table([["step", "num"], ...(runs.length > 1 ? [["run"]] : []), ["stream"], ["kept as"], ["best", "num"], ["mean", "num"],
    ["worst", "num"], ["tokens", "num"], ["prompt"]], all, row);
  const run = options("run", runs.map((each) => each.name)), stream = options("stream", ["train", "eval"]);
  const sort = el("select", {}, ...["step", "best", "worst", "length"].map((name) => el("option", { value: name, textContent: name })));
  const step = el("input", { type: "number", placeholder: "step", min: 0 }), text = el("input", { type: "search", placeholder: "in prompt or answer" });
  const curve = scores(runs), over = el("div", { className: "scores" }, curve);
  const orders = { best: (s) => -(best(s.scores) ?? -Infinity), worst: (s) => worst(s.scores) ?? Infinity, length: (s) => -Math.max(...s.lengths) };
  const apply = () => {
    const wanted = text.value.toLowerCase(), [of, at] = [run, stream].map((each) => each.querySelector("select").value);
    const matches = ({ run: { name }, sample: s }) => (!of || name === of) && (!at || s.stream === at) &&
      (step.value === "" || s.step === Number(step.value)) && (!wanted ||
        [...s.completions, ...s.messages.map((each) => each.content)].some((each) => each.toLowerCase().includes(wanted)));
    const found = all.filter(matches), by = orders[sort.value];
    node.fill(by ? found.map((each) => [by(each.sample), each]).sort((a, b) => a[0] - b[0]).map(([, each]) => each) : found);
    curve.fill(at ? found : found.filter(({ sample }) => sample.stream === "train"));
  };
  for (const control of [run, stream, sort]) control.onchange = apply;
  for (const control of [step, text]) control.oninput = apply;
  curve.fill(all.filter(({ sample }) => sample.stream === "train"));
  return [el("p", { className: "quiet", textContent: note }),
    el("div", { className: "controls" }, runs.length > 1 ? run : null, stream, step, text, el("label", {}, "sorted by ", sort)), over, node];
}

// all of it -------------------------------------------------------------------------------------
async function main() {
  const { runs, charts, meanings } = await unpack("run-data");
  section("Runs", el("div", { className: "cards" }, ...runs.map(card)));
  const curves = el("div", { className: "grid" }, ...charts.main.map((spec) => chart(spec, runs, meanings)));
  const others = el("details", {}, el("summary", { textContent: `${charts.rest.length} more metrics` }));
  others.addEventListener("toggle", () => {
    if (others.querySelector(".grid")) return;
    const grid = el("div", { className: "grid" }, ...charts.rest.map((spec) => chart(spec, runs, meanings)));
    others.append(grid);
    drawn(grid);
  });
  section("Curves", el("p", { className: "quiet", textContent: "Over optimizer steps. Drag over a curve to zoom all of them, double-click to see all." }), curves, others);
  drawn(curves);
  document.body.dataset.drawn = String(Math.round(performance.now()));
  const seconds = Math.max(...runs.map((run) => run.timeline.seconds));
  const lanes = el("div", {}, ...runs.map((run) => timeline(run, seconds)));
  section("Timeline", el("p", { className: "key quiet" }, ...Object.entries(KINDS).map(([kind, colour]) => el("span", {}, chip(colour), kind)),
    el("span", {}, chip("#dc2626"), "started again")), lanes);
  drawn(lanes);
  section("Samples", ...samples(runs, await unpack("run-samples")));
  document.querySelectorAll("#samples .scores").forEach(drawn);
  section("What happened", ...happened(runs));
  section("Configuration", ...configuration(runs));
  document.body.dataset.ready = String(Math.round(performance.now()));
}

main();
