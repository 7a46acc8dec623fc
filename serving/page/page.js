"use strict";
const at = (id) => document.getElementById(id);
const make = (kind, text, name) => {
  const made = document.createElement(kind);
  if (text !== undefined) made.textContent = text;
  if (name) made.className = name;
  return made;
};
const quoted = (text) => "'" + text.replaceAll("'", "'\\''") + "'";
const here = new URL("invocations", location.href).href;
let model = null;

const share = (value) => (100 * value).toFixed(value > 0.9995 || value < 0.0005 ? 2 : 1) + " %";

function show(body, version, warning) {
  const found = document.createDocumentFragment();
  body.predictions.slice(0, 20).forEach((one) => {
    if (one && one.probabilities) {
      const names = model.class_names.length ? model.class_names : one.probabilities.map((_, place) => String(place));
      const most = Math.max(...one.probabilities);
      found.append(make("p", `${one.label} (${share(most)})`, "answer"));
      const rows = make("tbody");
      one.probabilities.map((value, place) => [value, names[place]]).sort((a, b) => b[0] - a[0]).slice(0, 12)
        .forEach(([value, name]) => {
          const row = make("tr"), bar = make("td", undefined, "bar"), meter = make("meter");
          const head = make("th", name);
          head.scope = "row";
          meter.min = 0; meter.max = 1; meter.value = value;
          meter.setAttribute("aria-label", name);
          bar.append(meter);
          row.append(head, bar, make("td", share(value), "number"));
          rows.append(row);
        });
      const table = make("table");
      table.append(rows);
      found.append(table);
    } else {
      const value = one && one.prediction !== undefined ? one.prediction : one;
      found.append(make("p", typeof value === "number" ? String(+value.toPrecision(6)) : JSON.stringify(value), "answer"));
    }
  });
  if (body.picture) found.append(make("p", `The picture was taken ${body.picture}.`, "hint"));
  if (warning) found.append(make("p", `Warning: ${warning}`, "notice"));
  found.append(make("p", `Version ${version} answered.`, "hint"));
  at("answer").replaceChildren(found);
}

async function ask(body, mime, command) {
  at("curl").textContent = command;
  try {
    const answer = await fetch(here, { method: "POST", body, headers: { "Content-Type": mime } });
    const said = await answer.json();
    if (answer.ok) show(said, answer.headers.get("model-version"), answer.headers.get("model-warning"));
    else at("answer").replaceChildren(make("p", said.message, "notice"));
  } catch (error) {
    at("answer").replaceChildren(make("p", "The server does not answer.", "notice"));
  }
}

const curl = (mime, data) => `curl -H 'Content-Type: ${mime}' ${data} ${here}`;
const askJson = (text) => ask(text, "application/json", curl("application/json", "-d " + quoted(text)));
const askPicture = (blob, name) => ask(blob, blob.type, curl(blob.type, "--data-binary @" + quoted(name)));

function pictures() {
  const canvas = at("canvas"), pen = canvas.getContext("2d");
  let last = null, down = false, place = [140, 140];
  const clear = () => { pen.fillStyle = "#fff"; pen.fillRect(0, 0, 280, 280); };
  const line = (from, to) => {
    pen.strokeStyle = "#000"; pen.lineWidth = 20; pen.lineCap = pen.lineJoin = "round";
    pen.beginPath(); pen.moveTo(...from); pen.lineTo(...to); pen.stroke();
  };
  const where = (event) => {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) * 280 / box.width, (event.clientY - box.top) * 280 / box.height];
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    last = where(event);
    line(last, last);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (last) { const to = where(event); line(last, to); last = to; }
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { last = null; });
  const steps = { ArrowLeft: [-10, 0], ArrowRight: [10, 0], ArrowUp: [0, -10], ArrowDown: [0, 10] };
  canvas.addEventListener("keydown", (event) => {
    const step = steps[event.key];
    if (!step && event.key !== " " && event.key !== "Enter") return;
    event.preventDefault();
    if (event.key === "Enter") return at("ask-canvas").click();
    if (step) {
      const to = place.map((value, axis) => Math.min(275, Math.max(5, value + step[axis])));
      if (down) line(place, to);
      place = to;
    } else {
      down = !down;
      if (down) line(place, place);
    }
    at("pen").textContent = `The pen is ${down ? "down" : "up"}, ${place[0] / 10 | 0} from the left and ${place[1] / 10 | 0} from the top, of 28.`;
  });
  at("clear").addEventListener("click", clear);
  at("ask-canvas").addEventListener("click", () => canvas.toBlob((blob) => askPicture(blob, "picture.png")));
  const take = (files) => { if (files.length) askPicture(files[0], files[0].name); };
  at("file").addEventListener("change", (event) => take(event.target.files));
  const drop = at("drop");
  drop.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    take(event.dataTransfer.files);
  });
  clear();
  at("pictures").hidden = false;
}

