"use strict";
const $ = selector => document.querySelector(selector);
const TAB = Math.random().toString(36).slice(2, 10);
const INK = { text: "#e8eef5", quiet: "#a5b1bf", line: "#6b7a8c", accent: "#6cb6ff" };

// --- asking the server: the newest request of a kind wins ------------------------------------------------------------
const underway = {};
async function ask(kind, path, values) {
  underway[kind]?.abort();
  const control = underway[kind] = new AbortController();
  const sent = values === undefined ? { signal: control.signal }
    : { method: "POST", signal: control.signal, headers: { "Content-Type": "application/json" }, body: JSON.stringify(values) };
  let answer;
  try {
    answer = await fetch(path, sent);
    if (answer.status === 204) return null;
    if (!answer.ok) throw new Error((await answer.json()).error);
    const facts = answer.headers.get("X-Facts");
    const body = answer.headers.get("Content-Type") === "application/octet-stream" ? new Uint8Array(await answer.arrayBuffer()) : await answer.json();
    if (underway[kind] !== control) return null;
    return facts ? { ...JSON.parse(facts), body } : body;
  } catch (error) {
    if (error.name === "AbortError" || underway[kind] !== control) return null;
    throw error instanceof TypeError ? new Error("the server does not answer: it has ended, start it again") : error;
  }
}
function say(text, bad = false) { const line = $("#status"); line.textContent = text; line.classList.toggle("bad", bad); }

// --- numbers ---------------------------------------------------------------------------------------------------------
function ticks(low, high, room) {
  const rough = (high - low) / Math.max(room, 1), power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map(n => n * power).find(n => n >= rough) ?? 10 * power;
  const found = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + 1e-9; n++) found.push(+(n * step).toPrecision(10));
  return found;
}
const minus = n => String(n).replace("-", "−");
const seconds = s => s < 0.0995 ? Math.max(1, Math.round(1000 * s)) + " ms" : s.toFixed(s < 9.95 ? 1 : 0) + " s";
const mm = n => n === null ? "–" : n.toFixed(n < 1 ? 3 : 2) + " mm";

// --- pictures with axes in mm ----------------------------------------------------------------------------------------
function greyCanvas(bytes, rows, columns) {
  const canvas = new OffscreenCanvas(columns, rows), context = canvas.getContext("2d"), image = context.createImageData(columns, rows);
  for (let i = 0; i < bytes.length; i++) { image.data[4 * i] = image.data[4 * i + 1] = image.data[4 * i + 2] = bytes[i]; image.data[4 * i + 3] = 255; }
  context.putImageData(image, 0, 0);
  return canvas;
}
// Draws parts (each clipped to a share of the width) with axes; returns the box of the image in CSS pixels.
function drawPicture(canvas, picture) {
  const { x, z, parts, range, cursor, tallest = 900, divider } = picture;
  const scale = window.devicePixelRatio || 1, wide = canvas.clientWidth;
  const narrow = wide < 480, left = narrow ? 40 : 54, right = range ? 56 : 12, top = 10, bottom = 42;
  const aspect = (z[1] - z[0]) / (x[1] - x[0]);
  let width = wide - left - right, height = width * aspect;
  if (height > tallest) { height = tallest; width = height / aspect; }
  const tall = height + top + bottom, x0 = left + (wide - left - right - width) / 2;
  canvas.width = Math.round(wide * scale); canvas.height = Math.round(tall * scale); canvas.style.height = tall + "px";
  const c = canvas.getContext("2d");
  c.scale(scale, scale);
  c.imageSmoothingEnabled = true; c.imageSmoothingQuality = "high";
  for (const part of parts) {
    c.save(); c.beginPath(); c.rect(x0 + width * part.from, top, width * (part.to - part.from), height); c.clip();
    c.drawImage(part.image, x0, top, width, height); c.restore();
  }
  c.font = "12px system-ui, 'DejaVu Sans', sans-serif"; c.fillStyle = INK.quiet; c.strokeStyle = INK.line; c.lineWidth = 1;
  c.strokeRect(x0 - .5, top - .5, width + 1, height + 1);
  c.textAlign = "center"; c.textBaseline = "top";
  for (const t of ticks(x[0], x[1], width / 60)) {
    const at = x0 + (t - x[0]) / (x[1] - x[0]) * width;
    c.beginPath(); c.moveTo(at, top + height); c.lineTo(at, top + height + 4); c.stroke(); c.fillText(minus(t), at, top + height + 7);
  }
  c.fillText("lateral [mm]", x0 + width / 2, top + height + 24);
  c.textAlign = "right"; c.textBaseline = "middle";
  for (const t of ticks(z[0], z[1], height / 45)) {
    const at = top + (t - z[0]) / (z[1] - z[0]) * height;
    c.beginPath(); c.moveTo(x0 - 4, at); c.lineTo(x0, at); c.stroke(); c.fillText(minus(t), x0 - 7, at);
  }
  c.save(); c.translate(x0 - (narrow ? 32 : 44), top + height / 2); c.rotate(-Math.PI / 2); c.textAlign = "center"; c.fillText(height < 80 ? "z [mm]" : "depth [mm]", 0, 0); c.restore();
  if (range) {
    const at = x0 + width + 10, shade = c.createLinearGradient(0, top, 0, top + height);
    shade.addColorStop(0, "#fff"); shade.addColorStop(1, "#000");
    c.fillStyle = shade; c.fillRect(at, top, 9, height); c.strokeRect(at - .5, top - .5, 10, height + 1);
    c.fillStyle = INK.quiet; c.textAlign = "left";
    for (const t of ticks(-range, 0, height / 60)) c.fillText(minus(t), at + 14, Math.min(Math.max(top - t / range * height, top + 6), top + height - 6));
    c.textBaseline = "top"; c.fillText("dB", at + 2, top + height + 7);
  }
  if (divider !== undefined) {
    const at = x0 + width * divider;
    c.strokeStyle = "#000a"; c.lineWidth = 4; c.beginPath(); c.moveTo(at, top); c.lineTo(at, top + height); c.stroke();
    c.strokeStyle = INK.accent; c.lineWidth = 2; c.beginPath(); c.moveTo(at, top); c.lineTo(at, top + height); c.stroke();
    c.fillStyle = INK.accent; c.beginPath(); c.arc(at, top + height / 2, 7, 0, 7); c.fill();
  }
  if (cursor) {
    const px = x0 + (cursor.x - x[0]) / (x[1] - x[0]) * width, pz = top + (cursor.z - z[0]) / (z[1] - z[0]) * height;
    for (const [colour, thick] of [["#000c", 4], [INK.accent, 1.5]]) {
      c.strokeStyle = colour; c.lineWidth = thick;
      c.beginPath(); c.arc(px, pz, 9, 0, 7);
      for (const [dx, dz] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) { c.moveTo(px + 9 * dx, pz + 9 * dz); c.lineTo(px + 18 * dx, pz + 18 * dz); }
      c.stroke();
    }
  }
  return { x0, top, width, height };
}
const typing = event => event.target.matches("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey;
