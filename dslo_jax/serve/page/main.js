// The page: a photo, words and choices in, a picture and a legend out.

import { compute, drawScene, getBlob, getBytes, getJson, sendPhoto } from "/page/api.js";
import { Choices } from "/page/form.js";
import { Legend, make, percent } from "/page/legend.js";
import { Picture } from "/page/picture.js";
import { Words } from "/page/words.js";

const byId = (id) => document.getElementById(id);
const STAGES = {
  resize: "Scaling the photo", clip: "Looking at the photo with CLIP", text: "Reading the words",
  logits: "Comparing patches with words", vae: "Encoding the photo", unet: "Reading what belongs together",
  transformer: "Reading what belongs together", solver: "Solving", fold: "Labelling pixels", labels: "Labelling pixels",
};
const picture = new Picture(byId("picture"));
const hidden = new Set(); // names of classes that are not shown
let about, choices, words, legend;
let photo = null; // what the machine told of it, and its file if it has one
let running = null; // the request in flight: { controller, isDraft }
let next = null; // a draft that waits for the one in flight
const place = [0.5, 0.5]; // where the arrow keys point

// ---- telling -------------------------------------------------------------------------

const say = (text) => { byId("status").textContent = text; };

function sayError(error) {
  const box = byId("error");
  const isOfWords = error?.code?.startsWith("C");
  words?.say(isOfWords ? `${error.code}: ${error.message}` : "");
  box.hidden = !error || isOfWords;
  box.replaceChildren(...(error && !isOfWords ? [make("code", {}, error.code ?? ""), error.message] : []));
  if (!error) return;
  say("");
  byId("notes").replaceChildren(); // they are about what went well before
}

function busy(isBusy) {
  byId("progress").hidden = !isBusy;
  byId("frame").setAttribute("aria-busy", isBusy);
}

function tell(event) {
  if ("waiting" in event) say(event.waiting ? `${event.waiting} before you` : "Your turn");
  else if (event.compiles) say(`${STAGES[event.stage] ?? event.stage}: compiling, once`);
  else if (!running?.isDraft) say(STAGES[event.stage] ?? event.stage);
}

async function guarded(action) {
  try {
    await action();
  } catch (error) {
    if (error.name === "AbortError") return;
    busy(false);
    sayError(error);
  }
}

// ---- photos --------------------------------------------------------------------------

async function showPhoto(facts, address, file = null) {
  const bitmap = await createImageBitmap(await getBlob(address));
  photo = { ...facts, file };
  picture.setPhoto(bitmap, facts.view.width, facts.view.height);
  bitmap.close();
  picture.paint();
  byId("picture").setAttribute("aria-label", `Photo of ${facts.width} by ${facts.height} pixels`);
  byId("result").hidden = true;
  byId("notes").replaceChildren();
  for (const tile of document.querySelectorAll(".scenes .tile")) {
    tile.setAttribute("aria-pressed", `scene-${tile.dataset.seed}` === facts.photo);
  }
}

const choosePhoto = (file) => guarded(async () => {
  if (!file) return;
  sayError(null);
  if (file.size > about.limits.bytes) {
    const most = Math.round(about.limits.bytes / 2 ** 20);
    throw { code: "V03", message: `the file has ${(file.size / 2 ** 20).toFixed(0)} MB, the page takes ${most} MB; make it smaller` };
  }
  stop();
  say("Reading the photo");
  busy(true);
  const facts = await sendPhoto(file);
  await showPhoto(facts, `/api/photos/${facts.photo}`, file);
  busy(false);
  if (words.value.trim()) await ask(false);
  else { say("Now name what you see in it"); byId("words").focus(); }
});

const chooseScene = (seed) => guarded(async () => {
  sayError(null);
  stop();
  const facts = await drawScene(seed);
  await showPhoto(facts, `/api/photos/${facts.photo}`);
  if (!words.isOwn || !words.value.trim()) words.set(facts.words);
  await ask(false);
});

// ---- results -------------------------------------------------------------------------

