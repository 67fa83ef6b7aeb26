// The page's data: a head that is read at once, and blocks of long texts, each read when a row needs it.

const SEARCHED = new Set(["#messages", "#turns"]); // hidden columns in which text is looked for

async function unpack(node) {
  const base64 = node.textContent;
  node.remove();
  let bytes;
  if (Uint8Array.fromBase64) bytes = Uint8Array.fromBase64(base64);
  else {
    const text = atob(base64);
    bytes = new Uint8Array(text.length);
    for (let at = 0; at < text.length; at += 1) bytes[at] = text.charCodeAt(at);
  }
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

class Rows {
  constructor(head, nodes) {
    this.components = new Map(Object.entries(head.components)); // name -> the column of its values
    this.primary = this.components.get(head.summary.primary) ?? "reward"; // the column that says what is correct
    this.columns = new Map(head.columns.map((column) => [column.name, column]));
    this.size = head.blocks.reduce((sum, size) => sum + size, 0);
    this.blockOf = new Uint32Array(this.size);
    let first = 0;
    this.blocks = head.blocks.map((size, index) => {
      this.blockOf.fill(index, first, first + size);
      first += size;
      return { first: first - size, size, node: nodes[index], texts: null, columns: null, lower: null, loading: null };
    });
    this.groupStart = this.groupStarts();
  }

  // samples of one prompt are neighbours; the row at which each row's group starts
  groupStarts() {
    const starts = new Uint32Array(this.size);
    const [group, step] = [this.reader("group"), this.reader("step") || (() => null)];
    for (let row = 1; row < this.size; row += 1) {
      starts[row] = group(row) === group(row - 1) && step(row) === step(row - 1) ? starts[row - 1] : row;
    }
    return starts;
  }

  groupOf(row) {
    const found = [];
    for (let at = this.groupStart[row]; at < this.size && this.groupStart[at] === this.groupStart[row]; at += 1) found.push(at);
    return found;
  }

  // a function of the row; null if there is no such column
  reader(name) {
    const column = this.columns.get(name);
    if (!column) return null;
    const { values, levels } = column;
    if (column.kind === "long") return (row) => this.stored(name, row);
    if (column.kind === "text") return (row) => (values[row] === null ? null : levels[values[row]]);
    return (row) => values[row];
  }

  get(name, row) {
    const read = this.reader(name);
    return read ? read(row) : null;
  }

  kind(name) { return this.columns.get(name)?.kind; }

  stored(name, row, lower = false) {
    const block = this.blocks[this.blockOf[row]];
    const place = block.columns?.get(name)?.[row - block.first] ?? -1;
    return place < 0 ? null : (lower ? block.lower : block.texts)[place];
  }

  hidden(name, row) {
    const text = this.stored(name, row);
    return text === null ? null : JSON.parse(text);
  }

  isLoaded(row) { return this.blocks[this.blockOf[row]].texts !== null; }

  load(row) { return this.loadBlock(this.blocks[this.blockOf[row]]); }

  loadBlock(block) {
    block.loading ??= unpack(block.node).then(({ texts, columns }) => {
      block.node = null;
      block.columns = new Map(Object.entries(columns));
      const wanted = new Uint8Array(texts.length);
      block.searched = [...block.columns].filter(([name]) => !name.startsWith("#") || SEARCHED.has(name)).map(([, places]) => places);
      for (const places of block.searched) for (const place of places) if (place >= 0) wanted[place] = 1;
      block.lower = texts.map((text, index) => (wanted[index] ? text.toLowerCase() : ""));
      block.texts = texts;
    });
    return block.loading;
  }

  // whether the column's values can be read of every row by now
  isKnown(name) { return this.columns.has(name) && (this.kind(name) !== "long" || this.allLoaded); }

  get allLoaded() { return this.blocks.every((block) => block.texts); }

  async loadAll(onBlock = () => {}) {
    for (const block of this.blocks) {
      if (block.texts) continue;
      await this.loadBlock(block);
      onBlock();
      await new Promise((resolve) => { setTimeout(resolve, 0); });
    }
  }

  // a test of the row: whether a text of it has `wanted`, in any case of the letters; all blocks are loaded
  search(wanted) {
    const text = wanted.toLowerCase();
    const tests = [];
    for (const column of this.columns.values()) {
      if (column.kind !== "text") continue;
      column.lower ??= column.levels.map((level) => level.toLowerCase());
      const hits = column.lower.map((level) => level.includes(text));
      if (hits.includes(true)) tests.push((row) => hits[column.values[row]] === true);
    }
    const found = this.blocks.map(({ lower }) => lower.map((one) => one.includes(text)));
    tests.push((row) => {
      const at = this.blockOf[row];
      const block = this.blocks[at];
      return block.searched.some((places) => found[at][places[row - block.first]] === true);
    });
    return (row) => tests.some((test) => test(row));
  }
}
