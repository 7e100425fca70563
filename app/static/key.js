// The API key, where the service asks for one: asked for once, kept until the tab is closed, sent with every request.

const NAME = "pansynth-key";
const at = (id) => document.getElementById(id);
let asking = null; // several requests are refused at once, and one question is enough
let answers = 0; // how often it was answered, be it by closing the dialog
export let declined = false; // whether the last answer was no key: the page by itself asks no more then

const headers = () => {
  const key = sessionStorage.getItem(NAME) ?? "";
  return /^[!-~]+$/.test(key) ? { Authorization: `Bearer ${key}` } : {}; // fetch throws at other characters
};

// Resolves when there is another key than the one refused; rejects when the dialog is closed without one.
function ask(words) {
  asking ??= new Promise((resolve, reject) => {
    const dialog = at("key");
    at("key-words").textContent = words;
    at("key-input").value = "";
    dialog.addEventListener("close", () => {
      asking = null;
      answers += 1;
      const given = at("key-input").value.trim();
      declined = dialog.returnValue !== "use" || !given;
      if (declined) return reject(new Error("no key"));
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
    const [sent, before] = [headers(), answers];
    const response = await fetch(path, { ...options, headers: { ...options.headers, ...sent } });
    if (response.status !== 401) return response;
    const { detail } = await response.clone().json().catch(() => ({ detail: "" }));
    if (sent.Authorization !== headers().Authorization) continue; // it was given while this one was under way
    if (declined && before !== answers) return response; // or declined
    try { await ask(sent.Authorization ? detail : ""); } catch { return response; }
  }
}
