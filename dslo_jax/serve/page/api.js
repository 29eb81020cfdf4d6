// Requests to the machine that serves this page. Every error has a code and a message.

export class PageError extends Error {
  constructor(facts) {
    super(facts.message);
    this.code = facts.code;
  }
}

const UNREACHABLE = {
  code: "",
  message: "dslo serve does not answer; is it still running? Start it again, then reload this page",
};

async function answer(address, options) {
  let response;
  try {
    response = await fetch(address, { ...options, redirect: "error" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new PageError(UNREACHABLE);
  }
  if (response.ok) return response;
  let facts = { code: "", message: `the machine answers ${response.status}; try again` };
  try {
    facts = (await response.json()).error ?? facts;
  } catch { /* not one of ours: the text above is all we know */ }
  throw new PageError(facts);
}

export const getJson = async (address, options) => (await answer(address, options)).json();

export const getBlob = async (address, options) => (await answer(address, options)).blob();

export const getBytes = async (address, options) => (await answer(address, options)).arrayBuffer();

export async function sendPhoto(file) {
  const headers = { "content-type": "application/octet-stream" };
  const response = await answer("/api/photos", { method: "POST", headers, body: file });
  return response.json();
}

export async function drawScene(seed) {
  const headers = { "content-type": "application/octet-stream" };
  return (await answer(`/api/scenes/${seed}`, { method: "POST", headers })).json();
}

// Asks "segment" or "click"; calls `tell` with each event, and returns the result.
export async function compute(what, wish, signal, tell) {
  const headers = { "content-type": "application/json" };
  const body = JSON.stringify(wish);
  const response = await answer(`/api/${what}`, { method: "POST", headers, body, signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    text += value ?? "";
    const lines = text.split("\n");
    text = lines.pop();
    for (const line of lines) {
      const event = JSON.parse(line);
      if (event.error) throw new PageError(event.error);
      if (event.result) return event.result;
      tell(event);
    }
    if (done) throw new PageError(UNREACHABLE);
  }
}
