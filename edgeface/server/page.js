const POLL_MS = 500;
const RETRY_MS = 1000;
const COLORS = { box: "#3cdc50", left_eye: "#28a0ff", right_eye: "#28a0ff", nose: "#ffc83c", left_mouth: "#ff50c8", right_mouth: "#ff50c8" };

const $ = (id) => document.getElementById(id);
const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function ask(path, options) {
  const response = await fetch(path, options);
  const answer = await response.json();
  if (!response.ok) throw Object.assign(new Error(answer.message), { status: response.status });
  return answer;
}

function say(text) {
  if ($("status").textContent !== text) $("status").textContent = text;
}

function showInfo(info) {
  $("about").textContent = `${info.model} on ${info.backend}${info.source === null ? "" : ` · ${info.source}`}`;
  const size = info.input_size === null ? "the picture’s own" : [info.input_size].flat().join(" × ");
  const facts = { backend: info.backend, why: info.why, ...info.facts, "input size": size, threads: info.threads };
  $("facts").replaceChildren(...Object.entries(facts).flatMap(([name, value]) => {
    const [term, text] = [document.createElement("dt"), document.createElement("dd")];
    [term.textContent, text.textContent] = [name, value];
    return [term, text];
  }));
}

function showStats(stats) {
  $("fps").textContent = stats.fps.toFixed(1);
  const latency = stats.latency_ms;
  if (!latency) return;
  $("median").textContent = latency.median.toFixed(1);
  $("p95").textContent = latency.p95.toFixed(1);
  drawHistogram(latency);
}

function svg(name, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

function drawHistogram({ median, p95, histogram: { edges, counts } }) {
  const [width, height] = [240, 84];
  const [most, step, end] = [Math.max(...counts), width / counts.length, edges.at(-1)];
  const bars = counts.map((count, bin) => {
    const length = (count / most) * (height - 4);
    return svg("rect", { x: bin * step + 0.5, y: height - length, width: step - 1, height: length });
  });
  const x = (median / end) * width;
  $("histogram").replaceChildren(...bars, svg("line", { x1: x, x2: x, y1: 0, y2: height }));
  $("histogram").setAttribute("aria-label", `Latency histogram: median ${median} ms, 95 % below ${p95} ms`);
  $("range").textContent = `0 to ${end.toFixed(0)} ms and more; the line is the median`;
}

function onThreshold(change) {
  const slider = $("threshold");
  slider.addEventListener("input", () => {
    $("shown").textContent = Number(slider.value).toFixed(2);
    change(Number(slider.value));
  });
}

function setSlider(value) {
  if (document.activeElement !== $("threshold")) $("threshold").value = value;
  $("shown").textContent = Number($("threshold").value).toFixed(2);
}

/* One request at a time; of the values that come meanwhile, the last one counts. */
function latestOnly(send) {
  let next, busy = false;
  return async (value) => {
    next = value;
    if (busy) return;
    busy = true;
    while (next !== undefined) {
      const current = next;
      next = undefined;
      await send(current).catch((error) => say(error.message));
    }
    busy = false;
  };
}

async function watchSource() {
  const image = $("stream");
  const connect = () => { image.src = `/stream.mjpg?${Date.now()}`; };
  image.addEventListener("error", () => setTimeout(connect, RETRY_MS));
  image.hidden = false;
  connect();
  onThreshold(latestOnly((value) => ask("/threshold", {
    method: "PUT", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ value }),
  })));
  let lost = false;
  for (;;) {
    try {
      const stats = await ask("/stats");
      if (lost) connect();
      lost = false;
      showStats(stats);
      setSlider(stats.threshold);
      $("faces").textContent = stats.faces;
      image.alt = `Live preview of ${stats.source}, faces found: ${stats.faces}`;
      say(stats.state === "running" ? "" : `${stats.state} ${stats.message}`);
    } catch (error) {
      lost = true;
      say(error.status ? error.message : "the server does not answer");
    }
    await wait(POLL_MS);
  }
}