function stop() {
  next = null;
  running?.controller.abort();
  running = null;
}

// Asks for a result. Drafts never pile up: while one is made, only the last one waits.
async function ask(isDraft) {
  if (!photo) return;
  if (running?.isDraft) { next = { isDraft }; return; }
  stop();
  const mine = running = { controller: new AbortController(), isDraft };
  const wish = { photo: photo.photo, words: words.value, options: choices.options, draft: isDraft };
  if (!isDraft) { sayError(null); busy(true); }
  try {
    const result = await withPhoto(wish, mine);
    await show(result, !isDraft);
    words.say("");
  } catch (error) {
    if (error.name !== "AbortError") sayError(error);
  } finally {
    if (running === mine) {
      running = null;
      busy(false);
      const waiting = next;
      next = null;
      if (waiting) ask(waiting.isDraft);
    }
  }
}

// A photo that the machine has forgotten is sent again, if we have its file.
async function withPhoto(wish, { controller }) {
  try {
    return await compute("segment", wish, controller.signal, tell);
  } catch (error) {
    if (error.code !== "V06" || !photo.file) throw error;
    photo = { ...(await sendPhoto(photo.file)), file: photo.file };
    return compute("segment", { ...wish, photo: photo.photo }, controller.signal, tell);
  }
}

async function show(result, isFinal) {
  const address = `/api/results/${result.result}`;
  const signal = running?.controller.signal;
  const [labels, maps] = await Promise.all(
    [`${address}/labels`, `${address}/maps`].map((each) => getBytes(each, { signal })));
  picture.setResult(result, labels, maps, hidden);
  legend.show(result, hidden, picture.mapped);
  byId("result").hidden = false;
  byId("notes").replaceChildren(...result.notes.map((note) => make("li", {}, note)));
  const largest = result.classes.map((each, i) => [each.area, i]).sort((a, b) => b[0] - a[0]);
  const named = largest.filter(([area]) => area > 0).slice(0, 4).map(([area, i]) => `${result.classes[i].name} ${percent(area)}`);
  byId("picture").setAttribute("aria-label", `Segmented photo: ${named.join(", ")}`);
  showMap(picture.mapped ?? largest[0][1]);
  if (!isFinal) { say(`${result.mode} in ${seconds(result.seconds)}`); return; }
  const compiled = result.compile_seconds > 0.05 ? `, and ${seconds(result.compile_seconds)} to compile` : "";
  say(`Done: ${result.mode} in ${seconds(result.seconds)}${compiled}. ${result.width} × ${result.height} pixels, ${result.classes.length} classes`);
  history.replaceState(null, "", `/r/${result.result}`);
  byId("copy").disabled = false;
  byId("download").href = `${address}/files`;
  byId("download").setAttribute("download", "dslo-result.zip");
  byId("download").removeAttribute("aria-disabled");
}

const seconds = (value) => (value < 0.1 ? `${Math.max(1, Math.round(1000 * value))} ms` : `${value.toFixed(2)} s`);

function showMap(index) {
  if (index === null || !picture.result) return;
  const each = picture.result.classes[index];
  const range = picture.drawMap(byId("map"), index);
  const numbers = range ? `${range[0].toPrecision(3)} to ${range[1].toPrecision(3)}, dark to light. ` : "";
  const steps = each.rejected ? "It won no patch, and was rejected early." : `${each.num_steps} steps${each.converged ? "" : ", not converged"}.`;
  byId("map-caption").replaceChildren(make("b", {}, each.name), ` ${numbers}${steps}`);
  byId("map").setAttribute("aria-label", `Map of ${each.name}`);
  byId("map").style.aspectRatio = `${picture.width} / ${picture.height}`;
}

