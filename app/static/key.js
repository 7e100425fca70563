// The API key, where the service asks for one: asked for once, kept until the tab is closed, sent with every request.

const NAME = "pansynth-key";
const at = (id) => document.getElementById(id);
let asking = null; // several requests are refused at once, and one question is enough

export const headers = () => {
  const key = sessionStorage.getItem(NAME);
  return key ? { Authorization: `Bearer ${key}` } : {};
};

// Resolves when there is another key than the one refused; rejects when the dialog is closed without one.
function ask(words) {
  asking ??= new Promise((resolve, reject) => {
    const dialog = at("key");
    at("key-words").textContent = words;
    at("key-input").value = "";
    dialog.addEventListener("close", () => {
      asking = null;
      const given = at("key-input").value.trim();
      if (dialog.returnValue !== "use" || !given) return reject(new Error("no key"));
      sessionStorage.setItem(NAME, given);
      resolve();
    }, { once: true });
    dialog.returnValue = "";
    dialog.showModal();
  });
  return asking;
}

// fetch with the key; a refusal for want of one leads to the question, and then to the same request again.
export async function fetchWithKey(path, options = {}) {
  for (;;) {
    const sent = headers();
    const response = await fetch(path, { ...options, headers: { ...options.headers, ...sent } });
    if (response.status !== 401) return response;
    if (sent.Authorization !== headers().Authorization) continue; // it was given while this one was under way
    const { detail } = await response.clone().json().catch(() => ({ detail: "" }));
    try { await ask(sent.Authorization ? detail : ""); } catch { return response; }
  }
}
