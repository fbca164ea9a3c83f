// Answers a quiz at once: each choice opens its own explanation. Without this script every answer can be unfolded.
(() => {
  const within = (question, selector) => [...question.querySelectorAll(selector)];

  function show(question, right, explanations) {
    const result = question.querySelector(".quiz-result");
    result.replaceChildren(Object.assign(document.createElement("strong"), { textContent: right ? "Right. " : "Not quite. " }));
    result.append(...explanations.map((text) => Object.assign(document.createElement("span"), { textContent: `${text} ` })));
    question.dataset.state = right ? "right" : "wrong";
    const all = [...document.querySelectorAll(".quiz-question")];
    if (all.every((each) => each.dataset.state === "right")) document.dispatchEvent(new CustomEvent("quiz-done"));
  }

  const explained = (input) => input.closest("li").querySelector(".quiz-explanation").textContent;

  const answers = {
    one(question) {
      const chosen = question.querySelector("input:checked");
      if (chosen) show(question, chosen.dataset.right === "true", [explained(chosen)]);
    },
    any(question) {
      const boxes = within(question, "input[type=checkbox]");
      const wrong = boxes.filter((box) => box.checked !== (box.dataset.right === "true"));
      show(question, wrong.length === 0, (wrong.length ? wrong : boxes.filter((box) => box.checked)).map(explained));
    },
    number(question) {
      const text = question.querySelector("input").value.trim().replace("−", "-").replace(",", ".");
      const close = Math.abs(Number(text) - Number(question.dataset.answer)) <= Number(question.dataset.tolerance) + 1e-12;
      if (text) show(question, close, [question.dataset.explanation]);
    },
    shape(question) {
      const sizes = question.querySelector("input").value.match(/\d+/g) ?? [];
      if (sizes.length) show(question, sizes.join(" ") === question.dataset.answer, [question.dataset.explanation]);
    },
  };

  for (const question of document.querySelectorAll(".quiz-question")) {
    const answer = () => answers[question.dataset.kind](question);
    question.addEventListener("submit", (event) => (event.preventDefault(), answer()));
    if (question.dataset.kind === "one") question.addEventListener("change", answer);
    for (const unfold of within(question, "details")) unfold.remove();
  }
})();