// Shows the Markov map of a place: how soon a walk that starts there reaches each patch.
const askHere = (right, down) => guarded(async () => {
  stop();
  sayError(null);
  const mine = running = { controller: new AbortController(), isDraft: false };
  const at = (share, side) => Math.min(Math.floor(share * side), side - 1);
  const wish = { photo: photo.photo, x: at(right, photo.width), y: at(down, photo.height) };
  const threshold = choices.options.threshold;
  if (threshold !== undefined) wish.threshold = threshold;
  busy(true);
  try {
    const found = await compute("click", wish, mine.controller.signal, tell);
    picture.asked = found;
    picture.paint();
    say(`A walk from column ${wish.x}, row ${wish.y} reaches all patches in ${found.num_steps} steps: bright is soon`);
  } finally {
    if (running === mine) { running = null; busy(false); }
  }
});

function listenToAsking() {
  const button = byId("ask-here"), canvas = byId("picture");
  const isOn = () => button.getAttribute("aria-pressed") === "true";
  const set = (on) => {
    button.setAttribute("aria-pressed", on);
    if (on) say("Click into the picture, or press Enter at a place, to see what belongs to it");
    else { picture.asked = null; picture.paint(); }
  };
  button.addEventListener("click", () => set(!isOn()));
  canvas.addEventListener("click", (event) => {
    const box = canvas.getBoundingClientRect();
    if (isOn() && photo) askHere((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
  });
  canvas.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && isOn() && photo) askHere(...place);
    if (event.key === "Escape" && isOn()) set(false);
  });
}

// ---- pointing ------------------------------------------------------------------------

function pointAt(right, down, isSpoken) {
  const found = picture.at(right, down);
  const tip = byId("tip");
  tip.hidden = !found;
  legend.mark(found?.label ?? null);
  if (!found) return;
  const { classes } = picture.result;
  const name = classes[found.label].name;
  const score = Number.isFinite(found.score) ? found.score.toPrecision(3) : "rejected";
  const second = found.second ? `then ${classes[found.second[1]].name} ${found.second[0].toPrecision(3)}` : "";
  tip.replaceChildren(make("b", {}, `${name} ${score}`), make("span", {}, second));
  const canvas = byId("picture").getBoundingClientRect(), frame = byId("frame").getBoundingClientRect();
  const x = canvas.left - frame.left + right * canvas.width, y = canvas.top - frame.top + down * canvas.height;
  const left = Math.min(x + 14, frame.width - tip.offsetWidth - 4);
  const top = y + 18 + tip.offsetHeight > frame.height ? y - tip.offsetHeight - 10 : y + 18;
  tip.style.transform = `translate(${Math.max(4, left)}px, ${Math.max(4, top)}px)`;
  if (picture.mapped === null) showMap(found.label);
  if (isSpoken) byId("spoken").textContent = `${name}, ${score}; ${second}`;
}

function listenToPicture() {
  const canvas = byId("picture");
  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    pointAt((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height, false);
  });
  canvas.addEventListener("pointerleave", () => { byId("tip").hidden = true; legend.mark(null); });
  canvas.addEventListener("blur", () => { byId("tip").hidden = true; });
  canvas.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!move || !picture.result) return;
    event.preventDefault();
    const [rows, columns] = picture.result.grid;
    place[0] = Math.min(Math.max(place[0] + move[0] / columns, 0.5 / columns), 1 - 0.5 / columns);
    place[1] = Math.min(Math.max(place[1] + move[1] / rows, 0.5 / rows), 1 - 0.5 / rows);
    pointAt(...place, true);
  });
}

function makeLegend() {
  return new Legend(byId("legend"), {
    toggle(index, isShown) {
      const { name } = picture.result.classes[index];
      if (isShown) { picture.shown.add(index); hidden.delete(name); } else { picture.shown.delete(index); hidden.add(name); }
      picture.paint();
    },
    point(index) {
      if (picture.pointed === index || !picture.result) return;
      picture.pointed = index !== null && picture.shown.has(index) ? index : null;
      if (picture.mapped === null) { picture.paint(); showMap(index); }
    },
    map(index) {
      picture.mapped = picture.mapped === index ? null : index;
      legend.rows.forEach((row, i) => row.querySelector("button").setAttribute("aria-pressed", i === picture.mapped));
      showMap(index);
      picture.paint();
    },
  });
}

