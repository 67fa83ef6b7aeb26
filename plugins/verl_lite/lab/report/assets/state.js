// What the page shows is in its address: a link to it shows the same again.

const DEFAULTS = { view: "", text: "", where: "", sort: "", layout: "list", columns: "", row: "", pane: "row", show: "rendered" };

class State {
  constructor() {
    this.listeners = [];
    this.current = this.read();
    window.addEventListener("hashchange", () => this.set(this.read()));
  }

  read() {
    const given = new URLSearchParams(window.location.hash.slice(1));
    return Object.fromEntries(Object.entries(DEFAULTS).map(([name, value]) => [name, given.get(name) ?? value]));
  }

  hash(state) {
    const given = Object.entries(state).filter(([name, value]) => value !== DEFAULTS[name]);
    return `#${new URLSearchParams(given)}`;
  }

  link(changes) { return this.hash({ ...this.current, ...changes }); }

  onChange(listener) { this.listeners.push(listener); }

  set(next) {
    const changed = new Set(Object.keys(DEFAULTS).filter((name) => next[name] !== this.current[name]));
    this.current = next;
    if (changed.size) this.listeners.forEach((listener) => listener(next, changed));
  }

  // a new state; the address follows a little later, so that a held key does not write it for every row
  go(changes) {
    this.set({ ...this.current, ...changes });
    clearTimeout(this.pending);
    this.pending = setTimeout(() => window.history.replaceState(null, "", this.hash(this.current)), 150);
  }
}

const state = new State();

// a link to rows: it replaces the filter; `add` keeps what is shown and narrows it
function rowsLink(where, label, { sort = "", add = false, title = null } = {}) {
  const changes = () => ({ view: "rollouts", row: "", pane: "row", sort: sort || (add ? state.current.sort : ""), ...(add ? { where: both(state.current.where, where) } : { where, text: "" }) });
  const node = element("a", { href: state.link(changes()), title: title ?? `show the rows with ${where}` }, label);
  node.addEventListener("click", () => { node.href = state.link(changes()); });
  return node;
}
