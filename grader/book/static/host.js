// Puts each figure of a page in its place. The module's text comes with the page: a browser imports no file from a folder on disk.
// None of the page's own scripts is a module, for the same reason; each keeps its names to itself.
(() => {
  class Model {
    constructor() { this.values = {}; this.listeners = {}; }
    get(name) { return this.values[name]; }
    set(name, value) { this.values[name] = value; (this.listeners[`change:${name}`] ?? []).forEach((listener) => listener()); }
    on(event, listener) { (this.listeners[event] ??= []).push(listener); }
    off(event, listener) { this.listeners[event] = (this.listeners[event] ?? []).filter((known) => known !== listener); }
    save_changes() {}
    send() {}
  }

  for (const place of document.querySelectorAll("script.explore-source")) {
    const el = place.previousElementSibling;
    const url = URL.createObjectURL(new Blob([JSON.parse(place.textContent)], { type: "text/javascript" }));
    import(url).then((module) => {
      el.replaceChildren();
      module.default.render({ model: new Model(), el });
      el.dataset.state = "drawn";
    });
  }
})();