// ---- everything around ---------------------------------------------------------------

function listenToPhotos() {
  const drop = byId("drop");
  const hasFile = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  let depth = 0;
  addEventListener("dragenter", (event) => { if (hasFile(event)) { depth += 1; drop.hidden = false; } });
  addEventListener("dragleave", () => { depth = Math.max(0, depth - 1); drop.hidden = depth === 0; });
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    depth = 0;
    drop.hidden = true;
    choosePhoto(event.dataTransfer?.files[0]);
  });
  addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files ?? [])][0];
    if (file) choosePhoto(file);
  });
  byId("file").addEventListener("change", (event) => { choosePhoto(event.target.files[0]); event.target.value = ""; });
  const tiles = about.scenes.map(({ seed, words: shown }) => {
    const tile = make("button", { type: "button", className: "tile", "aria-pressed": false, "aria-label": `Drawn scene with ${shown}` });
    tile.dataset.seed = seed;
    tile.append(make("img", { src: `/api/scenes/${seed}`, alt: "", width: 160, height: 128, loading: "lazy" }));
    tile.addEventListener("click", () => chooseScene(seed));
    return tile;
  });
  byId("scenes").append(...tiles);
  byId("more-scenes").addEventListener("click", () => chooseScene(Math.floor(10000 * Math.random())));
}

function listenToBar() {
  const opacity = byId("opacity");
  opacity.addEventListener("input", () => {
    picture.opacity = opacity.valueAsNumber;
    byId("opacity-value").textContent = `${Math.round(100 * picture.opacity)} %`;
    picture.paint();
  });
  byId("copy").addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(location.href);
      say(`The link is copied. It works until ${about.limits.results} newer results were made, or dslo serve ends`);
    } catch {
      say(`Copy the address of this page: ${location.href}`);
    }
  });
}

function listenToTheme() {
  const root = document.documentElement, button = byId("theme");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";
  const refresh = () => { button.textContent = isDark() ? "Light" : "Dark"; };
  try {
    const kept = localStorage.getItem("theme");
    if (kept === "light" || kept === "dark") root.dataset.theme = kept;
  } catch { /* no storage: the theme of the system */ }
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try { localStorage.setItem("theme", root.dataset.theme); } catch { /* as above */ }
    refresh();
  });
  dark.addEventListener("change", refresh);
  refresh();
}

async function watchWarmUp() {
  for (;;) {
    const { ready, warming } = await getJson("/api/state");
    if (ready) return;
    if (!running && !picture.result) say(`Warming up in the background (${warming})`);
    await new Promise((resolve) => { setTimeout(resolve, 500); });
  }
}

async function openLink(name) {
  const result = await getJson(`/api/results/${name}`);
  words.set(result.words, true);
  choices.set(result.options);
  await showPhoto(result, `/api/results/${name}/photo`);
  await show(result, true);
}

async function start() {
  listenToTheme();
  about = await getJson("/api/about");
  byId("model").textContent = [about.model, about.device].filter(Boolean).join(" · ");
  legend = makeLegend();
  words = new Words(about.known, () => ask(false));
  choices = new Choices(about, (isDraft) => ask(isDraft));
  byId("form").addEventListener("submit", async (event) => {
    event.preventDefault();
    await ask(false);
    // On a phone the picture is above what can be seen; an error of the words is not.
    if (!byId("words-error").textContent) byId("frame").scrollIntoView({ block: "nearest" });
  });
  byId("reset").addEventListener("click", () => { choices.reset(); ask(false); });
  listenToPicture();
  listenToPhotos();
  listenToBar();
  listenToAsking();
  guarded(watchWarmUp);
  const name = location.pathname.match(/^\/r\/([^/]+)$/)?.[1];
  if (!name) { await chooseScene(about.scenes[0].seed); return; }
  try {
    await openLink(name);
  } catch (error) {
    history.replaceState(null, "", "/");
    await chooseScene(about.scenes[0].seed);
    sayError(error);
  }
}

guarded(start);
