// Filters as text, such as: reward < 0.5 and (finish == "length" or not correct.reason contains "number")
// Parsed to functions of the row; nothing of it is ever run as code.

const SYMBOLS = /\s*(?:(\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+)|("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|`((?:[^`]|``)*)`|([A-Za-z_][\w.]*)|(==|!=|<=|>=|&&|\|\||[-<>()+*/%,=!]))/y;
const ALIASES = new Map([["&&", "and"], ["||", "or"], ["!", "not"], ["=", "=="]]);
const WORDS = new Set(["and", "or", "not", "contains", "matches", "true", "false", "null"]);
const MAX_LENGTH = 4000;

const FUNCTIONS = new Map([
  ["length", (value) => (typeof value === "string" ? value.length : null)],
  ["words", (value) => (typeof value === "string" ? value.split(/\s+/).filter(Boolean).length : null)],
  ["abs", (value) => (typeof value === "number" ? Math.abs(value) : null)],
  ["round", (value) => (typeof value === "number" ? Math.round(value) : null)],
]);

function equal(a, b) {
  if (typeof a === typeof b || a === null || b === null) return a === b;
  const [x, y] = [Number(a), Number(b)]; // true is 1, "18" is 18
  return !Number.isNaN(x) && x === y;
}

function ordered(compare) { // a comparison with a missing value, or of a text with a number, is false
  return (a, b) => a !== null && b !== null && (typeof a === "string") === (typeof b === "string") && compare(a, b);
}

const COMPARE = new Map([
  ["==", equal], ["!=", (a, b) => !equal(a, b)],
  ["<", ordered((a, b) => a < b)], ["<=", ordered((a, b) => a <= b)],
  [">", ordered((a, b) => a > b)], [">=", ordered((a, b) => a >= b)],
]);

const ARITHMETIC = new Map([
  ["+", (a, b) => a + b], ["-", (a, b) => a - b], ["*", (a, b) => a * b], ["/", (a, b) => a / b], ["%", (a, b) => a % b],
]);

class ExpressionError extends Error {}

// { test, long }: a function of the row, and whether it reads long texts. Throws ExpressionError.
function parseExpression(text, rows) {
  if (!text.trim()) return { test: () => true, long: false };
  if (text.length > MAX_LENGTH) throw new ExpressionError(`the filter has ${text.length} characters; at most ${MAX_LENGTH} are read`);
  try {
    return new Parser(text, rows).parse();
  } catch (error) {
    if (error instanceof RangeError) throw new ExpressionError("the filter is nested too deeply");
    throw error;
  }
}

class Parser {
  constructor(text, rows) {
    this.rows = rows;
    this.long = false;
    this.at = 0;
    this.symbols = symbolsOf(text);
  }

  parse() {
    const node = this.either();
    if (this.next) throw new ExpressionError(`did not expect ${this.next.text} at character ${this.next.at + 1}`);
    return { test: (row) => holds(node(row)), long: this.long };
  }

  get next() { return this.symbols[this.at]; }

  accept(...words) {
    if (!this.next || !this.next.word || !words.includes(this.next.text)) return null;
    this.at += 1;
    return words.length ? this.symbols[this.at - 1].text : null;
  }

  expect(word) {
    if (!this.accept(word)) throw new ExpressionError(`expected ${word} ${this.next ? `before ${this.next.text}` : "at the end"}`);
  }

  either() {
    let left = this.both();
    while (this.accept("or")) { const [a, b] = [left, this.both()]; left = (row) => holds(a(row)) || holds(b(row)); }
    return left;
  }

  both() {
    let left = this.negated();
    while (this.accept("and")) { const [a, b] = [left, this.negated()]; left = (row) => holds(a(row)) && holds(b(row)); }
    return left;
  }

  negated() {
    if (!this.accept("not")) return this.comparison();
    const inner = this.negated();
    return (row) => !holds(inner(row));
  }

  comparison() {
    const left = this.calculation(["+", "-"], () => this.calculation(["*", "/", "%"], () => this.unary()));
    const word = this.accept(...COMPARE.keys(), "contains", "matches");
    if (!word) return left;
    const right = this.calculation(["+", "-"], () => this.calculation(["*", "/", "%"], () => this.unary()));
    if (word === "contains") return contains(left, right);
    if (word === "matches") return matches(right);
    const compare = COMPARE.get(word);
    return (row) => compare(left(row), right(row));

    function matches(pattern) {
      const expression = regular(pattern());
      return (row) => { const value = left(row); return value !== null && expression.test(String(value)); };
    }
  }

  calculation(words, part) {
    let left = part();
    for (let word = this.accept(...words); word; word = this.accept(...words)) {
      const [a, b, calculate] = [left, part(), ARITHMETIC.get(word)];
      left = (row) => {
        const [x, y] = [a(row), b(row)];
        return typeof x === "number" && typeof y === "number" ? calculate(x, y) : null;
      };
    }
    return left;
  }

  unary() {
    if (!this.accept("-")) return this.primary();
    const inner = this.unary();
    return (row) => { const value = inner(row); return typeof value === "number" ? -value : null; };
  }

  primary() {
    if (this.accept("(")) {
      const inner = this.either();
      this.expect(")");
      return inner;
    }
    const symbol = this.next;
    if (!symbol) throw new ExpressionError("the filter ends too early");
    this.at += 1;
    if ("value" in symbol) return Object.assign(() => symbol.value, { literal: true });
    if (symbol.name === undefined) throw new ExpressionError(`did not expect ${symbol.text} at character ${symbol.at + 1}`);
    if (FUNCTIONS.has(symbol.name) && this.accept("(")) {
      const [call, inner] = [FUNCTIONS.get(symbol.name), this.either()];
      this.expect(")");
      return (row) => call(inner(row));
    }
    return this.column(symbol.name);
  }

  column(name) {
    const read = this.rows.reader(name);
    if (!read) throw new ExpressionError(`there is no column ${name}${nearest(name, [...this.rows.columns.keys()])}`);
    if (this.rows.kind(name) !== "long") return read;
    this.long = true;
    return Object.assign((row) => read(row), { lower: (row) => this.rows.stored(name, row, true) });
  }
}

function contains(left, right) {
  const lower = left.lower || ((row) => { const value = left(row); return value === null ? null : String(value).toLowerCase(); });
  const fixed = right.literal ? String(right()).toLowerCase() : null;
  return (row) => {
    const text = lower(row);
    return text !== null && text.includes(fixed ?? String(right(row)).toLowerCase());
  };
}

function regular(pattern) {
  if (typeof pattern !== "string") throw new ExpressionError('matches needs a pattern in quotes, such as "\\\\d+"');
  try {
    return new RegExp(pattern, "i");
  } catch (error) {
    throw new ExpressionError(error.message);
  }
}

function holds(value) { return value !== null && value !== false && value !== 0 && value !== ""; }

function symbolsOf(text) {
  const found = [];
  SYMBOLS.lastIndex = 0;
  while (SYMBOLS.lastIndex < text.trimEnd().length) {
    const at = SYMBOLS.lastIndex + /^\s*/.exec(text.slice(SYMBOLS.lastIndex))[0].length;
    const match = SYMBOLS.exec(text);
    if (!match) throw new ExpressionError(`cannot read ${shortened(text.slice(at), 12)} at character ${at + 1}`);
    const [whole, digits, quoted, ticked, word, sign] = match;
    const symbol = { at, text: whole.trim() };
    if (digits !== undefined) symbol.value = Number(digits);
    else if (quoted !== undefined) symbol.value = unquoted(quoted);
    else if (ticked !== undefined) symbol.name = ticked.replaceAll("``", "`");
    else if (word !== undefined && !WORDS.has(word.toLowerCase())) symbol.name = word;
    else {
      symbol.word = true;
      symbol.text = ALIASES.get(sign) ?? sign ?? word.toLowerCase();
      if (["true", "false", "null"].includes(symbol.text)) symbol.value = JSON.parse(symbol.text);
    }
    found.push(symbol);
  }
  return found;
}

function unquoted(quoted) {
  const inner = quoted[0] === '"' ? quoted : `"${quoted.slice(1, -1).replaceAll("\\'", "'").replace(/(^|[^\\])"/g, '$1\\"')}"`;
  try {
    return JSON.parse(inner);
  } catch {
    return quoted.slice(1, -1); // "\d+": a backslash that is no escape stands for itself
  }
}

function nearest(name, names) {
  const distance = (a, b) => {
    let line = Array.from({ length: b.length + 1 }, (_, index) => index);
    for (let i = 1; i <= a.length; i += 1) {
      const next = [i];
      for (let j = 1; j <= b.length; j += 1) next[j] = Math.min(line[j] + 1, next[j - 1] + 1, line[j - 1] + (a[i - 1] !== b[j - 1]));
      line = next;
    }
    return line[b.length];
  };
  const short = names.filter((one) => one.length < 60 && name.length < 60).map((one) => [distance(name, one), one]).sort((a, b) => a[0] - b[0]);
  return short.length && short[0][0] <= 3 ? `; did you mean ${short[0][1]}?` : `; the button Columns lists all ${names.length}`;
}

// The other way: names, values and ranges as the text of a filter.

function nameText(name) {
  return /^[A-Za-z_][\w.]*$/.test(name) && !WORDS.has(name.toLowerCase()) ? name : `\`${name.replaceAll("`", "``")}\``;
}

function equals(name, value) { // a long text by its beginning
  if (typeof value === "string" && value.length > 500) return `${nameText(name)} contains ${JSON.stringify(value.slice(0, 500))}`;
  return `${nameText(name)} == ${typeof value === "string" ? JSON.stringify(value) : String(value)}`;
}

function within(name, low, high, closed) {
  return low === high ? equals(name, low) : `${nameText(name)} >= ${low} and ${nameText(name)} ${closed ? "<=" : "<"} ${high}`;
}

function both(first, second) {
  const part = (text) => (/\bor\b|\|\|/i.test(text) ? `(${text})` : text);
  return first.trim() ? `${part(first)} and ${part(second)}` : second;
}
