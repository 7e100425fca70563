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
