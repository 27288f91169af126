// What a form cannot do: drag, paste, a preview, live progress, a player. Without it every page still works.
"use strict";

document.documentElement.classList.add("js");
document.addEventListener("DOMContentLoaded", () => {
  const make = document.getElementById("make");
  const live = document.getElementById("live");
  if (make) chooseAndSend(make);
  if (live) follow(live);
  begin(document);
  focusError(document);
});
// A page from the browser's memory is a new order.
window.addEventListener("pageshow", () => newKeys(document));

function begin(part) {
  newKeys(part);
  part.querySelectorAll(".player").forEach(player);
  part.querySelectorAll(".copy").forEach(copyLink);
  part.querySelectorAll("details[data-dialog]").forEach(confirmInDialog);
  part.querySelectorAll("[data-palette]").forEach(colour);
}

// The same key is the same order: sent twice by accident, it is made once.
function newKeys(part) {
  for (const once of part.querySelectorAll("input[name=once]")) {
    once.value = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  }
}

function focusError(part) {
  const error = part.querySelector("[role=alert]:not([hidden])");
  if (error) error.focus();
}

// The start: a picture by picker, camera, drop or paste; then on its way.

function chooseAndSend(form) {
  const say = form.dataset;
  const input = document.getElementById("image");
  const camera = document.getElementById("camera");
  const drop = document.getElementById("drop");
  const error = document.getElementById("error");
  const image = document.getElementById("preview");
  const said = document.getElementById("said");
  const send = document.getElementById("send");
  const sending = document.getElementById("sending");
  const bar = sending.querySelector("progress");
  let refused = ""; // why the last picture was
  camera.removeAttribute("name"); // what it takes goes into the one input

  function refuse(text) {
    error.textContent = text;
    error.hidden = false;
    error.focus();
  }

  function refusePicture(text) {
    choose(null);
    refused = text;
    refuse(text);
  }

  function choose(file) {
    refused = "";
    error.hidden = true;
    if (image.src) URL.revokeObjectURL(image.src);
    const problem = !file ? "" : !["image/jpeg", "image/png", "image/webp"].includes(file.type) ? say.wrongType
      : file.size > Number(say.maxBytes) ? say.tooLarge : "";
    const isGood = Boolean(file) && !problem;
    const box = new DataTransfer();
    if (isGood) box.items.add(file);
    input.files = box.files;
    drop.classList.toggle("full", isGood);
    drop.querySelector(".invite").hidden = isGood;
    drop.querySelector(".chosen").hidden = !isGood;
    if (isGood) {
      image.src = URL.createObjectURL(file);
      image.alt = say.preview.replace("NAME", file.name);
    } else {
      image.removeAttribute("src");
      image.alt = "";
    }
    said.textContent = isGood ? say.chosen.replace("NAME", file.name) : "";
    if (problem) refuse((refused = problem));
  }

  image.addEventListener("error", () => { if (image.hasAttribute("src")) refusePicture(say.wrongType); });
  input.addEventListener("change", () => choose(input.files[0]));
  camera.addEventListener("change", () => { if (camera.files[0]) choose(camera.files[0]); });
  if (input.files[0]) choose(input.files[0]); // kept by the browser over a reload

  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) drop.classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault(); // or the browser would open the picture
    drop.classList.remove("over");
    if (event.dataTransfer.files[0]) choose(event.dataTransfer.files[0]);
  });
  document.addEventListener("paste", (event) => {
    const file = event.clipboardData && event.clipboardData.files[0];
    if (!file) return;
    event.preventDefault();
    choose(file);
  });

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!input.files[0]) return refuse(refused || say.missing);
    error.hidden = true;
    const request = new XMLHttpRequest(); // fetch does not tell how much it has sent
    request.open("POST", form.action);
    request.responseType = "document";
    request.upload.onprogress = (sent) => { if (sent.lengthComputable) bar.value = (100 * sent.loaded) / sent.total; };
    const over = (text, isPicture = false) => {
      sending.hidden = true;
      send.disabled = false;
      said.textContent = "";
      if (isPicture) refusePicture(text);
      else refuse(text);
    };
    request.onerror = () => over(say.offline);
    request.onload = () => {
      if (request.status === 413) return over(say.tooLarge, true);
      if (request.status < 400) return location.assign(request.responseURL);
      const told = request.response && (request.response.querySelector("#error") || request.response.querySelector(".lede"));
      over(told ? told.textContent : say.offline, request.status === 422);
    };
    bar.value = 0;
    sending.hidden = false;
    send.disabled = true;
    said.textContent = say.sending;
    request.send(new FormData(form));
  });
  window.addEventListener("pageshow", () => {
    sending.hidden = true;
    send.disabled = false;
  });
}

// A track that is made: asked for again and again, and only what has changed is replaced.

const UNDER_WAY = ["new", "queued", "running"];

