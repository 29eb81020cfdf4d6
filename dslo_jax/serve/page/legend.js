// The classes of a result: which are shown, how much each covers, and the map of each.

export const percent = (share) => (share > 0 && share < 0.001 ? "<0.1 %" : `${(100 * share).toFixed(1)} %`);

export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element && name !== "list") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

export class Legend {
  // `on` holds functions: `toggle(index, isShown)`, `point(index or null)`, `map(index)`.
  constructor(list, on) {
    this.list = list;
    this.on = on;
    this.rows = [];
  }

  show(result, hidden, mapped) {
    const focused = this.list.contains(document.activeElement) ? document.activeElement.id : "";
    const order = result.classes.map((each, index) => ({ ...each, index }));
    order.sort((a, b) => b.area - a.area);
    this.rows = [];
    this.list.replaceChildren(...order.map((each) => this.row(each, hidden, mapped)));
    if (focused) document.getElementById(focused)?.focus();
  }

  row(each, hidden, mapped) {
    const { index, name, area } = each;
    const box = make("input", { type: "checkbox", id: `show-${index}`, checked: !hidden.has(name) });
    box.addEventListener("change", () => this.on.toggle(index, box.checked));
    const swatch = make("span", { className: "swatch" });
    swatch.style.backgroundColor = each.colour;
    const label = make("label", { htmlFor: box.id, title: name }, name);
    const share = make("span", { className: "share" }, each.rejected ? "rejected" : percent(area));
    const map = make("button", { type: "button", id: `map-${index}`, disabled: each.rejected }, "Map");
    map.setAttribute("aria-pressed", mapped === index);
    map.setAttribute("aria-label", `Show the map of ${name}`);
    map.addEventListener("click", () => this.on.map(index));
    const row = make("li", { className: area > 0 ? "" : "gone" }, box, swatch, label, share, map);
    row.addEventListener("pointerenter", () => this.on.point(index));
    row.addEventListener("pointerleave", () => this.on.point(null));
    row.addEventListener("focusin", () => this.on.point(index));
    row.addEventListener("focusout", () => this.on.point(null));
    this.rows[index] = row;
    return row;
  }

  mark(index) {
    this.rows.forEach((row, i) => row.classList.toggle("at", i === index));
  }
}
