// Where samples and pictures come from: the page itself, or the server that follows a run.
const live = document.body.hasAttribute("data-live");

const unpack = async (text) => {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
};

const embeddedPicture = (number) => {
  const element = byId("picture-" + number);
  const { kind, problem } = element.dataset;
  return { problem, source: problem ? "" : `data:${kind};base64,${element.textContent}` };
};
const served = new Map(); // by number; what failed is asked for again
const servedPicture = async (number) => {
  try {
    const response = await fetch("picture/" + number);
    if (response.ok) return { problem: "", source: URL.createObjectURL(await response.blob()) };
    served.delete(number);
    return { problem: await response.text(), source: "" };
  } catch {
    served.delete(number);
    return { problem: "the server does not answer", source: "" };
  }
};
const picture = async (number) => {
  if (!live) return embeddedPicture(number);
  if (!served.has(number)) served.set(number, servedPicture(number));
  return served.get(number);
};
