// The words: the text, and the chips of words that the networks know.

import { make } from "/page/legend.js";

// A rough reading for the chips alone; the machine reads the text itself.
const parts = (text) => text.split(",").map((each) => each.trim()).filter(Boolean);
const firstName = (part) => part.split("|")[0].trim().toLowerCase();

export class Words {
  constructor(known, change) {
    this.text = document.getElementById("words");
    this.wrong = document.getElementById("words-error");
    this.isOwn = false; // whether a person has changed them
    this.chips = known.map((word) => this.chip(word, change));
    document.getElementById("chips").append(...this.chips);
    this.text.addEventListener("input", () => {
      this.isOwn = true;
      this.refresh();
    });
    this.text.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      change();
    });
  }

  // A line break between words means a comma.
  get value() {
    return this.text.value.trim().replace(/\s*,?\s*\n\s*/g, ", ");
  }

  set(text, isOwn = false) {
    this.text.value = text;
    this.isOwn = isOwn;
    this.refresh();
  }

  chip(word, change) {
    const chip = make("button", { type: "button" }, word);
    chip.addEventListener("click", () => {
      const listed = parts(this.value);
      const others = listed.filter((part) => firstName(part) !== word);
      this.set((others.length < listed.length ? others : [...listed, word]).join(", "), true);
      if (this.value) change();
    });
    return chip;
  }

  refresh() {
    const names = new Set(parts(this.value).map(firstName));
    for (const chip of this.chips) chip.setAttribute("aria-pressed", names.has(chip.textContent));
  }

  // Shows what is wrong with the words, or nothing.
  say(message) {
    this.wrong.textContent = message;
    this.text.setAttribute("aria-invalid", Boolean(message));
  }
}