function follow(live) {
  const said = document.getElementById("said");
  const lost = document.getElementById("lost");
  let timer = 0;
  let failures = 0;
  const sheet = () => live.querySelector(".sheet");
  const isUnderWay = () => UNDER_WAY.includes(sheet().dataset.state);

  function show(html) {
    const next = new DOMParser().parseFromString(html, "text/html").querySelector(".sheet");
    const old = sheet();
    if (document.title !== next.dataset.title.trim()) document.title = next.dataset.title.trim();
    if (said.textContent !== next.dataset.said.trim()) said.textContent = next.dataset.said.trim();
    if (UNDER_WAY.includes(next.dataset.state)) {
      old.dataset.state = next.dataset.state;
      for (const part of next.querySelectorAll("[data-part]")) {
        const was = old.querySelector(`[data-part=${part.dataset.part}]`);
        if (was.innerHTML === part.innerHTML) continue;
        const [wasBar, bar] = [was.querySelector("progress"), part.querySelector("progress")];
        if (wasBar && bar && was.children.length === part.children.length) {
          wasBar.value = bar.value; // the same bar, which moves
          const lines = part.querySelectorAll("p");
          was.querySelectorAll("p").forEach((line, at) => line.replaceWith(lines[at]));
        } else {
          was.replaceChildren(...part.childNodes);
        }
        begin(was);
      }
      return;
    }
    const hadFocus = old.contains(document.activeElement);
    const picture = old.querySelector(".picture img");
    old.replaceWith(next);
    const now = next.querySelector(".picture img");
    if (picture && now && picture.getAttribute("src") === now.getAttribute("src")) {
      picture.alt = now.alt;
      now.replaceWith(picture); // loaded already
    }
    begin(next);
    if (hadFocus) next.querySelector("h1").focus();
  }

  async function ask() {
    clearTimeout(timer);
    try {
      const answer = await fetch(live.dataset.progress, { cache: "no-store" });
      if (answer.status === 404) return location.reload(); // deleted elsewhere
      if (!answer.ok) throw new Error(String(answer.status));
      show(await answer.text());
      failures = 0;
    } catch {
      failures += 1;
    }
    lost.hidden = failures < 3;
    plan();
  }

  function plan() {
    if (isUnderWay()) timer = setTimeout(ask, document.hidden ? 5000 : Math.min(700 * 2 ** failures, 10000));
  }

  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && isUnderWay()) ask();
  });
  plan();
}

// The player: the browser's own, under a waveform.

function player(box) {
  const audio = box.querySelector("audio");
  const button = box.querySelector(".play");
  const range = box.querySelector("input");
  const played = box.querySelector("clipPath rect");
  const gone = box.querySelector(".gone");
  const width = 600; // of the waveform's box
  const length = () => (Number.isFinite(audio.duration) ? audio.duration : Number(range.max));
  const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
  let frame = 0;

  function show() {
    const now = audio.currentTime;
    range.value = now;
    gone.textContent = clock(now);
    played.setAttribute("width", (width * Math.min(now / length(), 1)).toFixed(1));
    range.setAttribute("aria-valuetext", box.dataset.of.replace("NOW", clock(now)).replace("ALL", clock(length())));
  }

  function state() {
    const plays = !audio.paused;
    box.classList.toggle("plays", plays);
    button.setAttribute("aria-label", plays ? box.dataset.pause : box.dataset.play);
    cancelAnimationFrame(frame);
    if (plays) frame = requestAnimationFrame(function move() { show(); frame = requestAnimationFrame(move); });
    show();
  }

  function broken() {
    if (box.querySelector(".error")) return;
    const error = document.createElement("p");
    error.className = "error";
    error.setAttribute("role", "alert");
    error.textContent = box.dataset.broken;
    box.append(error);
  }

  const toggle = () => (audio.paused ? audio.play().catch((error) => { if (error.name !== "AbortError") broken(); }) : audio.pause());
  const seek = (seconds) => { audio.currentTime = Math.min(Math.max(seconds, 0), length()); show(); };
  button.addEventListener("click", toggle);
  range.addEventListener("input", () => seek(Number(range.value)));
  range.addEventListener("keydown", (event) => {
    const step = Math.max(length() / 20, 1);
    const steps = { ArrowRight: step, ArrowUp: step, ArrowLeft: -step, ArrowDown: -step, PageUp: 4 * step, PageDown: -4 * step };
    if (event.key === " ") toggle();
    else if (event.key in steps) seek(audio.currentTime + steps[event.key]);
    else return;
    event.preventDefault();
  });
  for (const event of ["play", "pause", "ended"]) audio.addEventListener(event, state);
  for (const event of ["seeked", "timeupdate"]) audio.addEventListener(event, show);
  audio.addEventListener("loadedmetadata", () => { range.max = length(); show(); });
  show();
}

// The small ones.

function copyLink(box) {
  const link = box.querySelector("input");
  const said = box.querySelector("[role=status]");
  link.addEventListener("focus", () => link.select());
  box.querySelector("button").addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(link.value);
    } catch { // not a secure page: the old way
      link.select();
      document.execCommand("copy");
    }
    said.textContent = box.dataset.copied;
    setTimeout(() => { said.textContent = ""; }, 4000);
  });
}

function confirmInDialog(details) {
  const dialog = document.getElementById(details.dataset.dialog);
  const button = document.createElement("button");
  button.type = "button";
  button.className = details.querySelector("summary").className;
  button.textContent = details.querySelector("summary").textContent;
  button.addEventListener("click", () => dialog.showModal());
  details.replaceWith(button);
}

// The page takes the hue of the picture's most colourful colour; app.css gives it a lightness that can be read.
function colour(palette) {
  const strength = (hex) => {
    const [red, green, blue] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
    return Math.max(red, green, blue) - Math.min(red, green, blue);
  };
  const best = palette.dataset.palette.split(" ").sort((one, other) => strength(other) - strength(one))[0];
  if (strength(best) > 24) palette.closest(".live").style.setProperty("--hue", best);
}
