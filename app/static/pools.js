// Step 1: choose, create or delete a pool.

import { all, postJson, Problem, remove, showProblem } from "./api.js";
import { plural } from "./words.js";

const select = document.getElementById("pool");
const row = document.getElementById("new-pool-row");
const nameInput = document.getElementById("new-pool-name");
const problemBox = document.getElementById("pool-problem");
const newPool = document.getElementById("new-pool");

// The pools as they are now. Where the chosen one is gone none is chosen: the user says which takes its place.
export async function refreshPools(wanted) {
  const pools = await all("/pools");
  const filled = pools.filter(({ image_count }) => image_count > 0);
  const first = (filled.length ? filled : pools).find(({ name }) => name === "default") ?? filled[0] ?? pools[0];
  const chosen = wanted ?? (select.options.length ? select.value : first?.name);
  const list = document.createElement("select");
  list.append(...pools.map(({ name, image_count }) => new Option(`${name} (${plural(image_count, "image")})`, name)));
  if (list.innerHTML !== select.innerHTML) select.replaceChildren(...list.children);
  select.value = chosen;
}

export function requirePool(name) {
  if (!name) throw new Problem({ title: "No pool is chosen", errors: [{ field: "pool", detail: "choose one in step 1, or make one with New pool" }] });
}

function showRow(isShown) {
  row.hidden = !isShown;
  newPool.setAttribute("aria-expanded", String(isShown));
  if (isShown) nameInput.focus();
}

async function createPool() {
  const name = nameInput.value.trim();
  await postJson("/pools", { name });
  showRow(false);
  nameInput.value = "";
  await refreshPools(name);
  select.focus();
}

async function deletePool() {
  requirePool(select.value);
  if (!confirm(`Delete the pool ${select.selectedOptions[0].text}? The datasets made from it stay.`)) return;
  await remove(`/pools/${encodeURIComponent(select.value)}`);
  await refreshPools();
}

// The action, its trouble told in step 1.
export function orProblem(action) {
  return async () => {
    problemBox.hidden = true;
    try { await action(); } catch (problem) { showProblem(problemBox, problem); }
  };
}

export function setUpPools() {
  newPool.addEventListener("click", () => showRow(row.hidden));
  document.getElementById("delete-pool").addEventListener("click", orProblem(deletePool));
  document.getElementById("create-pool").addEventListener("click", orProblem(createPool));
  nameInput.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault(); // Enter here makes the pool, and does not submit the synthesis
    orProblem(createPool)();
  });
}
