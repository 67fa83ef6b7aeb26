"use strict";
const $ = (id) => document.getElementById(id);
const token = location.hash.slice(1);
let state = null;
let ranks = [];      // by place on the page; 0 while not placed
let tieNext = false; // the next one shares the rank of the last one placed
let busy = false;

async function call(path, headers, body) {
  const options = { headers: { "X-Token": token, ...headers }, method: body ? "POST" : "GET" };
  if (body) options.body = JSON.stringify(body);
  const answer = await fetch(path, options);
  if (!answer.ok) throw new Error(await answer.text());
  return answer.json();
}

async function run(request) {
  if (busy) return;
  busy = true;
  try {
    state = await request();
    $("error").textContent = "";
    ranks = state.item ? state.item.completions.map(() => 0) : [];
    tieNext = false;
  } catch (problem) {
    $("error").textContent = `Not saved: ${problem.message}`;
  }
  busy = false;
  if (state) draw();
}

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

const isPair = () => ranks.length === 2;
const highest = () => Math.max(0, ...ranks);

function draw() {
  const item = state.item;
  $("who").textContent = state.annotator;
  $("bar").max = state.total;
  $("bar").value = state.judged;
  $("count").textContent = `${state.judged} of ${state.total}`;
  document.querySelector("main").hidden = !item;
  $("done").hidden = Boolean(item);
  $("back").hidden = !state.previous;
  if (item) {
    $("prompt").replaceChildren(...item.prompt.flatMap((message) => [
      element("div", "role", message.role), element("div", "", message.content)]));
    $("completions").replaceChildren(...item.completions.map(card));
    $("tie").innerHTML = isPair() ? "Equally good <kbd>=</kbd>" : "Next ties with the last <kbd>=</kbd>";
    $("tie").setAttribute("aria-pressed", String(tieNext));
    $("save").hidden = isPair();
    $("save").disabled = ranks.includes(0);
    $("help").textContent = isPair() ? "1 or 2: the better one" : "Number keys: best first, then Enter";
  }
  document.body.dataset.ready = item ? item.id : "done";
}

function card(text, place) {
  const made = element("button", ranks[place] ? "card placed" : "card");
  const title = element("h2", "", String(place + 1));
  title.append(element("span", "rank", ranks[place] ? `rank ${ranks[place]}` : ""));
  made.append(title, element("div", "text", text));
  made.addEventListener("click", () => choose(place));
  return made;
}

function choose(place) {
  if (!state || !state.item || place >= ranks.length) return;
  if (isPair()) return send(ranks.map((_, other) => (other === place ? 1 : 2)));
  if (ranks[place]) return;
  ranks[place] = tieNext && highest() ? highest() : highest() + 1;
  tieNext = false;
  draw();
}

function tie() {
  if (!state || !state.item) return;
  if (isPair()) return send([1, 1]);
  tieNext = highest() > 0 && !tieNext;
  draw();
}

function save() {
  if (state && state.item && !isPair() && !ranks.includes(0)) send(ranks);
}

function send(given) {
  const id = state.item.id;
  run(() => call("/judge", { "Content-Type": "application/json" }, { id, ranks: given }));
}

function back() {
  if (highest()) {
    ranks = ranks.map(() => 0);
    tieNext = false;
    draw();
  } else if (state && state.previous) {
    const previous = state.previous;
    run(() => call("/state", { "X-Item": previous }));
  }
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (event.key >= "1" && event.key <= "9") choose(Number(event.key) - 1);
  else if (event.key === "=" || event.key === "0") tie();
  else if (event.key === "Enter") save();
  else if (event.key === "Backspace") back();
  else return;
  event.preventDefault();
});
$("tie").addEventListener("click", tie);
$("save").addEventListener("click", save);
$("back").addEventListener("click", back);
run(() => call("/state", {}));
