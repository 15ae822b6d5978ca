// The page: takes pictures in, shows their captions, and joins the other files together.

import { Card } from "./card.js";
import { altAttribute, copy, written } from "./copying.js";
import { takeFeedback } from "./feedback.js";
import { chosen, clearOptions, showOptions } from "./options.js";
import { Queue } from "./queue.js";
import { asCurl, asPython } from "./request_code.js";
import { keepKey, keyGiven } from "./server.js";

const ADDRESS = new URL("v1/captions", document.baseURI).href;
const EXAMPLE = "photo.jpg"; // the file name in the code, before a picture is captioned

const at = (id) => document.getElementById(id);
const cards = new Map(); // picture -> Card, in the order in which they came
const queue = new Queue({ changed, paused, described });

// --- Pictures in

function add(files) {
  for (const file of files) {
    const picture = { file, options: chosen(at("options")) };
    const card = new Card(picture, {
      copyText: ({ answer }, button) => copyFrom(button, answer.result.caption),
      copyAlt: ({ answer }, button) => copyFrom(button, altAttribute(answer.result.caption)),
      again: captionAgain,
      remove,
    });
    cards.set(picture, card);
    at("cards").append(card.element);
    queue.add(picture);
  }
  showCounts();
}

function captionAgain(picture) {
  picture.options = chosen(at("options"));
  queue.add(picture);
}

function remove(picture) {
  const following = cards.get(picture).element.nextElementSibling;
  queue.remove(picture);
  cards.get(picture).close();
  cards.delete(picture);
  const next = [...cards.values()].find((card) => card.element === following);
  if (next) next.focus();
  else at("choose").focus();
  showCounts();
  showCode();
}

for (const [button, input] of [["choose", "files"], ["photograph", "camera"]]) {
  at(button).addEventListener("click", () => at(input).click());
  at(input).addEventListener("change", () => {
    add([...at(input).files]);
    at(input).value = ""; // the same file can be chosen again
  });
}

// The whole window takes dropped files, so that a near miss does not leave the page.
let entered = 0;
addEventListener("dragenter", () => mark(entered + 1));
addEventListener("dragleave", () => mark(entered - 1));
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  mark(0);
  take(event.dataTransfer, "dropped");
});
addEventListener("paste", (event) => {
  if (!event.target.closest("input, textarea") || event.clipboardData.files.length > 0) {
    take(event.clipboardData, "pasted");
  }
});

function mark(count) {
  entered = count;
  at("drop").classList.toggle("over", count > 0);
}

function take(transfer, how) {
  if (transfer.files.length > 0) add([...transfer.files]);
  else say(`What was ${how} holds no file. Save the picture first, then choose the file.`);
}

// --- What the queue reports

function changed(picture) {
  const { name } = picture.file;
  cards.get(picture)?.show(picture);
  if (picture.state === "done") log(`${name}: ${picture.answer.result.caption}`);
  if (picture.state === "failed") log(`${name}, error: ${picture.message}`);
  showCounts();
  showCode();
}

let countdown = null;
function paused(pause) {
  clearInterval(countdown);
  at("notice").hidden = pause === null;
  at("enter-key").hidden = pause?.kind !== "key";
  document.body.dataset.server = pause?.kind ?? "ready";
  at("server").textContent = pause === null ? "Ready" : "Waiting for the server";
  at("next-try").textContent = "";
  if (pause === null) {
    at("notice-text").textContent = "";
    return;
  }
  const [before, text] = [at("notice-text").textContent, noticeOf(pause)];
  if (before !== text) at("notice-text").textContent = text; // read aloud once, not at each try
  if (pause.kind === "key") askForKey(pause.message);
  if (pause.until === null) return;
  const show = () => {
    const seconds = Math.max(0, Math.ceil((pause.until - Date.now()) / 1000));
    at("next-try").textContent = `Next try in ${seconds} s.`;
  };
  show();
  countdown = setInterval(show, 1000);
}

function noticeOf({ kind, message }) {
  return kind === "key" ? message : `${message} Your pictures are kept and are sent when it is back.`;
}

function described({ model, formats, max_pixels: pixels, options, feedback }) {
  takeFeedback(feedback);
  at("model").textContent = `${model.name} ${model.version}`;
  const millions = Math.floor(pixels / 1e6);
  at("limits").textContent = `${formats.join(", ")}; up to ${millions} million pixels each`;
  showOptions(at("options"), options);
  at("options-panel").hidden = false;
  showCode();
}

// --- Counts, copies, messages

function inState(...states) {
  return [...cards.keys()].filter((picture) => states.includes(picture.state));
}

function showCounts() {
  const [done, failed] = [inState("done").length, inState("failed").length];
  document.body.classList.toggle("empty", cards.size === 0);
  at("results").hidden = cards.size === 0;
  at("count").textContent =
    `${done} of ${cards.size} captioned` + (failed > 0 ? `, ${failed} failed` : "");
  for (const button of document.querySelectorAll("[data-format]")) button.disabled = done === 0;
  at("again-all").disabled = done + failed === 0;
}

for (const button of document.querySelectorAll("[data-format]")) {
  button.addEventListener("click", () =>
    copyFrom(button, written(button.dataset.format, inState("done"))),
  );
}
at("again-all").addEventListener("click", () => inState("done", "failed").forEach(captionAgain));
at("remove-all").addEventListener("click", () => [...cards.keys()].forEach(remove));

async function copyFrom(button, text) {
  const copied = await copy(text);
  const refused = "The browser does not let this page copy. Select the text and copy it yourself.";
  say(copied ? "Copied." : refused);
  button.classList.toggle("copied", copied);
  setTimeout(() => button.classList.remove("copied"), 1500);
}

let fading = null;
function say(text) {
  clearTimeout(fading);
  at("said").textContent = text;
  fading = setTimeout(() => (at("said").textContent = ""), 6000);
}

function log(text) {
  const line = document.createElement("p");
  line.textContent = text;
  at("log").append(line);
}

// --- The same request as code

function showCode() {
  const file = inState("done").at(-1)?.file.name ?? EXAMPLE;
  const request = { address: ADDRESS, file, options: chosen(at("options")), withKey: keyGiven() };
  const language = document.querySelector("[name=language]:checked").value;
  at("code").textContent = language === "curl" ? asCurl(request) : asPython(request);
}

for (const choice of document.querySelectorAll("[name=language]")) {
  choice.addEventListener("change", showCode);
}
at("options").addEventListener("input", showCode);
at("defaults").addEventListener("click", () => {
  clearOptions(at("options"));
  showCode();
});
at("copy-code").addEventListener("click", () => copyFrom(at("copy-code"), at("code").textContent));

// --- The key

function askForKey(message) {
  at("key-message").textContent = message;
  if (!at("key-dialog").open) at("key-dialog").showModal();
  at("key").select();
}

at("enter-key").addEventListener("click", () => askForKey(queue.pause.message));
at("later").addEventListener("click", () => at("key-dialog").close());
at("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  keepKey(at("key").value.trim());
  at("key").value = "";
  at("key-dialog").close();
  queue.start();
});

if (matchMedia("(min-width: 64rem)").matches) at("options-panel").open = true;
showCounts();
showCode();
queue.start();
