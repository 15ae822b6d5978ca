// The queue of pictures: a few requests at a time, and pauses while the server cannot take any.

import { Refused, Unreachable, caption, describe } from "./server.js";

const AT_A_TIME = 3; // enough for the server to make a batch, and fair to its other users
const LONGEST_WAIT = 10; // seconds between two questions to a server that does not answer
const BUSY_WAIT = 2; // seconds, where a busy server names no time

// Captions pictures in the order in which they were added.
// A picture is an object with `file` and `options`; the queue sets `state` and `message`, and
// `answer` when it is captioned. States: waiting, working, done, failed.
export class Queue {
  // changed(picture): its state changed.
  // paused(pause): null while requests are sent, else {kind, message, until};
  //   kind is "away", "busy" or "key"; until is a time in milliseconds, or null.
  // described(description): the server described itself.
  constructor({ changed, paused, described }) {
    this.changed = changed;
    this.paused = paused;
    this.described = described;
    this.waiting = [];
    this.working = new Map(); // picture -> AbortController
    this.pause = null;
    this.timer = null;
    this.tries = 0;
  }

  add(picture) {
    picture.broken = 0;
    this.set(picture, "waiting");
    this.waiting.push(picture);
    this.fill();
  }

  remove(picture) {
    this.waiting = this.waiting.filter((other) => other !== picture);
    this.working.get(picture)?.abort();
    this.working.delete(picture);
  }

  // Asks the server to describe itself. Requests are sent again when it does.
  async start() {
    clearTimeout(this.timer);
    let description;
    try {
      description = await describe();
    } catch (error) {
      this.stop(error);
      return;
    }
    this.tries = 0;
    this.pause = null;
    this.paused(null);
    this.described(description);
    this.fill();
  }

  fill() {
    while (this.pause === null && this.working.size < AT_A_TIME && this.waiting.length > 0) {
      this.send(this.waiting.shift());
    }
  }

  async send(picture) {
    const control = new AbortController();
    this.working.set(picture, control);
    this.set(picture, "working");
    try {
      picture.answer = await caption(picture.file, picture.options, control.signal);
      this.set(picture, "done");
    } catch (error) {
      if (error.name !== "AbortError") await this.fail(picture, error);
    }
    if (this.working.get(picture) === control) this.working.delete(picture);
    this.fill();
  }

  async fail(picture, error) {
    if (!(error instanceof Unreachable) && !pauses(error)) {
      this.set(picture, "failed", error.message);
      return;
    }
    if (error instanceof Unreachable && (await this.closedTwice(picture))) {
      const told =
        "The server closed the connection twice without an answer. " +
        `The file has ${picture.file.size} bytes; it may be larger than the server accepts.`;
      this.set(picture, "failed", told);
      return;
    }
    if (!this.working.delete(picture)) return; // removed meanwhile
    this.waiting.unshift(picture);
    this.set(picture, "waiting");
    if (this.pause === null) this.stop(error);
  }

  // Whether the server closed the connection of this picture for the second time, though it answers
  // others. The first time is forgiven, because the server may just have been restarted.
  async closedTwice(picture) {
    try {
      await describe();
    } catch {
      return false;
    }
    picture.broken += 1;
    return picture.broken === 2;
  }

  // Sends no more requests for now, and asks again later unless a key is needed.
  stop(error) {
    clearTimeout(this.timer);
    if (error.status === 401) {
      this.pause = { kind: "key", message: error.message, until: null };
    } else {
      const away = error instanceof Unreachable;
      const wait = away
        ? Math.min(2 ** this.tries++, LONGEST_WAIT)
        : Math.max(error.retryAfter ?? BUSY_WAIT, 1);
      const message = away ? "The server does not answer." : error.message;
      const kind = away ? "away" : "busy";
      this.pause = { kind, message, until: Date.now() + wait * 1000 };
      this.timer = setTimeout(() => this.start(), wait * 1000);
    }
    this.paused(this.pause);
  }

  set(picture, state, message = "") {
    picture.state = state;
    picture.message = message;
    this.changed(picture);
  }
}

// Errors that concern every request and not one picture: key needed, too many requests, overloaded.
function pauses(error) {
  return error instanceof Refused && [401, 429, 503].includes(error.status);
}
