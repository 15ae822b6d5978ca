// Captions as text, alt attributes, CSV and JSON, and the way to the clipboard.

const FORMATS = { text: asText, alt: asImageTags, csv: asCsv, json: asJson };

// The captioned `pictures` in one of the formats `text`, `alt`, `csv` and `json`.
export function written(format, pictures) {
  return FORMATS[format](pictures);
}

export function altAttribute(caption) {
  return `alt="${escaped(caption)}"`;
}

// Writes text to the clipboard. Returns whether the browser allowed it.
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyOfSelection(text);
  }
}

function asText(pictures) {
  return pictures.map((picture) => picture.answer.result.caption).join("\n");
}

function asImageTags(pictures) {
  const tag = ({ file, answer }) =>
    `<img src="${escaped(file.name)}" ${altAttribute(answer.result.caption)}>`;
  return pictures.map(tag).join("\n");
}

function asCsv(pictures) {
  const rows = pictures.map(({ file, answer }) => [
    file.name,
    answer.result.caption,
    answer.result.confidence,
    answer.seconds,
  ]);
  const quoted = (value) => (/[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
  const lines = [["file", "caption", "confidence", "seconds"], ...rows];
  return lines.map((row) => row.map((value) => quoted(String(value))).join(",")).join("\r\n");
}

function asJson(pictures) {
  const entries = pictures.map(({ file, answer }) => ({
    file: file.name,
    ...answer.result,
    model: answer.model,
    seconds: answer.seconds,
  }));
  return JSON.stringify(entries, null, 2);
}

function escaped(text) {
  const entities = { "&": "&amp;", '"': "&quot;", "<": "&lt;", ">": "&gt;" };
  return text.replace(/[&"<>]/g, (character) => entities[character]);
}

// navigator.clipboard exists only on https and on loopback, so elsewhere a selection is copied.
function copyOfSelection(text) {
  const focused = document.activeElement;
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "visually-hidden";
  area.setAttribute("aria-hidden", "true");
  // Inside an open dialog only its own elements can be selected.
  (document.querySelector("dialog[open]") ?? document.body).append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  focused?.focus();
  return copied;
}
