// Recordings of the camera and the microphone, which are looked for like files.
import { byId, clock, say } from "./common.js";

const LONGEST_S = { clip: 15, sound: 15 };
const KINDS = {
  clip: { wanted: { video: { width: { ideal: 640 } } }, types: ["video/webm;codecs=vp8", "video/webm", "video/mp4"] },
  sound: { wanted: { audio: true }, types: ["audio/webm;codecs=opus", "audio/webm", "audio/mp4"] },
};
const running = { kind: "", recorder: null, stream: null, timer: 0 };

// Browsers have these in secure contexts alone: on this machine's own names, and behind TLS.
export const canRecord = () => Boolean(navigator.mediaDevices?.getUserMedia && globalThis.MediaRecorder);

function label(kind, text = `Record ${kind}`) {
  byId(`record-${kind}`).textContent = text;
  byId(`record-${kind}`).setAttribute("aria-pressed", String(running.kind === kind));
}

function release() {
  clearInterval(running.timer);
  for (const track of running.stream?.getTracks() ?? []) track.stop(); // the camera's light goes out
  const { kind } = running;
  Object.assign(running, { kind: "", recorder: null, stream: null, timer: 0 });
  byId("viewfinder").hidden = true;
  byId("viewfinder").srcObject = null;
  if (kind) label(kind);
}

async function start(kind, upload) {
  running.kind = kind;
  label(kind, "…");
  try {
    running.stream = await navigator.mediaDevices.getUserMedia(KINDS[kind].wanted);
    const type = KINDS[kind].types.find((one) => MediaRecorder.isTypeSupported(one));
    const parts = [], recorder = new MediaRecorder(running.stream, type ? { mimeType: type } : {});
    recorder.addEventListener("dataavailable", (event) => { if (event.data.size) parts.push(event.data); });
    recorder.addEventListener("error", (event) => { release(); say(`The recording failed: ${event.error?.message ?? "unknown reason"}`, true); });
    recorder.addEventListener("stop", () => {
      const made = recorder.mimeType.split(";")[0], suffix = made.endsWith("mp4") ? "mp4" : "webm";
      release();
      if (parts.length) upload(new File(parts, `recorded ${kind}.${suffix}`, { type: made }));
      else say("Nothing was recorded; record for a little longer.", true);
    });
    running.recorder = recorder;
    recorder.start();
  } catch (error) {
    release();
    const why = { NotAllowedError: "the browser was not allowed to", NotFoundError: "there is no such device" }[error.name] ?? error.message;
    say(`Cannot record a ${kind}: ${why}.`, true);
    return;
  }
  if (kind === "clip") {
    byId("viewfinder").srcObject = running.stream;
    byId("viewfinder").hidden = false;
  }
  const begun = Date.now();
  const tell = () => {
    const seconds = (Date.now() - begun) / 1000;
    label(kind, `Stop (${clock(seconds)})`);
    if (seconds >= LONGEST_S[kind] && running.recorder?.state === "recording") running.recorder.stop();
  };
  tell();
  running.timer = setInterval(tell, 250);
}

export function setUpRecording(upload, hears) {
  if (!canRecord()) return;
  for (const kind of hears ? ["clip", "sound"] : ["clip"]) {
    byId(`record-${kind}`).hidden = false;
    byId(`record-${kind}`).addEventListener("click", () => {
      if (running.kind === kind) { if (running.recorder?.state === "recording") running.recorder.stop(); }
      else if (!running.kind) start(kind, upload);
    });
  }
}
