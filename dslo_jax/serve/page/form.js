// The mode and the other choices. Only values that differ from the first ones are sent.

import { make } from "/page/legend.js";

const shown = (choice, value) => {
  if (choice.whole) return String(Math.round(value));
  return String(Number(Number(value).toPrecision(3)));
};

export class Choices {
  // `change(isDraft)` is called when a choice changes; a draft is one of many of a slider.
  constructor(about, change) {
    this.about = about;
    this.change = change;
    this.values = {};
    this.mode = about.mode;
    this.rows = [];
    this.showModes();
    for (const choice of about.choices) {
      const row = choice.words.length ? this.select(choice) : choice.step ? this.slider(choice) : this.box(choice);
      const isMain = choice.live && choice.modes.length;
      document.getElementById(isMain ? "main-choices" : "more-choices").append(row.element);
      this.rows.push({ choice, ...row });
    }
    this.refresh();
  }

  get options() {
    const used = this.about.choices.filter((choice) => this.applies(choice));
    const options = { mode: this.mode };
    for (const { name } of used) if (name in this.values) options[name] = this.values[name];
    return options;
  }

  // Takes over the options of a result.
  set(options) {
    this.values = {};
    for (const { name } of this.about.choices) if (name in options) this.values[name] = options[name];
    if (this.about.modes.some((each) => each.name === options.mode)) this.mode = options.mode;
    this.refresh();
  }

  reset() {
    this.set({ mode: this.about.mode });
  }

  applies(choice) {
    return !choice.modes.length || choice.modes.includes(this.mode);
  }

  refresh() {
    for (const { choice, element, show } of this.rows) {
      element.hidden = !this.applies(choice);
      show(this.values[choice.name] ?? choice.value);
    }
    for (const input of document.querySelectorAll("#modes input")) input.checked = input.value === this.mode;
    const mode = this.about.modes.find((each) => each.name === this.mode);
    document.getElementById("mode-help").textContent = mode?.help ?? "";
  }

  showModes() {
    const labels = this.about.modes.map(({ name }) => {
      const input = make("input", { type: "radio", name: "mode", value: name });
      input.addEventListener("change", () => {
        this.mode = name;
        this.refresh();
        this.change(false);
      });
      return make("label", {}, input, name);
    });
    document.getElementById("modes").append(...labels);
  }

  take(choice, value, isDraft) {
    if (value === choice.value) delete this.values[choice.name];
    else this.values[choice.name] = value;
    this.change(isDraft);
  }

  slider(choice) {
    const id = `choice-${choice.name}`;
    const { low, high, step, logarithmic } = choice;
    const range = logarithmic ? { min: 0, max: 1, step: 0.005 } : { min: low, max: high, step };
    const input = make("input", { type: "range", id, ...range, "aria-describedby": `${id}-help` });
    const output = make("output", { htmlFor: id });
    const value = () => {
      const found = logarithmic ? low * (high / low) ** input.valueAsNumber : input.valueAsNumber;
      return choice.whole ? Math.round(found) : Number(found.toPrecision(4));
    };
    const tell = (found) => {
      output.textContent = shown(choice, found);
      input.setAttribute("aria-valuetext", output.textContent);
    };
    input.addEventListener("input", () => {
      tell(value());
      if (choice.live) this.take(choice, value(), true);
    });
    input.addEventListener("change", () => this.take(choice, value(), false));
    const show = (found) => {
      input.value = logarithmic ? Math.log(found / low) / Math.log(high / low) : found;
      tell(found);
    };
    const help = make("span", { className: "hint", id: `${id}-help` }, choice.help);
    const element = make("label", { className: "slider", htmlFor: id }, make("span", {}, choice.title), output, input, help);
    return { element, show };
  }

  select(choice) {
    const input = make("select", {}, ...choice.words.map((word) => make("option", { value: word }, word)));
    input.addEventListener("change", () => this.take(choice, input.value, false));
    return this.labelled(choice, input, (value) => { input.value = value; });
  }

  box(choice) {
    const input = make("input", { type: "checkbox" });
    input.addEventListener("change", () => this.take(choice, input.checked, false));
    return this.labelled(choice, input, (value) => { input.checked = value; });
  }

  labelled(choice, input, show) {
    input.id = `choice-${choice.name}`;
    const help = make("span", { className: "hint", id: `${input.id}-help` }, choice.help);
    input.setAttribute("aria-describedby", help.id);
    const element = make("label", { className: "choice", htmlFor: input.id }, make("span", {}, choice.title), input, help);
    return { element, show };
  }
}
