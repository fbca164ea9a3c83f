// "3 of 26 read", kept in this browser alone. A chapter counts as read when its quiz is answered or its box is ticked.
(() => {
  const KEY = "llm-from-stubs/1";
  const load = () => { try { return JSON.parse(localStorage.getItem(KEY)) ?? {}; } catch { return {}; } };
  const save = (state) => { try { localStorage.setItem(KEY, JSON.stringify(state)); } catch { /* a browser that keeps nothing */ } };

  const read = () => load().read ?? {};
  function mark(chapter, value) {
    const state = load();
    state.read = { ...state.read, [chapter]: value };
    save(state);
    draw();
  }

  function draw() {
    const done = read();
    for (const link of document.querySelectorAll(".sidebar-tree a.reference, .chapter-list a")) {
      const chapter = link.getAttribute("href").match(/(\d\d_\w+)\.html/)?.[1] ?? (link.getAttribute("href") === "#" ? document.body.dataset.chapter : "");
      const isRead = Boolean(done[chapter]);
      let note = link.querySelector(".read-note");
      if (isRead && !note) {
        note = Object.assign(document.createElement("span"), { className: "read-note", textContent: " read" });
        link.append(note);
      }
      if (!isRead && note) note.remove();
    }
    for (const total of document.querySelectorAll(".read-total")) {
      total.textContent = `${Object.values(done).filter(Boolean).length} of ${total.dataset.chapters} read`;
    }
    for (const box of document.querySelectorAll("input.read-box")) box.checked = Boolean(done[box.value]);
  }

  for (const box of document.querySelectorAll("input.read-box")) {
    document.body.dataset.chapter = box.value;
    box.addEventListener("change", () => mark(box.value, box.checked));
    document.addEventListener("quiz-done", () => mark(box.value, true));
  }
  document.querySelector(".progress-export")?.addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([JSON.stringify(load(), null, 1)], { type: "application/json" }));
    link.download = "reading-progress.json";
    link.click();
  });
  document.querySelector(".progress-import")?.addEventListener("change", async (event) => {
    const said = document.querySelector(".progress-said");
    try {
      const state = JSON.parse(await event.target.files[0].text());
      if (typeof state.read !== "object" || state.read === null) throw new Error("no progress");
      save({ read: { ...read(), ...state.read } });
      said.textContent = "Taken over.";
    } catch {
      said.textContent = "This file holds no reading progress.";
    }
    draw();
  });
  draw();
})();
