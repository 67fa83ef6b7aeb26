// A rollout as a conversation: the messages of its prompt, then its turns, with tool calls and results.

const MAX_TOKENS_DRAWN = 6000;

function messagesOf(rows, row) {
  const given = rows.hidden("#messages", row) ?? (rows.get("prompt", row) === null ? [] : [{ role: "user", content: rows.get("prompt", row) }]);
  const turns = rows.hidden("#turns", row) ?? [{ role: "assistant", content: rows.get("completion", row) ?? "" }];
  return [...given, ...turns.map((turn) => ({ ...turn, sampled: true }))];
}

function contentText(content) { // a text, a list of parts, or nothing
  if (typeof content === "string") return content;
  if (!Array.isArray(content)) return content === null || content === undefined ? "" : JSON.stringify(content, null, 1);
  return content.map((part) => (typeof part?.text === "string" ? part.text : `[${part?.type ?? "part"}]`)).join("\n");
}

function question(rows, row) { // what was asked last
  const asked = rows.hidden("#messages", row)?.findLast((message) => message.role === "user");
  return asked ? contentText(asked.content) : rows.get("prompt", row) ?? "";
}

// options: show ("rendered", "text" or "tokens"), search, answers, spans of the last message
function conversationNode(rows, row, options) {
  const messages = messagesOf(rows, row);
  const first = messages.findIndex((message) => message.sampled);
  for (const [turn, values] of options.turnValues) if (messages[first + turn]) messages[first + turn].values = values;
  const last = messages.findLastIndex((message) => message.sampled && message.role === "assistant");
  return element("div", { class: "conversation" }, messages.map((message, index) => messageNode(message, index === last ? options : { ...options, answers: [], spans: [] }, index === last)));
}

function messageNode(message, options, isLast) {
  const text = contentText(message.content);
  const plain = options.show === "text" || options.spans.length > 0;
  const body = plain ? plainNode(text, options.spans) : renderedNode(text);
  if (isLast) body.id = "completion";
  for (const answer of options.answers) markHits(body, answer, "answer", { last: true });
  markHits(body, options.search, "hit");
  const facts = [
    message.name, message.tool_call_id ? `for call ${message.tool_call_id}` : null,
    message.seconds ? `${number(message.seconds, 3)} s` : null, message.end > message.start ? plural(message.end - message.start, "token") : null,
  ];
  return element("section", { class: `message ${message.sampled ? "sampled" : "given"} role-${["system", "user", "assistant", "tool"].includes(message.role) ? message.role : "other"}` },
    element("h4", {}, element("span", { class: "role" }, message.role ?? "?"), element("span", { class: "muted" }, facts.filter(Boolean).join(" · ")),
      message.outcome && message.outcome !== "ok" ? element("span", { class: "badge bad" }, message.outcome) : null,
      (message.values ?? []).map((value) => element("span", { class: "badge" }, value))),
    text || !message.tool_calls?.length ? body : null,
    (message.tool_calls || []).map(callNode));
}

function callNode(call) {
  const called = call?.function ?? call ?? {};
  const given = called.arguments;
  return element("div", { class: "call" },
    element("h5", {}, "calls ", element("code", {}, String(called.name ?? "?")), call?.id ? element("span", { class: "muted" }, ` ${call.id}`) : null),
    argumentNodes(given));
}

function argumentNodes(given) { // one by one, texts as they are; what is no JSON object stays as it was written
  let values = null;
  try {
    values = typeof given === "string" ? JSON.parse(given) : given ?? {};
  } catch { /* as it was written */ }
  if (values === null || typeof values !== "object" || Array.isArray(values)) return codeNode(String(given), "json");
  return Object.entries(values).map(([name, value]) => element("div", { class: "argument" }, element("span", { class: "muted" }, name),
    typeof value === "string" ? codeNode(value, /code|python|script/i.test(name) ? "python" : "") : codeNode(JSON.stringify(value, null, 2), "json")));
}

// every token with its value; texts come from a tokenizer, if the page has one
function tokensNode(rows, row, measure, texts) {
  const tokens = rows.hidden("#tokens", row);
  const values = tokens?.[measure];
  if (!values) return element("p", { class: "muted" }, "The page has no values per token of this rollout.");
  const turns = rows.hidden("#turns", row) ?? [];
  const starts = new Map(turns.filter((turn) => turn.end > turn.start).map((turn) => [turn.start, turn.role]));
  const numbers = values.filter((value) => typeof value === "number");
  const heat = heatScale(numbers);
  const node = element("pre", { class: "plain tokens" });
  for (const [index, value] of values.slice(0, MAX_TOKENS_DRAWN).entries()) {
    if (starts.has(index)) node.append(element("span", { class: "turn" }, starts.get(index)));
    const id = tokens.ids?.[index];
    const mark = element("span", { class: "heat", title: `token ${index}${id === undefined ? "" : `, id ${id}`}: ${number(value)}` }, texts.get(String(id)) ?? "▪");
    if (typeof value === "number") heat(mark, value);
    node.append(mark);
  }
  const notes = [
    texts.size ? null : "The page has no texts of tokens: verl-lite report --tokenizer FOLDER puts them in.",
    values.length > MAX_TOKENS_DRAWN ? `The first ${number(MAX_TOKENS_DRAWN)} of ${plural(values.length, "token")}.` : null,
  ];
  return element("div", {}, element("p", { class: "muted" }, `${measure} per token `, legend(numbers)), node, notes.filter(Boolean).map((note) => element("p", { class: "muted" }, note)));
}
