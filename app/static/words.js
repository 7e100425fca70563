// What several parts of the page say.

// Fills a closed list with why files or samples were left out; without any it is hidden.
export function showReasons(details, title, reasons) {
  details.hidden = !reasons.length;
  details.querySelector("summary").textContent = title;
  details.querySelector("ul").replaceChildren(...reasons.map((reason) => {
    const item = document.createElement("li");
    item.textContent = reason;
    return item;
  }));
}

export const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

// Fills a list of terms with facts by their name, each with what it says where that is known.
export function fillFacts(list, facts, meanings = {}) {
  list.replaceChildren(...Object.entries(facts).flatMap(([name, value]) => {
    const [term, detail, meaning] = ["dt", "dd", "dd"].map((tag) => document.createElement(tag));
    term.textContent = name.replaceAll("_", " ");
    detail.textContent = asText(value);
    meaning.textContent = meanings[name];
    return meanings[name] ? [term, detail, meaning] : [term, detail];
  }));
}

function asText(value) {
  if (value === null) return "not known";
  if (Array.isArray(value)) return value.map((item) => item?.name ?? item).join("; ");
  return typeof value === "number" && !Number.isInteger(value) ? value.toFixed(3) : String(value);
}
