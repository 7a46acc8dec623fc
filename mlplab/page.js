"use strict";
(() => {
  const page = JSON.parse(document.getElementById("charts").textContent);
  const epochs = page.curves.epochs || [];
  const state = { hidden: new Set(), first: 1, last: epochs.length ? epochs[epochs.length - 1] : 1 };
  const all = { first: state.first, last: state.last };
  const drawn = [];
  const touched = matchMedia("(pointer: coarse)").matches; // there a drag scrolls
  const PAPER = 660; // how many pixels fit between the margins of A4

  // ------------------------------------------------------------------------------------------------ what curves show

  function rows(chart) {
    const of = page.curves.of[chart.series];
    const inside = (value) => value !== null && value !== undefined && !beyond(chart, value);
    // Bands end a little beyond the axis: where seeds are far apart they would be wider than any screen.
    const [low, high] = heights(chart.group);
    const least = chart.log ? low / 10 : 2 * low - high, most = chart.log ? 10 * high : 2 * high - low;
    const band = (ends, i) => (ends && ends[i] !== null ? Math.min(Math.max(ends[i], least), most) : null);
    const means = of.means.flatMap((line) =>
      line.m.map((m, i) => ({ v: line.v, e: epochs[i], m: inside(m) ? m : null, l: band(line.l, i), h: band(line.h, i) })));
    const seeds = of.seeds.flatMap((line) =>
      line.y.map((y, i) => ({ v: line.v, s: line.s, e: epochs[i], y: inside(y) ? y : null })));
    const lasts = (line, values, lost) => {
      const place = values.findLastIndex(inside);
      return place < 0 ? [] : [{ v: line.v, e: epochs[place], y: values[place], lost }];
    };
    const ends = of.seeds.flatMap((line) => (line.lost ? lasts(line, line.y, true) : []));
    const dots = of.means.flatMap((line) => (line.m.filter(inside).length === 1 ? lasts(line, line.m, false) : []));
    return { means, seeds, ends: ends.concat(dots), epochs: epochs.map((e) => ({ e })) };
  }

  function beyond(chart, value) {
    const [low, high] = chart.limits;
    return (low !== null && value < low) || (high !== null && value > high);
  }

  /** The ends of the vertical axis that all charts of a metric share, for what is shown of them now. */
  function heights(group) {
    const charts = page.charts.filter((chart) => chart.group === group);
    const values = [], bands = [];
    for (const chart of charts) {
      const of = page.curves.of[chart.series];
      const take = (line, from, into) => {
        if (state.hidden.has(line.v)) return;
        from.forEach((value, i) => {
          if (value !== null && epochs[i] >= state.first && epochs[i] <= state.last && !beyond(chart, value)) into.push(value);
        });
      };
      for (const line of of.means) {
        take(line, line.m, values);
        if (line.l) { take(line, line.l, bands); take(line, line.h, bands); }
      }
      for (const line of of.seeds) take(line, line.y, values);
    }
    const { log, share } = charts[0];
    const to = log ? Math.log : (value) => value, from = log ? Math.exp : (value) => value;
    const known = values.filter((value) => !log || value > 0);
    if (!known.length) return log ? [0.1, 1] : [0, 1];
    let low = to(Math.min(...known)), high = to(Math.max(...known));
    const reach = 0.3 * (high - low);
    const wide = bands.filter((value) => !log || value > 0).map(to);
    low = Math.max(low - reach, Math.min(low, ...wide));
    high = Math.min(high + reach, Math.max(high, ...wide));
    const room = 0.05 * (high - low) || 0.1 * Math.abs(high) || 0.1;
    const ends = [from(low - room), from(high + room)];
    return share ? [Math.max(ends[0], -0.02), Math.min(ends[1], 1.02)] : ends;
  }

  function signals(chart) {
    const found = { hidden: [...state.hidden] };
    if (chart.series) {
      const one = state.first === state.last ? 0.4 : 0;
      [found.low, found.high] = heights(chart.group);
      found.first = state.first - one;
      found.last = state.last + one;
    }
    return found;
  }

  // --------------------------------------------------------------------------------------------------------- tooltips

  const tip = document.body.appendChild(Object.assign(document.createElement("div"), { id: "tip", hidden: true }));
  tip.setAttribute("aria-hidden", "true");

  function number(value) {
    if (value === null || value === undefined) return "–";
    const size = Math.abs(value);
    if (size === 0 || (size >= 1e-3 && size < 1e3)) return value.toFixed(4);
    return size >= 1 ? value.toLocaleString("en", { maximumFractionDigits: 1 }) : value.toPrecision(3);
  }

  function add(parent, name, text) {
    const made = parent.appendChild(document.createElement(name));
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function tooltip(chart) {
    return (_, event, item, value) => {
      tip.hidden = value === null || value === undefined || value === "";
      if (tip.hidden) return;
      tip.replaceChildren();
      const { e: epoch } = item.datum.datum || item.datum; // what is nearest is found in cells around the marks
      if (chart.series && epoch !== undefined) {
        const place = epochs.indexOf(epoch);
        add(tip, "b", `epoch ${epoch}`);
        const body = add(add(tip, "table"), "tbody");
        for (const line of page.curves.of[chart.series].means) {
          if (state.hidden.has(line.v) || line.m[place] === undefined) continue;
          const row = add(body, "tr");
          const name = add(row, "td");
          add(name, "span", "● ").style.color = page.colours[line.v];
          add(name, "span", page.names[line.v]);
          const half = line.l && line.l[place] !== null ? ` ± ${number((line.h[place] - line.l[place]) / 2)}` : "";
          add(row, "td", number(line.m[place]) + half);
        }
      } else if (typeof value === "object") {
        const body = add(add(tip, "table"), "tbody");
        for (const [name, shown] of Object.entries(value)) {
          const row = add(body, "tr");
          add(row, "td", name);
          add(row, "td", shown);
        }
        if (Object.keys(value).length === 1) tip.replaceChildren(Object.values(value)[0]);
      } else tip.textContent = value;
      const { clientX: x, clientY: y } = event;
      const box = tip.getBoundingClientRect();
      tip.style.left = `${Math.max(4, x + 14 + box.width > innerWidth ? x - 14 - box.width : x + 14)}px`;
      tip.style.top = `${Math.max(4, Math.min(y + 14, innerHeight - box.height - 4))}px`;
    };
  }

  // ---------------------------------------------------------------------------------------------------------- drawing

  const places = [...document.querySelectorAll("[data-chart]")];
  const whole = document.querySelector("main");

  /** How wide a chart is; one in a closed fold as wide as it will be. */
  const width = (place) => Math.max(200, place.clientWidth || whole.clientWidth - 100);

  async function draw(place) {
    const chart = page.charts[place.dataset.chart];
    const spec = structuredClone(chart.spec);
    spec.width = width(place);
    if (chart.series) spec.datasets = rows(chart);
    const given = signals(chart);
    for (const param of spec.params || []) if (param.name in given) param.value = given[param.name];
    if (touched) for (const layer of spec.layer || []) layer.params = (layer.params || []).filter((one) => one.name !== "zoom");
    if (touched) spec.params = (spec.params || []).filter((one) => one.name !== "zoom");
    const { view } = await vegaEmbed(place, spec, { actions: false, renderer: "svg", logLevel: 1, tooltip: tooltip(chart) });
    place.querySelector("svg").setAttribute("aria-hidden", "true"); // its place has the text
    const one = { place, chart, view };
    drawn.push(one);
    place.dataset.drawn = "";
    if (chart.series && !touched) zooming(one);
  }

  function zooming({ place, view }) {
    place.addEventListener("dblclick", () => show({ ...all }));
    let wanted = null;
    view.addSignalListener("zoom", (_, value) => { wanted = value && value.e ? value.e : null; });
    addEventListener("pointerup", () => {
      if (!wanted) return;
      const [first, last] = wanted.map(Math.round);
      wanted = null;
      view.data("zoom_store", []).runAsync();
      if (last > first) show({ first, last });
    });
  }

  function show(change) {
    Object.assign(state, change);
    state.first = Math.min(Math.max(all.first, state.first), all.last);
    state.last = Math.max(Math.min(all.last, state.last), state.first);
    for (const { chart, view } of drawn) {
      const told = Object.entries(signals(chart)).filter(([name]) => hasSignal(view, name));
      if (!told.length) continue;
      for (const [name, value] of told) view.signal(name, value);
      view.runAsync();
    }
    for (const button of document.querySelectorAll("[data-variant]"))
      button.setAttribute("aria-pressed", String(!state.hidden.has(Number(button.dataset.variant))));
    for (const input of document.querySelectorAll("input[data-end]")) input.value = state[input.dataset.end];
  }

  function hasSignal(view, name) {
    try { view.signal(name); return true; } catch { return false; }
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.variant !== undefined) {
      const variant = Number(button.dataset.variant);
      const hidden = new Set(state.hidden);
      if (!hidden.delete(variant)) hidden.add(variant);
      show({ hidden });
    } else if (button.dataset.end === "all") show({ ...all });
  });
  document.addEventListener("change", (event) => {
    const end = event.target.dataset && event.target.dataset.end;
    if (end && Number.isFinite(event.target.valueAsNumber)) show({ [end]: Math.round(event.target.valueAsNumber) });
  });

  function fit() {
    for (const { place, view } of drawn)
      if (place.clientWidth && Math.abs(view.width() - width(place)) > 1) view.width(width(place)).runAsync();
  }
  let waiting = 0;
  new ResizeObserver(() => { clearTimeout(waiting); waiting = setTimeout(fit, 120); }).observe(whole);
  for (const fold of document.querySelectorAll("details")) fold.addEventListener("toggle", fit);

  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const fold of opened) fold.open = true;
    for (const { place, view } of drawn) view.width(place.closest(".panels") ? PAPER / 2 - 15 : PAPER).run();
  });
  addEventListener("afterprint", () => {
    for (const fold of opened) fold.open = false;
    fit();
  });

  // The first chart at once, the others when there is time, so that the page can be read and scrolled meanwhile.
  const later = window.requestIdleCallback || ((call) => setTimeout(call, 1));
  (async () => {
    for (const place of places) {
      try { await draw(place); } catch (error) {
        place.textContent = "This chart could not be drawn; its numbers are in the tables.";
        console.error(error);
      }
      await new Promise((resolve) => later(resolve, { timeout: 200 }));
    }
    document.documentElement.dataset.drawn = String(drawn.length);
  })();
})();