function drawResult(picture, result, threshold) {
  const canvas = $("canvas");
  [canvas.width, canvas.height] = [result.width, result.height];
  const context = canvas.getContext("2d");
  context.drawImage(picture, 0, 0, result.width, result.height);
  const unit = Math.max(result.width, result.height) / 640;
  const faces = result.faces.filter((face) => face.score > threshold);
  context.lineWidth = Math.max(2, 2 * unit);
  context.strokeStyle = COLORS.box;
  for (const face of faces) {
    const [x1, y1, x2, y2] = face.box;
    context.strokeRect(x1, y1, x2 - x1, y2 - y1);
    for (const [name, [x, y]] of Object.entries(face.landmarks ?? {})) {
      context.fillStyle = COLORS[name];
      context.beginPath();
      context.arc(x, y, Math.max(1, Math.min(3 * unit, (x2 - x1) / 25)), 0, 2 * Math.PI);
      context.fill();
    }
  }
  canvas.hidden = false;
  canvas.setAttribute("aria-label", `Picture with faces found: ${faces.length}`);
  $("faces").textContent = faces.length;
}

function takePictures(info) {
  const { lowest_threshold: lowest, rate, max_bytes: maxBytes } = info.limits;
  let shown = null;
  let webcam = null;
  const redraw = () => shown && drawResult(shown.picture, shown.result, Number($("threshold").value));
  const detect = async (picture, blob) => {
    if (blob.size > maxBytes) throw new Error(`expected at most ${maxBytes} bytes, got ${blob.size}`);
    const result = await ask(`/detect?threshold=${lowest}`, { method: "POST", body: blob });
    shown = { picture, result };
    redraw();
    showStats(await ask("/stats"));
  };
  const take = async (file) => {
    stopWebcam();
    say("detecting …");
    try {
      await detect(await createImageBitmap(file), file);
      say("");
    } catch (error) {
      say(error.name === "InvalidStateError" ? "expected a picture that this browser can show" : error.message);
    }
  };
  const stopWebcam = () => {
    webcam?.getTracks().forEach((track) => track.stop());
    webcam = null;
    $("webcam").textContent = "use this browser’s camera";
  };
  const runWebcam = async () => {
    if (webcam) return stopWebcam();
    const video = document.createElement("video");
    try {
      webcam = await navigator.mediaDevices.getUserMedia({ video: true });
      Object.assign(video, { srcObject: webcam, muted: true });
      await video.play();
      say("");
    } catch (error) {
      stopWebcam();
      return say(window.isSecureContext ? `no camera: ${error.message}` : "browsers allow their camera on localhost and HTTPS pages only");
    }
    $("webcam").textContent = "stop the camera";
    const frame = document.createElement("canvas");
    [frame.width, frame.height] = [video.videoWidth, video.videoHeight];
    while (webcam) {
      frame.getContext("2d").drawImage(video, 0, 0);
      const blob = await new Promise((resolve) => frame.toBlob(resolve, "image/jpeg", 0.85));
      const pause = wait(2500 / rate); // a picture is two requests; stay below the limit
      try {
        if (webcam) await detect(frame, blob);
        say("");
      } catch (error) {
        say(error.message);
        await wait(RETRY_MS);
      }
      await pause;
    }
  };

  const stage = document.querySelector(".stage");
  $("drop").hidden = false;
  $("file").addEventListener("change", () => $("file").files[0] && take($("file").files[0]));
  $("webcam").addEventListener("click", runWebcam);
  stage.addEventListener("dragover", (event) => { event.preventDefault(); stage.classList.add("over"); });
  stage.addEventListener("dragleave", () => stage.classList.remove("over"));
  stage.addEventListener("drop", (event) => {
    event.preventDefault();
    stage.classList.remove("over");
    if (event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
  });
  onThreshold(redraw);
}

async function start() {
  for (;;) {
    try {
      const [info, stats] = [await ask("/api"), await ask("/stats")];
      showInfo(info);
      $("threshold").min = info.limits.lowest_threshold;
      setSlider(stats.threshold);
      return info.source === null ? takePictures(info) : watchSource();
    } catch (error) {
      say(error.status ? error.message : "the server does not answer");
      await wait(RETRY_MS);
    }
  }
}

start();