function fields() {
  const all = [];
  for (const one of model.inputs) {
    const names = one.columns.length ? one.columns : [one.name || "0"];
    for (const name of names) {
      const id = `field-${all.length}`, label = make("label", name);
      label.htmlFor = id;
      let field;
      if (one.vocabulary.length) {
        field = make("select");
        for (const text of one.vocabulary) field.append(new Option(text, text));
      } else {
        field = make("input");
        field.type = "number";
        field.step = one.dtype.startsWith("float") ? "any" : "1";
        if (one.low !== null) field.min = one.low;
        if (one.high !== null) field.max = one.high;
        field.required = !one.nan;
        field.value = one.seen && !one.columns.length ? String(+((one.seen[0] + one.seen[1]) / 2).toPrecision(3)) : "0";
      }
      field.id = id;
      const cell = make("div");
      cell.append(label, field);
      at("fields").append(cell);
      all.push([name, field, one]);
    }
  }
  at("table").addEventListener("submit", (event) => {
    event.preventDefault();
    const row = {};
    for (const [name, field, one] of all)
      row[name] = one.vocabulary.length ? field.value : field.value === "" ? null : Number(field.value);
    askJson(JSON.stringify({ dataframe_records: [row] }));
  });
  at("table").hidden = false;
}

function json() {
  const nested = (shape) => shape.length ? Array.from({ length: shape[0] }, () => nested(shape.slice(1))) : 0;
  const small = model.inputs.every((one) => one.shape.reduce((a, b) => a * b, 1) <= 500);
  const values = Object.fromEntries(model.inputs.map((one) => [one.name, [small ? nested(one.shape) : []]]));
  at("legal").textContent = model.inputs.map((one) => `${one.name || "inputs"}: ${one.legal}`).join("; ");
  at("text").value = JSON.stringify({ inputs: model.inputs.length === 1 ? Object.values(values)[0] : values });
  at("json").addEventListener("submit", (event) => { event.preventDefault(); askJson(at("text").value); });
  at("json").hidden = false;
}

async function main() {
  try {
    model = await (await fetch("model")).json();
  } catch (error) {
    at("about").textContent = "The server does not answer.";
    return;
  }
  document.title = at("name").textContent = model.model.replace(/^models:\//, "");
  if (!model.version) {
    at("about").textContent = "No version of this model is loaded yet.";
    return;
  }
  const good = Object.entries(model.quality)
    .map(([name, value]) => name === "test_accuracy" ? `${share(value)} of the test examples right` : `${name} ${value}`);
  const parts = [`Version ${model.version}`, model.variant && `${model.variant} of ${model.experiment}`, model.data && `trained on ${model.data}`, ...good.slice(0, 1)];
  at("about").textContent = parts.filter(Boolean).join(", ") + "." + (model.in_registry ? "" : " It is in the registry no more.");
  if (model.warning) { at("notice").textContent = model.warning; at("notice").hidden = false; }
  const size = (one) => one.shape.reduce((a, b) => a * b, 1);
  if (model.image) pictures();
  else if (model.inputs.every((one) => one.columns.length || size(one) === 1)) fields();
  else json();
}
main();
