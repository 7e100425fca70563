// What several parts of the page say.

export const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;
