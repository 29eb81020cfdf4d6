// The photo with its regions in colour, the map of a class, and what is at a place.

const LEAST_SIDE = 1280; // smaller photos are enlarged by a whole factor
const FADED = 0.3; // opacity of the other classes while one is pointed at

// Points of a colour scale from dark to light that colour-blind eyes read as well.
const SCALE = [
  [0, 32, 77], [31, 62, 110], [86, 92, 108], [124, 123, 120], [165, 155, 116], [211, 193, 95], [253, 234, 69],
];

export function scaleColour(share) {
  const place = Math.min(Math.max(share, 0), 1) * (SCALE.length - 1);
  const low = Math.min(Math.floor(place), SCALE.length - 2);
  return SCALE[low].map((value, i) => value + (place - low) * (SCALE[low + 1][i] - value));
}

export const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));

// Draws values row by row, one pixel each; returns the least and the greatest one.
export function drawValues(canvas, values, [rows, columns]) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  const spread = high > low ? high - low : 1;
  canvas.width = columns;
  canvas.height = rows;
  const image = new ImageData(columns, rows);
  values.forEach((value, i) => {
    const colour = scaleColour(Number.isFinite(value) ? (value - low) / spread : 0);
    image.data.set([...colour, 255], 4 * i);
  });
  canvas.getContext("2d").putImageData(image, 0, 0);
  return Number.isFinite(low) ? [low, high] : null;
}

export class Picture {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { willReadFrequently: true });
    this.opacity = 0.55;
    this.clear();
  }

  clear() {
    this.result = this.labels = this.maps = this.asked = null;
    this.shown = new Set();
    this.pointed = this.mapped = null;
  }

  // Shows a photo alone.
  setPhoto(bitmap, width, height) {
    this.width = width;
    this.height = height;
    this.factor = Math.max(1, Math.ceil(LEAST_SIDE / Math.max(width, height)));
    this.canvas.width = width * this.factor;
    this.canvas.height = height * this.factor;
    this.context.imageSmoothingQuality = "high";
    this.context.drawImage(bitmap, 0, 0, this.canvas.width, this.canvas.height);
    this.photo = this.context.getImageData(0, 0, this.canvas.width, this.canvas.height);
    this.clear();
  }

  // Shows a result over its photo; `hidden` are the names of classes not to show.
  setResult(result, labels, maps, hidden) {
    const Kind = result.label_bytes === 1 ? Uint8Array : Uint16Array;
    this.result = result;
    this.labels = new Kind(labels);
    this.asked = null;
    this.maps = new Float32Array(maps);
    this.colours = result.classes.map((each) => rgb(each.colour));
    this.shown = new Set(result.classes.flatMap((each, i) => (hidden.has(each.name) ? [] : [i])));
    if (this.mapped !== null && this.mapped >= result.classes.length) this.mapped = null;
    this.pointed = null;
    this.paint();
  }

  paint() {
    if (!this.photo) return;
    if (this.asked) this.paintHeat((small) => drawValues(small, this.asked.map.map(Math.sqrt), this.asked.grid));
    else if (!this.result) this.context.putImageData(this.photo, 0, 0);
    else if (this.mapped !== null) this.paintMap(this.mapped);
    else this.paintLabels();
  }

  paintLabels() {
    const { width, height } = this.canvas;
    const { factor, labels, width: columns } = this;
    const from = this.photo.data;
    const image = new ImageData(width, height);
    const to = image.data;
    const strengths = this.colours.map((_, i) => {
      if (!this.shown.has(i)) return 0;
      const isFaded = this.pointed !== null && this.pointed !== i;
      return this.opacity * (isFaded ? FADED : 1);
    });
    const thickness = Math.max(1, Math.round(Math.sqrt(width * height) / 550));
    const rowOf = (y) => Math.floor(Math.min(y, height - 1) / factor) * columns;
    const columnOf = Int32Array.from({ length: width + thickness }, (_, x) => Math.floor(Math.min(x, width - 1) / factor));
    for (let y = 0, at = 0; y < height; y++) {
      const row = rowOf(y), below = rowOf(y + thickness);
      for (let x = 0; x < width; x++, at += 4) {
        const label = labels[row + columnOf[x]];
        const alpha = strengths[label];
        const right = labels[row + columnOf[x + thickness]];
        const under = labels[below + columnOf[x]];
        const isEdge = (right !== label && alpha + strengths[right] > 0) || (under !== label && alpha + strengths[under] > 0);
        if (isEdge) {
          to[at] = to[at + 1] = to[at + 2] = 255;
        } else if (alpha === 0) {
          to[at] = from[at]; to[at + 1] = from[at + 1]; to[at + 2] = from[at + 2];
        } else {
          const [red, green, blue] = this.colours[label];
          const grey = 0.299 * from[at] + 0.587 * from[at + 1] + 0.114 * from[at + 2];
          const kept = (1 - alpha) * (1 - alpha), pale = (1 - alpha) * alpha * grey;
          to[at] = kept * from[at] + pale + alpha * red;
          to[at + 1] = kept * from[at + 1] + pale + alpha * green;
          to[at + 2] = kept * from[at + 2] + pale + alpha * blue;
        }
        to[at + 3] = 255;
      }
    }
    this.context.putImageData(image, 0, 0);
  }

  paintMap(index) {
    this.paintHeat((small) => this.drawMap(small, index));
  }

  paintHeat(draw) {
    const small = document.createElement("canvas");
    draw(small);
    this.context.putImageData(this.photo, 0, 0);
    this.context.save();
    this.context.imageSmoothingEnabled = true;
    this.context.globalAlpha = 0.25 + 0.7 * this.opacity;
    this.context.drawImage(small, 0, 0, this.canvas.width, this.canvas.height);
    this.context.restore();
  }

  // Draws the map of a class, one pixel for each patch; returns its least and greatest value.
  drawMap(canvas, index) {
    const [rows, columns] = this.result.grid;
    const size = rows * columns;
    return drawValues(canvas, this.maps.subarray(index * size, (index + 1) * size), [rows, columns]);
  }

  // What is at a place of the canvas, both from 0 to 1: its class, and the best two scores.
  at(right, down) {
    if (!this.result) return null;
    const x = Math.min(Math.floor(right * this.width), this.width - 1);
    const y = Math.min(Math.floor(down * this.height), this.height - 1);
    if (x < 0 || y < 0) return null;
    const [rows, columns] = this.result.grid;
    const patch = Math.min(Math.floor(down * rows), rows - 1) * columns + Math.min(Math.floor(right * columns), columns - 1);
    const scores = this.result.classes.map((_, i) => this.maps[i * rows * columns + patch]);
    const label = this.labels[y * this.width + x];
    const others = scores.map((score, i) => [score, i]).filter(([score, i]) => i !== label && Number.isFinite(score));
    others.sort((a, b) => b[0] - a[0]);
    return { label, score: scores[label], second: others[0] ?? null };
  }
}
