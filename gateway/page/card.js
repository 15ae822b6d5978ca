// The card of one picture: thumbnail, caption, confidence, alternatives, time and its buttons.

import { Feedback } from "./feedback.js";

const STATES = { waiting: "Waiting", working: "Captioning", done: "Captioned", failed: "Failed" };

export class Card {
  // actions: {copyText, copyAlt, again, remove}, each called with the picture and the button.
  constructor(picture, actions) {
    const template = document.getElementById("card");
    this.element = template.content.firstElementChild.cloneNode(true);
    this.address = URL.createObjectURL(picture.file);
    this.part("name").textContent = picture.file.name;
    const image = this.part("thumbnail");
    // Formats that the browser cannot draw, such as TIFF, show their name in place of the picture.
    image.addEventListener("error", () => {
      image.replaceWith(this.nameOfFormat(picture.file));
    });
    image.src = this.address;
    this.feedback = new Feedback(this.part("feedback"), picture);
    for (const [name, action] of Object.entries(actions)) {
      const button = this.part(name);
      button.setAttribute("aria-label", `${button.textContent.trim()}: ${picture.file.name}`);
      button.addEventListener("click", () => action(picture, button));
    }
    this.show(picture);
  }

  // Shows the state of the picture, and its answer or its error.
  show(picture) {
    this.element.dataset.state = picture.state;
    this.part("state").textContent = STATES[picture.state];
    const done = picture.state === "done";
    const result = done ? picture.answer.result : null;
    this.part("caption").textContent = done ? result.caption : picture.message;
    this.part("facts").hidden = !done;
    for (const name of ["copyText", "copyAlt"]) this.part(name).hidden = !done;
    this.part("again").hidden = !done && picture.state !== "failed";
    const others = done ? result.captions.slice(1) : [];
    this.part("others").hidden = others.length === 0;
    if (!done) {
      this.feedback.show(null, []);
      return;
    }
    this.part("bar").style.width = percent(result.confidence);
    this.part("confidence").textContent = `${percent(result.confidence)} confidence`;
    this.part("time").textContent = `${picture.answer.seconds.toFixed(2)} s`;
    const noun = others.length === 1 ? "alternative" : "alternatives";
    this.part("summary").textContent = `${others.length} ${noun}`;
    const items = others.map(alternative);
    this.part("alternatives").replaceChildren(...items);
    this.feedback.show(picture.answer, items);
  }

  focus() {
    this.part("remove").focus();
  }

  close() {
    URL.revokeObjectURL(this.address);
    this.element.remove();
  }

  part(name) {
    return this.element.querySelector(`[data-part="${name}"]`);
  }

  nameOfFormat(file) {
    const text = document.createElement("p");
    text.className = "format";
    text.textContent = file.name.includes(".") ? file.name.split(".").pop() : "file";
    return text;
  }
}

function alternative({ caption, confidence }) {
  const item = document.createElement("li");
  const share = document.createElement("span");
  share.className = "share";
  share.textContent = percent(confidence);
  item.append(caption, " ", share);
  return item;
}

function percent(confidence) {
  return `${Math.round(confidence * 100)}%`;
}
