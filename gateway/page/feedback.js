// What people think of captions: thumbs beside each, and a form for a better one.

import { rate } from "./server.js";

const WORDS = { up: "Good caption", down: "Bad caption" };

let limits = null; // of the server: {max_characters, pictures}; null while it takes no feedback

// given: `feedback` of the server's description, or undefined.
export function takeFeedback(given) {
  limits = given ?? null;
}

// The feedback on the captions of one card. What is sent about a caption takes the place of what
// was sent before, so all of it is sent each time.
export class Feedback {
  // element: the part of the card with the thumbs and the form. picture: as in queue.js.
  constructor(element, picture) {
    this.element = element;
    this.picture = picture;
    this.said = new Map(); // index of a caption -> {thumbs, correction, keep}
    this.sending = Promise.resolve();
    this.part("better").addEventListener("click", () => this.open(this.part("form").hidden));
    this.part("cancel").addEventListener("click", () => this.open(false));
    this.part("form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.correct();
    });
    // A caption is one line: Enter sends it, as in a field of one line.
    this.part("correction").addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.isComposing) return;
      event.preventDefault();
      this.part("form").requestSubmit();
    });
    this.part("better").setAttribute("aria-label", `Write a better caption: ${picture.file.name}`);
  }

  // Shows thumbs for a new answer; nothing if the server takes no feedback.
  // list: the items of the alternatives, each of which gets thumbs.
  show(answer, list) {
    this.element.hidden = limits === null || answer === null || answer.requestId === null;
    this.said.clear();
    this.open(false);
    this.tell("");
    if (this.element.hidden) return;
    const { name } = this.picture.file;
    this.part("thumbs").replaceChildren(...this.thumbs(0, name));
    list.forEach((item, place) => {
      const group = document.createElement("span");
      group.className = "thumbs";
      group.append(...this.thumbs(place + 1, answer.result.captions[place + 1].caption));
      item.append(group);
    });
    this.part("correction").maxLength = limits.max_characters;
    this.part("keeping").hidden = !limits.pictures;
  }

  thumbs(index, of) {
    const buttons = Object.entries(WORDS).map(([kind, words]) => {
      const button = document.getElementById(`thumb-${kind}`).content.firstElementChild.cloneNode(true);
      button.setAttribute("aria-label", `${words}: ${of}`);
      button.title = words;
      return [kind, button];
    });
    for (const [kind, button] of buttons) {
      button.addEventListener("click", () => {
        for (const [other, each] of buttons) {
          each.setAttribute("aria-pressed", String(other === kind));
        }
        this.send(index, { thumbs: kind });
      });
    }
    return buttons.map(([, button]) => button);
  }

  open(wanted) {
    const [form, better, field] = ["form", "better", "correction"].map((name) => this.part(name));
    const focusWasInside = form.contains(document.activeElement);
    form.hidden = !wanted;
    better.setAttribute("aria-expanded", String(wanted));
    if (wanted) {
      field.value = this.said.get(0)?.correction ?? this.picture.answer.result.caption;
      field.focus();
      field.select();
    } else if (focusWasInside) {
      better.focus();
    }
  }

  async correct() {
    const correction = this.part("correction").value.replace(/\s+/g, " ").trim();
    if (correction === "") {
      this.tell("Write a caption first.");
      return;
    }
    const keep = limits.pictures && this.part("keep").checked;
    if (await this.send(0, { correction, keep })) this.open(false);
  }

  // Sends what is said now, after what was said before. Returns whether the server took it.
  send(index, change) {
    const { answer } = this.picture;
    const opinion = { ...this.said.get(index), ...change };
    this.said.set(index, opinion);
    const sent = this.sending.then(async () => {
      try {
        const kept = await rate(answer.requestId, index, opinion, this.picture.file);
        if (this.picture.answer === answer) {
          this.tell(kept.picture_kept ? "Thank you. The picture is kept too." : "Thank you.");
        }
        return true;
      } catch (error) {
        if (this.picture.answer === answer) this.tell(`Not stored: ${error.message}`);
        return false;
      }
    });
    this.sending = sent;
    return sent;
  }

  tell(text) {
    this.part("told").textContent = text;
  }

  part(name) {
    return this.element.querySelector(`[data-part="${name}"]`);
  }
}
